"""Whether there is time to go on; several processes obey the first one's clock."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from topwork import processes
from topwork.types import Choice

LEAST_SECONDS = 15.0  # with less nothing is begun


class OutOfTime(Exception):
    """Why there is no time to go on, in words."""


def check_time(deadline: float, must: bool = False) -> None:
    """Whether there is enough time to go on."""
    left = processes.decided(lambda: deadline - time.monotonic())
    if left < LEAST_SECONDS and not must:
        raise OutOfTime(f"the budget has {max(left, 0):,.0f} s left, less than {LEAST_SECONDS:g} s")


def agreed(choose: Callable[[], Choice]) -> Choice:
    """A choice that depends on the clock or the disk."""
    return Choice(**processes.decided(lambda: dataclasses.asdict(choose())))
