"""Principal components: the k directions in which the features vary most.

    z = (x - mean) V_k        X^T X / N = V diag(variances) V^T

Pearson, On Lines and Planes of Closest Fit to Systems of Points in Space, 1901.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.reduction import Linear
from topwork.adaptation.reduction._spectrum import spectrum


@dataclass(frozen=True)
class Pca:
    """The first k principal components."""

    k: int = 64  # dimensions; more = nearer to the whole features

    def fit(self, x: NDArray[np.float32], weight: NDArray[Any] | None = None) -> Linear:
        """Keeps what share of the variance, said."""
        mean, axes, _, share = spectrum(x, self.k, weight)
        return Linear(mean, axes, f"{axes.shape[1]} components keep {share:.0%} of the variance")
