"""Candidates that were asked about the same items: what each knows, item by item, and which of them wins.

Right and wrong of the cross-validated quick probe is the evidence, item by item and paired; what other scores and the
catalogue say is where it is drawn to while items are few (`evaluation.best`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.best import Best, decide
from topwork.evaluation.score import widening
from topwork.nn.log_loss import fit_temperature
from topwork.nn.principal import remembered
from topwork.ranking.probe import Probe
from topwork.types import Dataset, Predictions

FOLDS, REPEATS = 5, 2
ALIKE = 0.03  # candidates whose evidence differs by less say nothing about its scale
AGREEING = ("logme", "hscore", "knn")  # scores that may draw the probe's estimates: comparable across widths
FIFTHS = 5  # numbers are ranked as so many classes of equal size


def classes(dataset: Dataset) -> NDArray[Any]:
    """(N,) what is told apart: the classes, or the fifths in which the numbers lie."""
    y = dataset.targets()
    return np.searchsorted(np.quantile(y, np.arange(1, FIFTHS) / FIFTHS), y, "right") if dataset.numeric else y


def repeated_folds(
    y: NDArray[Any], together: NDArray[Any], seed: int, keys: NDArray[np.uint64] | None = None
) -> list[NDArray[np.int32]]:
    """Folds of every repeat of the cross-validation: a second one halves what the first draw of folds adds."""
    return [make_folds(y, together, FOLDS, seed + repeat, keys) for repeat in range(REPEATS)]


def probed(
    x: NDArray[np.float32], y: NDArray[Any], folds: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
    """(N,) probability that the quick probe gives to the true label of each item, and its logits of every repeat.

    At the temperature that suits. Its mean is the accuracy of an answer drawn from the probabilities: it follows the
    accuracy closely and is less noisy than right or wrong, because an item near the border counts nearly alike on
    either side of it.
    """
    with remembered():
        held_out = [Probe().held_out(x, y, part) for part in folds]
    own = np.arange(len(y))
    given = [said_of(z, y).probabilities[own, y].astype(np.float64) for z in held_out]
    return np.asarray(np.mean(given, axis=0)), held_out


def accuracy_of(held_out: Sequence[NDArray[np.float32]], y: NDArray[Any]) -> float:
    """Share of right answers, mean over the repeats."""
    return float(np.mean([z.argmax(axis=1) == y for z in held_out]))


def judge(
    evidence: Sequence[NDArray[np.float64]],
    held_out: Sequence[Sequence[NDArray[np.float32]]],
    y: NDArray[Any],
    folds: Sequence[NDArray[Any]],
    costs: NDArray[np.float64],
    guess: NDArray[np.float64],
    tolerance: float,
    seed: int = 0,
) -> Best:
    """The decision between candidates that saw the same items: differences of evidence, on the level of accuracy."""
    each = np.stack(evidence)
    right = np.array([[z.argmax(axis=1) == y for z in repeats] for repeats in held_out]).mean(axis=1)  # (K, N)
    each = each * slope_of(each.mean(axis=1), right.mean(axis=1))
    top = held_out[int(each.mean(axis=1).argmax())]
    widen = widening([said_of(z, y) for z in top], folds)
    return decide(each, costs, guess, level=right.mean(axis=0), widen=widen, tolerance=tolerance, seed=seed)


def paired(
    first: Sequence[NDArray[np.float32]],
    second: Sequence[NDArray[np.float32]],
    y: NDArray[Any],
    folds: Sequence[NDArray[Any]],
) -> tuple[float, float, float]:
    """Accuracy of the first less that of the second on the same items, with its 95 % interval."""
    each = [np.mean([z.argmax(axis=1) == y for z in repeats], axis=0) for repeats in (first, second)]
    d = each[0] - each[1]
    widen = widening([said_of(z, y) for z in first], folds)
    spread = 1.96 * math.sqrt(widen * (float(d.var()) + 1 / (len(d) + 2)) / len(d))  # an item's worth of doubt
    return float(d.mean()), float(d.mean()) - spread, float(d.mean()) + spread


def slope_of(evidence: NDArray[np.float64], accuracy: NDArray[np.float64]) -> float:
    """Points of accuracy for a point of evidence, by least squares over candidates; near 1 where they hardly differ."""
    e, a = evidence - evidence.mean(), accuracy - accuracy.mean()
    return float(np.clip((e @ a + ALIKE**2) / (e @ e + ALIKE**2), 0.25, 1.5))


def guess_of(priors: Sequence[float | None], scores: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """(K,) mean of the standardised prior and the standardised scores that agree best with full probes."""
    rows = [[math.nan if p is None else p for p in priors]]
    rows += [[one.get(name, math.nan) for one in scores] for name in AGREEING]
    total, count = np.zeros(len(priors)), np.zeros(len(priors))
    for values in np.array(rows, float):
        known = np.isfinite(values)
        if known.sum() > 2 and np.ptp(values[known]) > 0:
            total[known] += (values[known] - values[known].mean()) / values[known].std()
            count[known] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def said_of(z: NDArray[np.float32], y: NDArray[Any]) -> Predictions:
    """Out-of-fold probabilities of the labels that the sample has."""
    z = z / fit_temperature(z, y)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return Predictions((p / p.sum(axis=1, keepdims=True)).astype(np.float32), y, tuple(map(str, range(z.shape[1]))))
