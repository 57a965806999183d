"""Log loss of logits, the temperature that minimises it, and the smoothed log priors it starts from.

    softmax (targets (N,) class numbers)      -z_y + log sum_c exp z_c
    sigmoid (targets (N, C) bool)             mean_c log(1 + exp(-z_c)) where y_c, log(1 + exp z_c) elsewhere
    numbers (targets (N,) float)              (z - y)^2 / variance of y: its mean is 1 - R^2; no temperature, no doubt

Natural logarithm. Choices (strength, temperature, method) are made with one item's worth of doubt, e = 1 / (N + 2):
that share of every target is spread over all labels, as Platt did (1999). Without a mistake among N held-out items
the plain log loss would ask for ever larger logits.
Temperature: Guo et al., On Calibration of Modern Neural Networks, 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def losses(z: NDArray[Any], targets: NDArray[Any], doubt: float = 0.0) -> Array:
    """Loss of every item (N,) for logits z (N, C); `doubt`: share of each target that is spread over all labels."""
    z = z.astype(np.float64)
    if targets.dtype.kind == "f":
        return (z[:, 0] - targets) ** 2 / max(targets.var(), np.finfo(float).tiny)
    if targets.ndim == 2:
        return (np.logaddexp(0, z) - z * np.where(targets, 1 - doubt / 2, doubt / 2)).mean(axis=1)
    top = z.max(axis=1)
    partition = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top
    return partition - (1 - doubt) * z[np.arange(len(z)), targets] - doubt * z.mean(axis=1)


def doubt_of(n: int) -> float:
    """The share that one item is of n: what a choice from n held-out items must not be surer than."""
    return 1 / (n + 2)


def log_priors(counts: Array, total: Array, sigmoid: bool) -> Array:
    """Smoothed logits of the frequencies: counts (..., C) of total (...); a label never seen counts half an item."""
    total = np.asarray(total, float)[..., None]
    if sigmoid:
        return np.log((counts + 0.5) / (total - counts + 0.5))
    return np.log((counts + 0.5) / (total + 0.5 * counts.shape[-1]))


def fit_temperature(z: NDArray[Any], targets: NDArray[Any], offset: NDArray[Any] | float = 0.0) -> float:
    """The T that minimises the log loss of z / T + offset: Newton steps on log(1 / T), the loss is convex in 1 / T.

    1 for numbers, and where all logits are equal.
    """
    z = z.astype(np.float64)
    spread = z.std()
    if spread == 0 or targets.dtype.kind == "f":
        return 1.0
    N, C = z.shape
    doubt = doubt_of(N)
    goal = targets.astype(float) if targets.ndim == 2 else np.eye(C)[targets]  # (N, C)
    goal = goal * (1 - doubt) + doubt * (0.5 if targets.ndim == 2 else 1 / C)
    wanted = (goal * z).sum()
    beta = 1 / spread
    for _ in range(60):
        first, second = _derivatives(beta * z + offset, z, targets.ndim == 2)
        slope, bend = beta * (first - wanted), beta**2 * second + beta * (first - wanted)
        move = -slope / bend if bend > 0 else -np.sign(slope)
        beta *= np.exp(np.clip(move, -1, 1))
        if abs(move) < 1e-6 or not 1e-9 < beta * spread < 1e9:
            break
    return float(1 / beta)


def _derivatives(logits: Array, z: Array, sigmoid: bool) -> tuple[float, float]:
    """First two derivatives of the summed log partition function in 1 / T."""
    if sigmoid:
        p = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
        return float((p * z).sum()), float((p * (1 - p) * z**2).sum())
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    mean = (p * z).sum(axis=1)
    return float(mean.sum()), float((p * (z - mean[:, None]) ** 2).sum())
