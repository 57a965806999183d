"""Are two splits alike? A classifier is asked which of the two an item is from: the two-sample test of a classifier.

    accuracy = mean_i (s_i = side_i)      s_i: what a classifier that has not seen i says, both sides equally many
    alike    => accuracy about 1/2        interval: Wilson; p: one-sided normal test of 1/2

Out-of-fold answers share their training items, so the variance is counted K / (K - 1) + 0.35 times, as for any
cross-validated share of one repeat (`evaluation.intervals`). The classifier sees features and no labels; what it can
tell is a difference that a model can see, too. Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
LEAST = 20  # items of each side
MOST = 2000  # items of each side
ONE_REPEAT = 0.35
Classifier = Callable[[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]], NDArray[Any]]
"""classifier(x (N, D), sides (N,), folds (N,)) -> logits (N, 2), out of fold."""


@dataclass(frozen=True, eq=False)
class Shift:
    """How well two sides can be told apart."""

    accuracy: float  # 0.5: not at all
    low: float
    high: float
    p_value: float  # one-sided
    n: int
    rows: NDArray[np.int64]  # the items that were asked
    margin: NDArray[np.float64]  # (n,) how much each looks like the second side: difference of logits


def shift(
    x: NDArray[np.float32],
    first: NDArray[Any],
    second: NDArray[Any],
    together: NDArray[Any],
    make_folds: Callable[[NDArray[Any], NDArray[Any], int, int], NDArray[np.int32]],
    classifier: Classifier,
    seed: int = 0,
) -> Shift | None:
    """Rows `first` against rows `second` of x; None where a side has too few.

    together (N,): what shares a number shares a fold, so that a copy does not give its side away.
    make_folds(sides, together, folds, seed): stratified folds.
    """
    n = min(len(first), len(second), MOST)
    if n < LEAST:
        return None
    draw = np.random.Generator(np.random.Philox(key=seed))
    rows = np.concatenate([np.sort(draw.choice(side, n, replace=False)) for side in (first, second)])
    sides = np.repeat(np.arange(2, dtype=np.int32), n)
    folds = make_folds(sides, together[rows], FOLDS, seed)
    z = np.asarray(classifier(x[rows], sides, folds), np.float64)
    margin = z[:, 1] - z[:, 0]
    right = float(((margin > 0) == sides).mean())
    K = len(np.unique(folds))
    effective = 2 * n / (K / max(K - 1, 1) + ONE_REPEAT)
    normal = NormalDist()
    p = 1 - normal.cdf((right - 0.5) / (0.5 / effective**0.5))
    low, high = _wilson(right, effective, normal.inv_cdf(0.975))
    return Shift(right, low, high, p, 2 * n, rows, margin)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    middle, half = n * share + z * z / 2, z * (n * share * (1 - share) + z * z / 4) ** 0.5
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)
