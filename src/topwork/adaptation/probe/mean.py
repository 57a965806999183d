"""Always the same number: the mean of the training items, whatever the features are.

    z = sum_i w_i y_i / sum_i w_i

The floor that every other step must beat where targets are numbers: its R^2 is 0, or a little below out of fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import NUMBERS, Goals, check
from topwork.nn.log_loss import losses
from topwork.types import Head, Probe


@dataclass(frozen=True)
class Mean:
    """The mean of the numbers; no options."""

    goals: ClassVar[Goals] = NUMBERS

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Average."""
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        training = given.training()  # (F + 1, N)
        means = (training @ given.targets / training.sum(axis=1)).astype(np.float32)  # (F + 1,)
        held_out = means[given.folds][:, None]  # (N, 1)
        arrays = {"weight": np.zeros((given.x.shape[1], 1), np.float32), "bias": means[-1:]}
        loss = float(np.average(losses(held_out, given.targets), weights=given.weight))
        return Probe(Head("linear", arrays, "identity", method="mean"), held_out, loss, f"the mean, {means[-1]:.4g}")
