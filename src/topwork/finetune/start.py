"""What a tuned step begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.ground import Ground, Rows
from topwork.types import Backbone, Probe

BATCH = 32  # items at once


@dataclass(frozen=True)
class Unit:
    """Numbers are learnt in standard deviations from their mean; classes need no unit."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, ground: Ground) -> Unit:
        """Of the numbers of the training items alone: what only measures changes no bit of the model."""
        if not ground.dataset.numeric:
            return cls()
        y = ground.dataset.targets()[ground.train]
        return cls(float(y.mean()), float(y.std()) or 1.0)


def targets_of(ground: Ground) -> NDArray[Any]:
    """What a loss is told: (N,) int64 classes, (N, C) bool, or (N,) float32 numbers in their unit."""
    dataset, unit = ground.dataset, Unit.of(ground)
    targets = dataset.targets()
    if dataset.numeric:
        return ((targets - unit.mean) / unit.std).astype(np.float32)
    return targets if dataset.multilabel else targets.astype(np.int64)


@dataclass(frozen=True, eq=False)
class Start:
    """What a tuned step begins with: the frozen probe of the same backbone."""

    backbone: Backbone
    x: Callable[[Rows], NDArray[np.float32]]  # its frozen features
    probe: Probe
