"""Random projection: k directions that know nothing of the features, and keep their distances all the same.

    z = (x - mean) G / sqrt(k)        G (D, k) standard normal
    | |z_i - z_j|^2 / |x_i - x_j|^2 - 1 | <= e for all pairs of N with k = O(log N / e^2)

Johnson & Lindenstrauss, Extensions of Lipschitz Mappings into a Hilbert Space, 1984.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.reduction import Linear
from topwork.adaptation.reduction._spectrum import centre


@dataclass(frozen=True)
class RandomProjection:
    """k Gaussian directions."""

    k: int = 256  # dimensions; distances are off by about 1 / sqrt(k / 2)
    seed: int = 0

    def fit(self, x: NDArray[np.float32], weight: NDArray[Any] | None = None) -> Linear:
        """Only the mean is taken from the features."""
        mean = centre(x, self.k, weight)
        draw = np.random.Generator(np.random.Philox(key=self.seed))
        k = min(self.k, x.shape[1])
        axes = draw.standard_normal((x.shape[1], k)) / k**0.5
        return Linear(mean, axes, f"{k} random directions")
