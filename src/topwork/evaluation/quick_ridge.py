"""Ridge heads on growing samples, for the price of one: sums are carried from size to size.

    W = (Z^T Z + lambda)^-1 Z^T A      Z (n, R) centred scores on principal axes, A (n, C) centred 0/1 targets, numbers

lambda minimises generalised cross-validation, rest(lambda) / (n - 1 - 1.2 df(lambda))^2 (Golub, Heath & Wahba, 1979),
from one eigendecomposition per size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.tasks import is_numeric

Array = NDArray[Any]

STRENGTHS = np.logspace(-5, -0.5, 10)  # lambda relative to the largest eigenvalue; more would say the majority class
CAUTION = 1.2  # degrees of freedom count so many times: plain GCV overfits when n is near R (Kim & Gu, 2004)


def compress(x: Array, axes: int, seed: int = 0) -> Array:
    """Scores on about the first principal axes: one subspace iteration from a random start (Halko et al., 2011)."""
    if hasattr(x, "tocsr"):
        return _compress_sparse(x, axes, seed)
    z = np.asarray(x, np.float32) - x.mean(0, dtype=np.float64).astype(np.float32)
    z /= np.maximum(np.sqrt((z**2).mean(0)), 1e-6 * float(np.abs(z).max()) + 1e-30)  # as the probes do
    if z.shape[1] > axes:
        start = np.random.Generator(np.random.Philox(key=seed)).standard_normal((z.shape[1], axes), np.float32)
        z = z @ np.linalg.qr(z.T @ (z @ start))[0]  # (N, axes)
    return z / max(float(np.sqrt((z**2).mean())), 1e-30)


def _compress_sparse(x: Any, axes: int, seed: int) -> Array:
    """The same of a csr matrix, which is centred on the way and whose columns keep their weights."""
    mean = np.asarray(x.mean(axis=0), np.float32).ravel()  # (D,)

    def scores(directions: Array) -> Array:
        return x @ directions - mean @ directions  # (N, axes)

    q = np.random.Generator(np.random.Philox(key=seed)).standard_normal((x.shape[1], min(axes, *x.shape)), np.float32)
    for _ in range(2):
        z = scores(q)
        q = np.linalg.qr(x.T @ z - np.outer(mean, z.sum(0)))[0].astype(np.float32)  # (D, axes)
    z = scores(q)
    return z / max(float(np.sqrt((z**2).mean())), 1e-30)


def ridges(z: Array, y: Array, rows: Array, sizes: Array, asked: Array) -> Iterator[Array]:
    """Predictions of ridge heads on the first sizes[0], sizes[1], ... rows; sums are carried from size to size."""
    numeric = is_numeric(y)
    mean, unit = (y.mean(), y.std() or 1.0) if numeric else (0.0, 1.0)
    classes = np.arange(1 if numeric else y.shape[1]) if numeric or y.ndim == 2 else np.unique(y)
    aim = (y[:, None] - mean) / unit if numeric else (y if y.ndim == 2 else y[:, None] == classes).astype(np.float32)
    D, done = z.shape[1], 0
    zz, za, sz, sa = np.zeros((D, D)), np.zeros((D, len(classes))), np.zeros(D), np.zeros(len(classes))
    aa = np.zeros(len(classes))
    for n in sizes:
        new = rows[done:n]
        part, goal, done = z[new], aim[new], n
        zz, za, sz, sa = zz + part.T @ part, za + part.T @ goal, sz + part.sum(0), sa + goal.sum(0)
        aa = aa + (goal**2).sum(0)
        weight = _ridge(zz - np.outer(sz, sz) / n, za - np.outer(sz, sa) / n, aa - sa**2 / n, int(n))
        out = asked @ weight + (sa - sz @ weight) / n
        yield out[:, 0] * unit + mean if numeric else out >= 0.5 if y.ndim == 2 else classes[out.argmax(1)]


def _ridge(zz: Array, za: Array, squares: Array, n: int) -> Array:
    """Weights (D, C) at the strength with the least generalised cross-validation error."""
    values, vectors = np.linalg.eigh(zz)
    values = np.maximum(values, 0)
    turned = vectors.T @ za  # (D, C)
    best = (np.inf, float(STRENGTHS[-1] * max(values[-1], 1e-12)))
    for strength in STRENGTHS * max(values[-1], 1e-12):
        keep = 1 / (values + strength)
        rest = squares.sum() - ((2 * keep - values * keep**2) @ turned**2).sum()
        free = n - 1 - CAUTION * (values * keep).sum()
        if free <= 0.05 * n:
            continue
        best = min(best, (max(rest, 0) / free**2, strength))
    return vectors @ (turned / (values + best[1])[:, None])
