"""Classification, one label per item or several: point metrics with the influence of every item.

    one label:       accuracy, balanced_accuracy, macro_f1, log_loss, top5_accuracy (C > 5), roc_auc (C = 2)
    several labels:  accuracy (all labels right), map, macro_f1 (at 0.5), log_loss (mean over labels), roc_auc (macro)

Definitions agree with scikit-learn's. Averages over classes leave out classes that no item has (precision and recall
of nothing are not 0). A metric that has no value, such as ROC-AUC when only one class was seen, is not yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.tasks import Statistic

Array = NDArray[Any]

SMALLEST = float(np.finfo(np.float32).eps)  # probabilities are clipped to it: one sure mistake costs 15.9, not infinity
LARGEST_LOSS = -float(np.log(SMALLEST))
MAIN = "accuracy"


def checked(probabilities: Any, targets: Any, multilabel: bool = False) -> tuple[Array, Array]:
    """(N, C) float64 and the targets (N,) int or (N, C) bool; anything that cannot be scored is `BadData`."""
    p, t = np.asarray(probabilities, np.float64), np.asarray(targets)
    if p.ndim != 2 or not p.size:
        raise BadData(f"Probabilities have shape {p.shape}. Expected (items, labels) with at least one item.")
    if t.shape != (p.shape if multilabel else p.shape[:1]):
        raise BadData(f"Targets have shape {t.shape} beside probabilities {p.shape}. Expected one target per item.")
    if not np.isfinite(p).all():
        row = int(np.flatnonzero(~np.isfinite(p).all(1))[0])
        raise BadData(f"Probabilities of item {row} are not numbers. Expected finite values; look at its features.")
    if p.min() < -1e-4 or p.max() > 1 + 1e-4 or (not multilabel and np.abs(p.sum(1) - 1).max() > 1e-2):
        raise BadData("Probabilities are outside 0..1 or do not sum to 1 per item. Expected probabilities, not logits.")
    if multilabel:
        return p, t.astype(bool)
    if t.min() < 0 or t.max() >= p.shape[1]:
        row = int(np.flatnonzero((t < 0) | (t >= p.shape[1]))[0])
        raise BadData(f"Item {row} has label {t[row]}. Expected 0 to {p.shape[1] - 1}; leave unlabelled items out.")
    return p, t.astype(np.int64)


def statistics(probabilities: Any, targets: Any, multilabel: bool = False) -> dict[str, Statistic]:
    """Every point metric that these predictions allow."""
    p, t = checked(probabilities, targets, multilabel)
    return dict(_several(p, t) if multilabel else _single(p, t))


def metric_names(classes: int, multilabel: bool = False) -> tuple[str, ...]:
    """Metrics that there are with so many labels, where all of them occur."""
    if multilabel:
        return ("accuracy", "map", "macro_f1", "log_loss", "roc_auc")
    more = (("top5_accuracy",) if classes > 5 else ()) + (("roc_auc",) if classes == 2 else ())
    return ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", *more)


def item_losses(p: Array, t: Array) -> Array:
    """(N,) natural log loss of each item; several labels: mean over the labels."""
    if t.ndim == 1:
        return -np.log(np.clip(p[np.arange(len(t)), t], SMALLEST, 1))
    return -np.log(np.clip(np.where(t, p, 1 - p), SMALLEST, 1)).mean(1)


def hits(p: Array, t: Array) -> Array:
    """(N,) bool: the likeliest label is the true one; several labels: every label is on the right side of 0.5."""
    return p.argmax(1) == t if t.ndim == 1 else ((p >= 0.5) == t).all(1)


def confusion(p: Array, t: Array) -> NDArray[np.int64]:
    """(C, C) counts, row = truth, column = likeliest label."""
    C = p.shape[1]
    return np.bincount(t * C + p.argmax(1), minlength=C * C).reshape(C, C)


def counts(p: Array, t: Array) -> tuple[Array, Array, Array]:
    """(C,) times right, times true, times predicted, of every label."""
    C = p.shape[1]
    if t.ndim == 2:
        said = p >= 0.5
        return (said & t).sum(0), t.sum(0), said.sum(0)
    said = p.argmax(1)
    return np.bincount(t[said == t], minlength=C), np.bincount(t, minlength=C), np.bincount(said, minlength=C)


def _single(p: Array, t: Array) -> Iterator[tuple[str, Statistic]]:
    yield "accuracy", _share(hits(p, t))
    yield "balanced_accuracy", balanced_accuracy(p, t)
    yield "macro_f1", macro_f1(p, t)
    yield "log_loss", _mean(item_losses(p, t))
    N, C = p.shape
    if C > 5:
        own = p[np.arange(N), t][:, None]
        ahead = (p > own).sum(1) + ((p == own) & (np.arange(C) < t[:, None])).sum(1)  # ties go to the first label
        yield "top5_accuracy", _share(ahead < 5)
    if C == 2 and 0 < t.sum() < N:
        yield "roc_auc", roc_auc(p[:, 1], t == 1)


def _several(p: Array, t: Array) -> Iterator[tuple[str, Statistic]]:
    yield "accuracy", _share(hits(p, t))
    seen = t.any(0)
    if seen.any():
        yield "map", _macro(average_precision, p[:, seen], t[:, seen])
    if (t | (p >= 0.5)).any():
        yield "macro_f1", macro_f1(p, t)
    yield "log_loss", _mean(item_losses(p, t))
    mixed = seen & ~t.all(0)
    if mixed.any():
        yield "roc_auc", _macro(roc_auc, p[:, mixed], t[:, mixed])


def _share(right: Array) -> Statistic:
    return Statistic(float(right.mean()), (right - right.mean()) / len(right), "share", len(right))


def _mean(losses: Array) -> Statistic:
    influence = (losses - losses.mean()) / len(losses)
    return Statistic(float(losses.mean()), influence, "mean", len(losses), upper=LARGEST_LOSS)


def _even(sizes: Array) -> float:
    """Items worth of an average over classes of these sizes: C^2 / sum(1 / size)."""
    return float(len(sizes) ** 2 / (1 / sizes).sum())


def balanced_accuracy(p: Array, t: Array) -> Statistic:
    """Mean recall of the classes that occur."""
    right, true, _ = counts(p, t)
    seen = true > 0
    recall = right / np.maximum(true, 1)
    influence = (hits(p, t) - recall[t]) / true[t] / seen.sum()
    return Statistic(float(recall[seen].mean()), influence, "score", _even(true[seen]), strata=t)


def macro_f1(p: Array, t: Array) -> Statistic:
    """Mean over classes of F1 = 2 right / (true + predicted), classes neither true nor predicted left out.

    A ratio of counts that both vary: to second order it is F1 (1 - F1) / (true + predicted) too low in each class.
    """
    right, true, said = counts(p, t)
    seen = true + said > 0
    total = np.maximum(true + said, 1)
    f1 = 2 * right / total
    if t.ndim == 1:
        y = p.argmax(1)
        influence = 2 * (y == t) / total[t] - f1[t] / total[t] - f1[y] / total[y]
    else:
        y = p >= 0.5
        influence = ((2.0 * (y & t) - f1 * (0.0 + y + t)) / total)[:, seen].sum(1)
    effective = _even(np.maximum(true[seen], 1))
    strata = t if t.ndim == 1 else None
    bias = -float((f1 * (1 - f1) / total)[seen].mean())
    return Statistic(float(f1[seen].mean()), influence / seen.sum(), "score", effective, strata=strata, bias=bias)


def roc_auc(scores: Array, positive: Array) -> Statistic:
    """Chance that a positive item scores above a negative one, ties half; influences of DeLong et al., 1988."""
    up, down = np.sort(scores[positive]), np.sort(scores[~positive])
    influence = np.empty(len(scores))
    influence[positive] = _below(down, scores[positive]) / len(down)
    influence[~positive] = 1 - _below(up, scores[~positive]) / len(up)
    auc = float(influence[positive].mean())
    influence = (influence - auc) / np.where(positive, len(up), len(down))
    return Statistic(auc, influence, "score", 2.0 * min(len(up), len(down)), strata=positive.astype(np.int64))


def _below(ordered: Array, scores: Array) -> Array:
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def average_precision(scores: Array, positive: Array) -> Statistic:
    """Mean over the positives of the precision among all items that score at least as high.

    With sums over s_i <= s_j, R_i items and precision P_i at or above s_i, n positives, the derivative by w_j is
        ( y_j (P_j - AP) + sum_i y_i (y_j - P_i) / R_i ) / n
    """
    order = np.argsort(-scores, kind="stable")
    s, y = scores[order], positive[order].astype(np.float64)
    first = np.searchsorted(-s, -s, "left")
    last = np.searchsorted(-s, -s, "right") - 1  # ties share one threshold
    rank = last + 1.0
    precision = np.cumsum(y)[last] / rank
    n = y.sum()
    value = float((y * precision).sum() / n)
    below_1 = np.cumsum((y / rank)[::-1])[::-1][first]
    below_p = np.cumsum((y * precision / rank)[::-1])[::-1][first]
    influence = np.empty(len(s))
    influence[order] = (y * (precision - value) + y * below_1 - below_p) / n
    return Statistic(value, influence, "score", float(n), strata=positive.astype(np.int64))


def _macro(metric: Callable[[Array, Array], Statistic], p: Array, t: Array) -> Statistic:
    each: Sequence[Statistic] = [metric(p[:, c], t[:, c]) for c in range(p.shape[1])]
    influence = np.mean([one.influence for one in each], axis=0)
    effective = min(_even(np.array([one.effective for one in each])), float(len(p)))
    return Statistic(float(np.mean([one.value for one in each])), influence, "score", effective)
