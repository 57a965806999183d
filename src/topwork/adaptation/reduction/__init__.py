"""Fewer numbers between a frozen backbone and its head: linear maps that are fitted to features without labels.

fit(x) -> Linear        one file per map, found by being there: z = (x - mean) @ axes

`probe/reduced.py` solves a head behind such a map and folds the map into it, so that what is saved and shipped is a
plain linear head. `topwork fit --reduce "pca(64)"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ROOM = "adaptation.reduction"


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted map."""

    mean: NDArray[np.float64]  # (D,)
    axes: NDArray[np.float64]  # (D, K)
    said: str  # in words: what is kept

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, D) -> (N, K)."""
        return ((x - self.mean.astype(np.float32)) @ self.axes.astype(np.float32)).astype(np.float32)

    def folded(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A head (K, C), (C,) of reduced features as one of the features themselves: (D, C), (C,)."""
        whole = self.axes @ weight.astype(np.float64)
        return whole.astype(np.float32), (bias - self.mean @ whole).astype(np.float32)


class Reduction(Protocol):
    """A way to fit a map."""

    def fit(self, x: NDArray[np.float32], weight: NDArray[Any] | None = None) -> Linear:
        """From features x (N, D) alone, each counted weight (N,) times; no more axes than they have."""
        ...
