"""Always the same answer: the frequencies of the labels, whatever the features are.

    z_c = log((n_c + 1/2) / (n + C/2))        multi-label: log((n_c + 1/2) / (n - n_c + 1/2))

The floor that every other step must beat. The half item is the Jeffreys (1946) prior: no label has probability 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import CLASSES, Goals, check
from topwork.nn.log_loss import log_priors, losses
from topwork.types import Head, Probe


@dataclass(frozen=True)
class Majority:
    """The label frequencies; no options."""

    goals: ClassVar[Goals] = CLASSES

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Count."""
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        priors = log_priors(given.counts(), given.training().sum(axis=1), given.multilabel)  # (F + 1, C)
        held_out = priors[given.folds].astype(np.float32)  # (N, C)
        arrays = {
            "weight": np.zeros((given.x.shape[1], classes), np.float32),
            "bias": priors[-1].astype(np.float32),
        }
        loss = float(np.average(losses(held_out, given.targets), weights=given.weight))
        head = Head("linear", arrays, given.activation, method="majority")
        return Probe(head, held_out, loss, f"label frequencies alone: {given.n_folds}-fold log loss {loss:.3f}")
