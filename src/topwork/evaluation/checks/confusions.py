"""Which labels are taken for which: the confusion matrix and its largest entries off the diagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.evaluation.checks import Context
from topwork.tasks.classification import checked, confusion


@dataclass(frozen=True)
class Confusions:
    """Counts, row = truth, column = likeliest label."""

    pairs: int = 10  # most confused pairs that are named

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield "confusion": labels, counts, pairs; nothing for several labels per item, or numbers."""
        seen = context.predictions
        if seen.multilabel or seen.numeric:
            return
        counts = confusion(*checked(seen.probabilities, seen.targets))
        wrong = counts - np.diag(np.diag(counts))
        order = np.argsort(-wrong, axis=None, kind="stable")[: self.pairs]
        pairs = [divmod(int(cell), len(counts)) for cell in order if wrong.flat[cell]]
        yield (
            "confusion",
            {
                "labels": list(seen.labels),
                "counts": counts.tolist(),
                "pairs": [
                    {"truth": seen.labels[t], "predicted": seen.labels[p], "count": int(counts[t, p])} for t, p in pairs
                ],
            },
        )
