"""Is the second model better on the same items? A paired test and an interval of the difference.

    one label       exact McNemar test (1947): of the n01 + n10 items that one model alone got right, n01 is
                    binomial(1/2);
                    interval of the difference of paired shares by the score method of Tango (Stat. in Medicine, 1998)
    several labels  sign-flip permutation of the items' differences in log loss, and Hall's interval of their mean
    numbers         the difference of R^2 by the influences of the items (`compare_metric`)

`widen` > 1 is for out-of-fold predictions (`score.widening`): their counts weigh 1 / widen, their differences' variance
is multiplied by it. The binomial tail is then the incomplete beta function, which equals it at whole counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, UnknownName
from topwork.evaluation.intervals import CONFIDENCE, hall
from topwork.tasks import checked, item_losses, main_metric, statistics
from topwork.tasks.classification import hits
from topwork.types import Predictions

FLIPS = 1999


@dataclass(frozen=True)
class Comparison:
    """How much better the second model is; positive is better."""

    difference: float  # of accuracy (0..1), or of log loss in nats for several labels
    low: float
    high: float
    p_value: float  # two-sided
    n01: int  # items on which only the second model is right (several labels: has the smaller loss)
    n10: int  # items on which only the first model is right
    n: int
    measure: str = "accuracy"

    def over(self, name: str = "") -> str:
        """In words: +21.3 points [18.0, 24.6] over pixels, p < 0.001."""
        than = f" over {name}" if name else ""
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        if self.measure in ("accuracy", "r2"):
            d, low, high = (100 * x + 0.0 for x in (self.difference, self.low, self.high))
            of = " of R²" if self.measure == "r2" else ""
            return f"{d:+.1f} points{of} [{low:.1f}, {high:.1f}]{than}, {p}"
        if self.measure == "spearman":
            return f"{self.difference:+.3f} of rank correlation [{self.low:.3f}, {self.high:.3f}]{than}, {p}"
        if self.measure in ("mae", "rmse", "absolute error"):
            less, low, high = (-x + 0.0 for x in (self.difference, self.high, self.low))
            name = {"mae": "absolute error", "rmse": "RMSE"}.get(self.measure, self.measure)
            return f"{less:+.4g} of {name} [{low:.4g}, {high:.4g}]{than}, {p}"
        if self.measure in ("log loss", "log_loss"):
            return f"{self.difference:+.3f} nats of log loss [{self.low:.3f}, {self.high:.3f}]{than}, {p}"
        d, low, high = (100 * x + 0.0 for x in (self.difference, self.low, self.high))
        return f"{d:+.1f} points of {self.measure.replace('_', ' ')} [{low:.1f}, {high:.1f}]{than}, {p}"

    __str__ = over


def compare(first: Predictions, second: Predictions, widen: float = 1.0, seed: int = 0) -> Comparison:
    """Second against first on the same items in the same order."""
    (p, t), (q, u) = (checked(one.probabilities, one.targets, one.multilabel) for one in (first, second))
    if not np.array_equal(t, u):
        raise BadData("The two models were not asked about the same items. Expected equal targets in the same order.")
    if first.numeric:
        return compare_metric(first, second, main_metric(t), widen)
    if first.multilabel:
        return compare_losses(item_losses(p, t), item_losses(q, u), widen, seed)
    return compare_hits(hits(p, t), hits(q, u), widen)


def compare_metric(first: Predictions, second: Predictions, name: str, widen: float = 1.0) -> Comparison:
    """Any metric of a task on the same items: the influences of the items give the difference's variance.

    difference = m(second) - m(first), or the opposite for a loss; v = widen sum_i (influence_i' - influence_i)^2;
    Hall's interval, and a two-sided Student test with N - 1 degrees of freedom.
    """
    from scipy.stats import t as student

    known = [statistics(one.probabilities, one.targets, one.multilabel) for one in (first, second)]
    if name not in known[0]:
        raise UnknownName.among(name, "metrics", known[0])
    before, after = (one[name] for one in known)
    sign = -1.0 if before.kind == "mean" else 1.0
    d = sign * (after.influence - before.influence)
    N, difference, variance = len(d), sign * (after.value - before.value), float((d**2).sum()) * widen
    low, high = hall(difference, variance, d) if N > 1 else (-np.inf, np.inf)
    p = float(2 * student.sf(abs(difference) / variance**0.5, N - 1)) if variance > 0 and N > 1 else 1.0
    return Comparison(difference, low, high, p, int((d > 0).sum()), int((d < 0).sum()), N, name)


def compare_hits(first: NDArray[np.bool_], second: NDArray[np.bool_], widen: float = 1.0) -> Comparison:
    """(N,) right or wrong of each model."""
    n, n01, n10 = len(first), int((second & ~first).sum()), int((first & ~second).sum())
    low, high = tango(n01 / widen, n10 / widen, n / widen)
    return Comparison((n01 - n10) / n, low, high, mcnemar(n01 / widen, n10 / widen), n01, n10, n)


def compare_losses(
    first: NDArray[Any], second: NDArray[Any], widen: float = 1.0, seed: int = 0, measure: str = "log loss"
) -> Comparison:
    """(N,) losses of each model; positive difference: the second loses less."""
    d = np.asarray(first, np.float64) - second
    N, mean = len(d), float(d.mean())
    variance = float(((d - mean) ** 2).sum()) / N**2 * widen
    low, high = hall(mean, variance, d - mean) if N > 1 else (-np.inf, np.inf)
    p = sign_flip(d, widen, seed)
    return Comparison(mean, low, high, p, int((d > 0).sum()), int((d < 0).sum()), N, measure)


def mcnemar(n01: float, n10: float, mid_p: bool = False) -> float:
    """Exact two-sided p-value that n01 and n10 come from fair coins; `mid_p` counts the observed table half."""
    from scipy.special import betainc

    small, n = min(n01, n10), n01 + n10
    if n == 0:
        return 1.0
    tail = float(betainc(n - small, small + 1, 0.5))  # P(X <= small), X ~ binomial(n, 1/2)
    if mid_p:
        below = float(betainc(n - small + 1, small, 0.5)) if small > 0 else 0.0
        return min(1.0, tail + below)
    return min(1.0, 2 * tail)


def tango(n01: float, n10: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of (n01 - n10) / n for paired shares, by bisection.

    T(delta) = (n01 - n10 - n delta) / sqrt(n (2 q + delta (1 - delta))), q: likeliest P(only first) given delta.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    d = (n01 - n10) / n

    def excess(delta: float) -> float:
        b = (2 * n - n01 + n10) * delta - n01 - n10
        q = ((max(b * b + 8 * n * n10 * delta * (1 - delta), 0.0)) ** 0.5 - b) / (4 * n)
        return (n01 - n10 - n * delta) ** 2 - z * z * n * max(2 * q + delta * (1 - delta), 0.0)

    return _root(excess, d, -1.0), _root(excess, d, 1.0)


def _root(excess: Any, inside: float, outside: float) -> float:
    """Where `excess` turns positive between a point inside the interval and the end of the range."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
    return inside


def sign_flip(differences: NDArray[Any], widen: float = 1.0, seed: int = 0) -> float:
    """Two-sided p-value that the differences are symmetric about 0: shares of random signs that reach as far."""
    d = np.asarray(differences, np.float64)
    if not d.any():
        return 1.0
    rng = np.random.Generator(np.random.Philox(key=seed))
    reached, bound = 0, abs(d.sum()) / widen**0.5 * (1 - 1e-12)
    for start in range(0, FLIPS, 256):
        signs = rng.integers(0, 2, (min(256, FLIPS - start), len(d)), np.int8)
        reached += int((np.abs(2 * (signs @ d) - d.sum()) >= bound).sum())
    return (reached + 1) / (FLIPS + 1)
