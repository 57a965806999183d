"""Do the ranges of a model of numbers hold the truth as often as they say, and where is it wrong?

band      share of the truths y in [z + low, z + high], which 90 % should be; low and high from other items
ranges    mean absolute error and mean error of the items in each fifth of the truth, smallest first
points    truth and answer of up to POINTS items, for a picture
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.calibrate import BAND, band
from topwork.evaluation.checks import Context
from topwork.evaluation.intervals import wilson
from topwork.tasks.regression import checked

POINTS = 400
FEWEST = 5  # items of a range


@dataclass(frozen=True)
class Numbers:
    """Coverage of the stated range, errors along the range of the truth."""

    ranges: int = 5

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield "numbers": band, ranges, points; nothing for classes."""
        seen = context.predictions
        if not seen.numeric:
            return
        z, y = checked(seen.probabilities, seen.targets)
        said = z[:, 0]
        order = np.argsort(y, kind="stable")
        fifths = [rows for rows in np.array_split(order, min(self.ranges, max(1, len(y) // FEWEST))) if len(rows)]
        shown = order[np.unique(np.linspace(0, len(y) - 1, min(POINTS, len(y))).astype(int))]
        held = self._held(context, said, y)
        told: dict[str, Any] = {
            "name": seen.labels[0],
            "ranges": [
                {
                    "from": float(y[rows[0]]),
                    "to": float(y[rows[-1]]),
                    "items": len(rows),
                    "mae": float(np.abs(said - y)[rows].mean()),
                    "bias": float((said - y)[rows].mean()),
                }
                for rows in fifths
            ],
            "points": [[float(y[i]), float(said[i])] for i in shown],
        }
        if held is not None:
            low, high = wilson(int(held.sum()), len(held))
            told["band"] = {
                "stated": BAND, "value": float(held.mean()), "low": float(low), "high": float(high), "n": len(held)
            }  # fmt: skip
        yield "numbers", told

    def _held(self, context: Context, said: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_] | None:
        """(N,) whether the truth lies in a range that other items have told; None where there were none."""
        away, folds = y - said, context.folds
        if folds is not None:
            held = np.zeros(len(y), bool)
            for fold in np.unique(folds):
                own = folds == fold
                others = band(said[~own, None], y[~own]) if not own.all() else band(said[:, None], y)
                held[own] = (away[own] >= others["low"]) & (away[own] <= others["high"])
            return held
        if context.band is None:
            return None
        return (away >= context.band["low"]) & (away <= context.band["high"])
