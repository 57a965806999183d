"""What every score asks of its input, and the spectrum that several of them are read from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData

Array = NDArray[np.float64]
NOISE = 1e-7  # of the largest squared singular value: what float32 features cannot tell from zero


def checked(features: NDArray[Any], targets: NDArray[Any]) -> tuple[Array, NDArray[np.intp]]:
    """Features (N, D) in float64 and targets (N,) renumbered 0 .. C - 1 without gaps."""
    x, y = np.asarray(features, np.float64), np.asarray(targets)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise BadData(f"Features {x.shape} and targets {y.shape} do not fit. Expected (N, D) and (N,)")
    good = np.isfinite(x).all(axis=1)
    if not good.all():
        raise BadData(f"Row {int(np.argmin(good))} of the features holds NaN or infinity. Expected finite numbers")
    known, numbers = np.unique(y, return_inverse=True)
    if len(known) < 2 or known[0] < 0:
        what = f"{len(known)} label(s), the lowest {known[0]}" if len(known) else "no items"
        raise BadData(f"The targets hold {what}. Expected at least two labels, numbered from 0")
    return x, numbers


def spectrum(x: Array) -> tuple[Array, Array]:
    """Squared singular values (R,), largest first, and left singular vectors (N, R) of x (N, D), through the smaller
    of its two products with itself: O(N D min(N, D)).
    """
    N, D = x.shape
    if N <= D:
        squares, left = np.linalg.eigh(x @ x.T)
        kept = _kept(squares)
        return squares[kept], left[:, kept]
    squares, right = np.linalg.eigh(x.T @ x)
    kept = _kept(squares)
    return squares[kept], (x @ right[:, kept]) / np.sqrt(squares[kept])


def _kept(squares: Array) -> NDArray[np.intp]:
    return np.flatnonzero(squares > NOISE * max(float(squares[-1]), 1e-300))[::-1]
