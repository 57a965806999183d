"""Scales of a chart in percent of its width or height, and the round values at their marks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A scale from `start` (0 %) to `end` (100 %); start > end turns it round, as heights on a screen need."""

    start: float
    end: float
    log: bool = False

    def at(self, value: float | None) -> float:
        """Percent of the way from start to end, kept inside."""
        if value is None:
            return 0.0
        start, end, value = (math.log10(max(v, 1e-12)) if self.log else v for v in (self.start, self.end, value))
        return round(min(max((value - start) / (end - start), 0.0), 1.0) * 100, 2)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the scale, at most `most` of them where it is linear."""
        low, high = sorted((self.start, self.end))
        return _log_ticks(low, high) if self.log else _linear_ticks(low, high, most)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most - 1, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 10) for at in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1,), (1, 3), (1, 2, 5)):
        ticks = [lead * 10.0**decade for decade in decades for lead in leads]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) >= 3:
            break
    return ticks


def share_axis(values: Iterable[float | None]) -> Axis:
    """A height axis for shares: round tens around the values, 100 % on top where they come near it."""
    known = [v for v in values if v is not None] or [0.0, 1.0]
    low, high = max(math.floor(min(known) * 10 - 0.2) / 10, 0.0), min(math.ceil(max(known) * 10 + 0.2) / 10, 1.0)
    if high - low < 0.2:
        low = max(high - 0.2, 0.0)
    return Axis(start=high, end=low if low < high else 0.0)


def log_axis(values: Sequence[float], room: float = 1.6) -> Axis:
    """A logarithmic axis with some room on both sides."""
    return Axis(min(values) / room, max(values) * room, log=True)
