"""Every metric of a set of predictions with its interval: one held-out set, or repeated cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.evaluation.intervals import cross_validated, interval, overlap, wilson
from topwork.tasks import Statistic, checked, main_metric, statistics
from topwork.tasks.classification import counts
from topwork.types import Metric, Predictions


def score(predictions: Predictions) -> dict[str, Metric]:
    """Metrics on items that the model has never seen."""
    return {name: interval(statistic) for name, statistic in _statistics(predictions).items()}


def score_repeats(repeats: Sequence[Predictions], folds: Sequence[NDArray[Any]]) -> dict[str, Metric]:
    """Metrics from out-of-fold predictions: repeat r predicted item i by a model that never saw fold folds[r][i]."""
    each = _repeats(repeats, folds)
    common = [name for name in each[0] if all(name in one for one in each)]
    return {name: cross_validated([one[name] for one in each], folds) for name in common}


def widening(repeats: Sequence[Predictions], folds: Sequence[NDArray[Any]]) -> float:
    """Factor by which overlapping training sets widen the variance of the main metric; 1.0 without folds."""
    if not folds:
        return 1.0
    each, name = _repeats(repeats, folds), main_metric(repeats[0].targets)
    return overlap([one[name] for one in each], folds) if name in each[0] else 1.0


def per_class(predictions: Predictions, widen: float = 1.0) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each label, in label order; none of numbers.

    `widen` as for cross-validated predictions.
    """
    if predictions.numeric:
        return []
    p, t = checked(predictions.probabilities, predictions.targets, predictions.multilabel)
    right, true, said = counts(p, t)
    rows = zip(predictions.labels, right.tolist(), true.tolist(), said.tolist(), strict=True)
    return [
        {
            "label": label,
            "precision": _share(k, predicted, widen),
            "recall": _share(k, support, widen),
            "f1": 2 * k / (support + predicted) if support + predicted else 0.0,
            "support": support,
        }
        for label, k, support, predicted in rows
    ]


def _share(k: int, n: int, widen: float) -> dict[str, float | int]:
    low, high = wilson(k / widen, n / widen)
    return {"value": k / n if n else 0.0, "low": float(low), "high": float(high), "n": n}


def _statistics(predictions: Predictions) -> dict[str, Statistic]:
    return statistics(predictions.probabilities, predictions.targets, predictions.multilabel)


def _repeats(repeats: Sequence[Predictions], folds: Sequence[NDArray[Any]]) -> list[dict[str, Statistic]]:
    if not repeats or len(repeats) != len(folds):
        raise BadData(f"{len(repeats)} repeats beside {len(folds)} fold assignments. Expected one for each repeat.")
    if any(not np.array_equal(one.targets, repeats[0].targets) for one in repeats):
        raise BadData(
            "Repeats of a cross-validation have different targets. Expected the same items in the same order."
        )
    return [_statistics(one) for one in repeats]
