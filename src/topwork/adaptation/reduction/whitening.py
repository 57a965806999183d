"""Whitening: principal components that all vary alike.

    z = (x - mean) V_k diag(1 / sqrt(variances + shrink * mean variance))

shrink keeps small components, which are mostly noise, from being blown up. Kessy, Lewin & Strimmer, Optimal Whitening
and Decorrelation, The American Statistician 2018 (PCA whitening); the shrinkage is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.reduction import Linear
from topwork.adaptation.reduction._spectrum import spectrum
from topwork.errors import BadSetting


@dataclass(frozen=True)
class Whitening:
    """The first k principal components, each divided by its standard deviation."""

    k: int = 64  # dimensions
    shrink: float = 0.01  # part of the mean variance that is added to each; 0: exactly white

    def fit(self, x: NDArray[np.float32], weight: NDArray[Any] | None = None) -> Linear:
        """Variances become 1 where they are large beside `shrink`."""
        if not self.shrink >= 0:
            raise BadSetting(f"shrink={self.shrink}: expected 0 or more")
        mean, axes, variances, share = spectrum(x, self.k, weight)
        scale = np.sqrt(variances + self.shrink * (variances.mean() if len(variances) else 0.0))
        return Linear(mean, axes / scale, f"{axes.shape[1]} white components of {share:.0%} of the variance")
