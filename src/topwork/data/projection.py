"""A map of the items: features (N, D) on a plane, so that what is alike lies side by side.

    pca     the two axes of largest variance of features about their mean and of length 1; how much they show is said
    umap    neighbours stay neighbours; distances between far groups mean nothing. Where `umap` is installed.

McInnes, Healy & Melville, UMAP: Uniform Manifold Approximation and Projection, 2018.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.outliers import unit
from topwork.errors import BadSetting, MissingExtra


@dataclass(frozen=True, eq=False)
class Projection:
    """Places on the plane, between 0 and 1."""

    places: NDArray[np.float64]  # (N, 2)
    method: str
    shown: float | None = None  # share of the variance that the plane holds


def project(x: NDArray[Any], method: str = "auto", seed: int = 0) -> Projection:
    """By umap where it is installed and there are enough items, else by pca."""
    known = ("auto", "pca", "umap")
    if method not in known:
        raise BadSetting(f"No projection '{method}'. Expected one of: {', '.join(known)}")
    here = _here()
    if method == "umap" and not here:
        raise MissingExtra("A map by UMAP needs the package umap-learn. Install it with: pip install umap-learn")
    z = unit(x)
    if method == "umap" or (method == "auto" and here and len(z) >= 30):
        return Projection(_within(_umap(z, seed)), "umap")
    places, shown = pca(z)
    return Projection(_within(places), "pca", shown)


def pca(z: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """(N, 2) scores on the two first axes, and their share of the variance; signs are fixed, so maps are alike."""
    z = z - z.mean(0)
    N, D = z.shape
    whole = float((z.astype(np.float64) ** 2).sum())
    if N <= D:
        values, left = np.linalg.eigh((z @ z.T).astype(np.float64))
        scores = left[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    else:
        values, axes = np.linalg.eigh((z.T @ z).astype(np.float64))
        scores = z @ axes[:, ::-1][:, :2]
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    farthest = np.abs(scores).argmax(0)
    signs = np.sign(scores[farthest, np.arange(2)])
    return (scores * np.where(signs == 0, 1, signs)).astype(np.float64), float(
        np.maximum(values[::-1][:2], 0).sum() / max(whole, 1e-30)
    )


def _here() -> bool:
    """Whether the package umap-learn is installed; another one of PyPI is called umap, too."""
    spec = importlib.util.find_spec("umap")
    return bool(spec and spec.origin and os.path.exists(os.path.join(os.path.dirname(spec.origin), "umap_.py")))


def _umap(z: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        umap = importlib.import_module("umap")  # not among our extras: it is large, and PCA does
        made = umap.UMAP(n_neighbors=min(15, len(z) - 1), random_state=seed, n_jobs=1)
        return np.asarray(made.fit_transform(z), np.float64)


def _within(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both axes in one scale, the longer one from 0 to 1."""
    low, high = places.min(0), places.max(0)
    size = max(float((high - low).max()), 1e-12)
    return (places - (low + high) / 2) / size + 0.5
