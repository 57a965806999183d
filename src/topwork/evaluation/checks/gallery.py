"""The pictures worth looking at: most wrong (often a wrong label) and least sure (often worth labelling more of).

most wrong   wrong, with the highest probability for what was said         several labels: the worst label's |p - y|
least sure   smallest margin between the two likeliest labels              several labels: smallest |p - 1/2|

Numbers: most wrong by the absolute error; a number does not hesitate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.checks import Context
from topwork.tasks import regression
from topwork.tasks.classification import checked, hits


@dataclass(frozen=True)
class Gallery:
    """Items to look at, most telling first."""

    size: int = 24  # of each list, at most

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield "gallery": most_wrong and least_sure."""
        seen = context.predictions
        if seen.numeric:
            yield "gallery", {"most_wrong": [*_numbers(context, self.size)], "least_sure": []}
            return
        p, t = checked(seen.probabilities, seen.targets, seen.multilabel)
        wrong = np.flatnonzero(~hits(p, t))
        if seen.multilabel:
            sure, doubt = np.abs(p - t).max(1), np.abs(p - 0.5).min(1)
            said = np.where((p >= 0.5) != t, np.abs(p - t), -1).max(1)
        else:
            top = np.partition(p, -2, axis=1)[:, -2:] if p.shape[1] > 1 else np.hstack([0 * p, p])
            sure, doubt, said = p.max(1), top[:, 1] - top[:, 0], p.max(1)
        worst = wrong[np.argsort(-sure[wrong], kind="stable")][: self.size]
        least = np.argsort(doubt, kind="stable")[: self.size]
        nearest = p[np.arange(len(p)), np.abs(p - 0.5).argmin(1)] if seen.multilabel else p.max(1)
        yield (
            "gallery",
            {
                "most_wrong": [_entry(context, p, t, int(i), float(said[i])) for i in worst],
                "least_sure": [_entry(context, p, t, int(i), float(nearest[i])) for i in least],
            },
        )


def _numbers(context: Context, size: int) -> Iterator[dict[str, Any]]:
    seen = context.predictions
    z, y = regression.checked(seen.probabilities, seen.targets)
    unit = float(np.sqrt(((z[:, 0] - y) ** 2).mean()))
    for i in np.argsort(-np.abs(z[:, 0] - y), kind="stable")[:size]:
        said = {
            "label": regression.as_given(float(y[i])),
            "predicted": regression.written(z[i, 0], unit),
            "error": float(z[i, 0] - y[i]),
        }
        yield {**_place(context, int(i)), **said}


def _place(context: Context, i: int) -> dict[str, Any]:
    seen = context.predictions
    return {
        "item": str(seen.items[i]) if len(seen.items) else "",
        "row": int(i if context.rows is None else context.rows[i]),
    }


def _entry(context: Context, p: NDArray[Any], t: NDArray[Any], i: int, probability: float) -> dict[str, Any]:
    seen = context.predictions
    return {
        **_place(context, i),
        "label": _names(seen.labels, t[i]),
        "predicted": _names(seen.labels, p[i] >= 0.5 if seen.multilabel else p[i].argmax()),
        "probability": float(probability),
    }


def _names(labels: tuple[str, ...], which: Any) -> str:
    if np.ndim(which) == 0:
        return labels[int(which)]
    return ", ".join(labels[c] for c in np.flatnonzero(which)) or "none"
