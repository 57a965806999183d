"""Which of several models is best, from the same cross-validated items of all of them.

    a_k = mean_i h_ik             h (K, N): whether model k is right on item i, asked of a head of another fold
    a ~ N(t, S)                   S = widen x covariance of the a: as items are shared, differences are surer
    t_k ~ N(m + b g_k, s^2)       g: a guess of each from elsewhere, standardised; nothing is assumed of the level m
    t_k - m | a  ~  N(b g + G (a - m - b g), G S')         m = mean a, S' = C S C, C = I - 1/K, G = s^2 (s^2 I + S')^-1

Differences between models are drawn towards what the guess says of them, the more so the fewer the items: Fay and
Herriot, Estimates of Income for Small Places, JASA 1979. The level of all stays as it was measured. b by least squares
with a ridge that counts as one more model, and never below zero; s^2 by moments, (|rest|^2 - tr S') over the degrees of
freedom, at least LEAST^2. `widen` is for training sets that overlap (`evaluation.intervals`).

The pick: highest expected share; a cheaper model replaces it where it is expected to lie at most `tolerance` below. So
being cheap costs at most `tolerance` in expectation, however noisy the estimates are. Draws from the posterior give the
chance of each to be the best, and the interval of the difference to the runner-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData

Array = NDArray[np.float64]
LEAST = 0.01  # models differ by at least about a point: else the first few right answers would decide nothing
DRAWS = 10_000
TOLERANCE = 0.0025  # a quarter of a point


@dataclass(frozen=True, eq=False)
class Best:
    """What the items say of K models."""

    measured: Array  # (K,) share right
    expected: Array  # (K,) posterior mean
    low: Array  # (K,) 95 % interval of the posterior
    high: Array
    chance: Array  # (K,) of being the best
    regret: Array  # (K,) expected distance to the best, whichever it is
    pick: int
    runner_up: int | None  # the best of the others
    difference: tuple[float, float, float]  # pick less runner-up: expected, low, high


def decide(
    hits: NDArray[Any],
    costs: NDArray[Any],
    guess: NDArray[Any] | None = None,
    *,
    level: NDArray[Any] | None = None,
    widen: float = 1.0,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Best:
    """hits (K, N) in 0..1; costs (K,) anything that should be small; guess (K,), NaN where there is none.

    `level` (N,): items whose mean is the level of all models, where that is not the mean of the hits.
    """
    h = np.asarray(hits, np.float64)
    if h.ndim != 2 or not h.size or len(costs) != len(h):
        raise BadData(f"hits {h.shape} and {len(costs)} costs do not fit. Expected (K, N) and (K,)")
    K = len(h)
    a, S = h.mean(axis=1), _covariance(h, widen)
    mu, P = posterior(a, S, np.full(K, np.nan) if guess is None else np.asarray(guess, np.float64))
    if level is not None:
        moved = np.asarray(level, np.float64)
        shift = float(moved.mean()) - float(a.mean())
        a, mu = a + shift, mu + shift
        P = P - S.mean() + float(_covariance(moved[None], widen)[0, 0])
    rng = np.random.Generator(np.random.Philox(key=seed))
    root = np.linalg.eigh(P)
    t = mu + rng.standard_normal((DRAWS, K)) @ (root.eigenvectors * np.sqrt(np.maximum(root.eigenvalues, 0))).T
    top = t.max(axis=1)
    pick = cheapest_of_the_best(mu, np.asarray(costs, np.float64), tolerance)
    others = [k for k in np.argsort(-mu, kind="stable") if k != pick]
    runner = int(others[0]) if others else None
    gap = t[:, pick] - t[:, runner] if runner is not None else np.zeros(1)
    low, high = np.quantile(t, [0.025, 0.975], axis=0)
    return Best(
        measured=a,
        expected=np.clip(mu, 0, 1),
        low=np.clip(low, 0, 1),
        high=np.clip(high, 0, 1),
        chance=np.bincount(t.argmax(axis=1), minlength=K) / DRAWS,
        regret=(top[:, None] - t).mean(axis=0),
        pick=pick,
        runner_up=runner,
        difference=(float(gap.mean()), float(np.quantile(gap, 0.025)), float(np.quantile(gap, 0.975))),
    )


def cheapest_of_the_best(expected: Array, costs: Array, tolerance: float) -> int:
    """The cheapest of those that are expected to lie within the tolerance of the best; of equals the better."""
    near = np.flatnonzero(expected >= expected.max() - tolerance - 1e-12)
    return int(min(near, key=lambda k: (costs[k], -expected[k], k)))


def posterior(a: Array, S: Array, guess: Array) -> tuple[Array, Array]:
    """Mean (K,) and covariance (K, K) of the true shares."""
    K, level = len(a), float(a.mean())
    centre = np.eye(K) - 1 / K
    apart, noise = a - level, centre @ S @ centre
    prior, g, free = _regress(apart, guess)
    rest = apart - prior
    variance = max(LEAST**2, (float(rest @ rest) - float(np.trace(noise))) / free) if free > 0 else LEAST**2
    gain = variance * np.linalg.inv(variance * np.eye(K) + noise)
    unsure = (np.eye(K) - gain) @ g * np.sqrt((variance + np.trace(noise) / K) / (g @ g + 1))  # of the slope b
    spread = gain @ noise + np.outer(unsure, unsure)
    return level + prior + gain @ rest, (spread + spread.T) / 2 + S.mean()


def _regress(apart: Array, guess: Array) -> tuple[Array, Array, int]:
    """What the guess says of each (K,) around 0, the guess standardised, the degrees of freedom of what it leaves."""
    known = np.isfinite(guess)
    nothing = np.zeros(len(apart)), np.zeros(len(apart)), len(apart) - 1
    if known.sum() < 3 or np.ptp(guess[known]) == 0:
        return nothing
    g = np.where(known, (guess - guess[known].mean()) / guess[known].std(), 0.0)
    slope = float(g @ apart) / (float(g @ g) + 1)
    if slope <= 0:  # it points the wrong way
        return nothing
    g -= g.mean()
    return slope * g, g, len(apart) - 2


def _covariance(h: Array, widen: float) -> Array:
    """Of the shares; one item's worth of doubt on the diagonal, so that no model is sure because it never failed."""
    K, N = h.shape
    d = h - h.mean(axis=1, keepdims=True)
    return widen * (d @ d.T / max(N - 1, 1) / N + np.eye(K) * 0.25 / (N + 2) ** 2)
