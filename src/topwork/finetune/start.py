"""What a tuned step begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topwork.ground import Rows
from topwork.types import Backbone, Probe

BATCH = 32  # items at once


@dataclass(frozen=True, eq=False)
class Start:
    """What a tuned step begins with: the frozen probe of the same backbone."""

    backbone: Backbone
    x: Callable[[Rows], NDArray[np.float32]]  # its frozen features
    probe: Probe
