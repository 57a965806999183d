"""Do probabilities mean what they say, before and after the temperature? Of numbers: do the ranges hold the truth?

"After" is measured on items that the temperature was not fitted on: with folds each item gets the temperature of the
other folds; a test set gets the model's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from topwork.evaluation.calibrate import activate, cross_fitted, measure
from topwork.evaluation.checks import Context
from topwork.nn.log_loss import fit_temperature


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error, log loss and reliability bins at T = 1 and at the fitted temperature."""

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield "calibration": temperature, before, after; nothing without logits."""
        z, folds, T = context.logits, context.folds, context.temperature
        seen = context.predictions
        if z is None or seen.numeric or (folds is None and T is None):
            return
        y, several, activation = seen.targets, seen.multilabel, seen.activation
        if folds is not None:
            after = cross_fitted(z, y, folds, activation)
            T = fit_temperature(z, y) if T is None else T
        else:
            after = activate(z, activation, T or 1.0)
        yield (
            "calibration",
            {
                "temperature": T,
                "before": measure(activate(z, activation), y, several),
                "after": measure(after, y, several),
            },
        )
