"""Axes of largest variance of features, by whichever of the two products is the smaller one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadSetting

NOISE = 1e-7  # of the largest variance


def spectrum(
    x: NDArray[np.float32], k: int, weight: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Mean (D,), axes (D, K) of length 1, their variances (K,), the share of all variance; 1 <= K <= k, N - 1, D."""
    mean = centre(x, k, weight)
    N, D = x.shape
    w = np.full(N, 1 / N) if weight is None else np.asarray(weight, np.float64) / np.sum(weight)
    z = (x.astype(np.float64) - mean) * np.sqrt(w)[:, None]
    if N < D:
        values, left = np.linalg.eigh(z @ z.T)
        values, kept = values[::-1], _above_noise(values[::-1], k)
        axes = z.T @ left[:, ::-1][:, kept] / np.sqrt(np.maximum(values[kept], 1e-300))
    else:
        values, axes = np.linalg.eigh(z.T @ z)
        values, kept = values[::-1], _above_noise(values[::-1], k)
        axes = axes[:, ::-1][:, kept]
    if not len(kept):  # nothing varies: one axis, on which all are alike
        return mean, np.eye(D, 1), np.zeros(1), 1.0
    return mean, axes, values[kept], float(values[kept].sum()) / float(np.maximum(values, 0).sum())


def centre(x: NDArray[np.float32], k: int, weight: NDArray[Any] | None) -> NDArray[np.float64]:
    """Mean (D,) of the features, after they were looked at."""
    if k < 1:
        raise BadSetting(f"k={k}: expected 1 or more dimensions")
    if hasattr(x, "tocsr"):
        raise BadSetting("Counts of n-grams cannot be reduced: their zeros would not stay zeros")
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise BadData(f"Row {bad} of the features holds NaN or infinity. Expected finite numbers; leave that item out")
    return np.average(x.astype(np.float64), axis=0, weights=weight)


def _above_noise(values: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    return np.flatnonzero(values > max(NOISE * values[0], 1e-30))[:k]
