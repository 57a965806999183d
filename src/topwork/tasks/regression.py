"""Regression, one number per item: point metrics with the influence of every item.

    r2      1 - sum_i (z_i - y_i)^2 / sum_i (y_i - mean y)^2       1: perfect, 0: as good as the mean, below 0: worse
    mae     mean_i |z_i - y_i|                                     in the unit of the target
    rmse    sqrt(mean_i (z_i - y_i)^2)                             in the unit of the target
    spearman   correlation of the ranks of z and y (1904): is the order right? 0 where all answers are equal

Definitions agree with scikit-learn's and scipy's. r2 and spearman are not yielded where all targets are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.tasks import Statistic

Array = NDArray[Any]
MAIN = "r2"
NAMES = ("r2", "mae", "rmse", "spearman")


def checked(answers: Any, targets: Any, multilabel: bool = False) -> tuple[Array, Array]:  # noqa: ARG001
    """(N, 1) float64 and the targets (N,); anything that cannot be scored is `BadData`."""
    z, y = np.asarray(answers, np.float64), np.asarray(targets, np.float64)
    if z.ndim != 2 or z.shape[1] != 1 or not z.size:
        raise BadData(f"Answers have shape {z.shape}. Expected (items, 1) with at least one item.")
    if y.shape != z.shape[:1]:
        raise BadData(f"Targets have shape {y.shape} beside answers {z.shape}. Expected one target per item.")
    for name, values in (("The answer", z[:, 0]), ("The target", y)):
        if not np.isfinite(values).all():
            raise BadData(f"{name} of item {int(np.flatnonzero(~np.isfinite(values))[0])} is not a finite number.")
    return z, y


def metric_names(labels: int = 1, multilabel: bool = False) -> tuple[str, ...]:  # noqa: ARG001
    """Metrics that there are."""
    return NAMES


def statistics(answers: Any, targets: Any, multilabel: bool = False) -> dict[str, Statistic]:
    """Every point metric that these answers allow."""
    return dict(_all(*checked(answers, targets, multilabel)))


def item_losses(answers: Array, targets: Array) -> Array:
    """(N,) absolute error of each item."""
    return np.abs(answers[:, 0] - targets)


def written(value: float, unit: float) -> str:
    """A number with as many places as tell hundredths of `unit`, a typical error: 204512 of 3e4, 8.01 of 1.2."""
    if not (np.isfinite(unit) and unit > 0):
        return f"{value:.6g}"
    places = int(2 - np.floor(np.log10(unit)))
    if places > 9 or abs(value) >= 1e12:
        return f"{value:.6g}"
    return f"{value + 0.0:.{max(places, 0)}f}"


def as_given(value: float) -> str:
    """A target as people have written it, or nearly: 4, 0.123457."""
    whole = float(value).is_integer() or abs(value) >= 1e5
    return f"{value:.0f}" if whole and abs(value) < 1e12 else f"{value:.6g}"


def _all(z: Array, y: Array) -> Iterator[tuple[str, Statistic]]:
    error = z[:, 0] - y
    if np.ptp(y) > 0:
        yield "r2", _r2(error, y)
    yield "mae", _mean(np.abs(error))
    yield "rmse", _root(error)
    if np.ptp(y) > 0:
        yield "spearman", _spearman(z[:, 0], y)


def _mean(losses: Array) -> Statistic:
    influence = (losses - losses.mean()) / len(losses)
    return Statistic(float(losses.mean()), influence, "mean", len(losses), upper=np.inf)


def _root(error: Array) -> Statistic:
    """d sqrt(m) = dm / (2 sqrt(m))."""
    square = error**2
    value = float(np.sqrt(square.mean()))
    influence = (square - square.mean()) / len(error) / max(2 * value, 1e-300)
    return Statistic(value, influence, "mean", len(error), upper=np.inf)


def _r2(error: Array, y: Array) -> Statistic:
    """1 - m / v: dR^2 = -dm / v + m dv / v^2; the mean of y moves no v.

    Without item j both means lose it, the second one its pull on the mean of y, too:
        N - 1 of m_j = N m - e_j^2,      N - 1 of v_j = N v - N / (N - 1) (y_j - mean y)^2
    """
    N, square, spread = len(y), error**2, (y - y.mean()) ** 2
    m, v = square.mean(), spread.mean()
    influence = (-(square - m) / v + m * (spread - v) / v**2) / N
    with np.errstate(all="ignore"):
        without = np.log((N * m - square) / (N * v - N / (N - 1) * spread)) if N > 1 else None
    return Statistic(float(1 - m / v), influence, "fit", N, lower=-np.inf, without=without)


def _spearman(z: Array, y: Array) -> Statistic:
    """Pearson's r of the ranks a, b, standardised, and how much the weight of an item moves it.

        influence_j = 1/N ( a_j b_j - r (a_j^2 + b_j^2) / 2
                            + sum_i (b_i - r a_i) H(z_i - z_j) / u + sum_i (a_i - r b_i) H(y_i - y_j) / v )

    u, v: standard deviations of the ranks of z and y. The sums are what the weight does to the ranks of all others;
    H: 0, 1/2, 1 below, at and above 0.
    """
    if np.ptp(z) == 0:
        return Statistic(0.0, np.zeros(len(y)), "correlation", len(y), lower=-1.0)
    (a, unit_a), (b, unit_b) = _ranks(z), _ranks(y)
    value = float((a * b).mean())
    direct = a * b - value * (a**2 + b**2) / 2
    moved = _above(z, b - value * a) / unit_a + _above(y, a - value * b) / unit_b
    influence = (direct + moved) / len(y)
    return Statistic(value, influence - influence.mean(), "correlation", len(y), lower=-1.0)


def _ranks(x: Array) -> tuple[Array, float]:
    """Ranks, ties in the middle, standardised, and their standard deviation."""
    from scipy.stats import rankdata

    ranks = rankdata(x)
    return (ranks - ranks.mean()) / ranks.std(), float(ranks.std())


def _above(x: Array, summed: Array) -> Array:
    """(N,) for every j the sum over the i with x_i above x_j, ties half."""
    order = np.argsort(x, kind="stable")
    upto = np.append(0.0, np.cumsum(summed[order]))
    first, end = (np.searchsorted(x[order], x, side) for side in ("left", "right"))
    return upto[-1] - (upto[first] + upto[end]) / 2
