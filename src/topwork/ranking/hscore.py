"""H-score: how much of the features' variance lies between the classes, every direction weighted alike.

    H   = tr( S^-1 B )                     S: covariance of the features, B: covariance of their class means E[f | y]
    H_a = (1 - a) tr( S_a^-1 B )           S_a = (1 - a) S + a tr(S)/D I,  a by Ledoit and Wolf

Between 0 and C - 1. With fewer items than features S cannot be inverted and the plain H is C - 1 for any backbone; so
shrinkage is on unless it is told otherwise (without it, the pseudo-inverse is taken). In the basis of the principal
axes both are sums:  H_a = (1 - a) sum_r v_r b_r / ((1 - a) v_r + a m), v_r: variances, m: their mean over D, b_r: share
of axis r that lies between classes. Covariances divide by N.

Cost: one decomposition, O(N D min(N, D)). Bao et al., An Information-Theoretic Approach to Transferability in Task
Transfer Learning, ICIP 2019; shrinkage: Ibrahim, Ponomareva and Mazumder, Newer is Not Always Better, 2021; Ledoit and
Wolf, A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices, 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.ranking import NOTHING, Given
from topwork.ranking._items import Array, checked, spectrum
from topwork.ranking._source import classes_of


@dataclass(frozen=True)
class Hscore:
    """Between-class variance over all variance."""

    needs_source: ClassVar[bool] = False

    shrinkage: bool = True  # False: the plain H-score of 2019

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:  # noqa: ARG002
        """Sum over the principal axes."""
        x, y = checked(features, targets)
        N, D = x.shape
        x = x - x.mean(axis=0)
        squares, left = spectrum(x)
        variances = squares / N
        member = classes_of(y)
        between = ((member.T @ left) ** 2 / member.sum(axis=0)[:, None]).sum(axis=0)  # (R,)
        a = ledoit_wolf(x, variances) if self.shrinkage else 0.0
        if a >= 1:
            return 0.0  # one variance in all directions is as good a guess: nothing is known of S
        kept = (1 - a) * variances
        return float((1 - a) * (variances * between / (kept + a * variances.sum() / D)).sum())


def ledoit_wolf(x: Array, variances: Array) -> float:
    """The shrinkage a that is expected to come nearest to the true covariance; x (N, D) is centred.

    a = min(e, d) / d        d = |S - m I|^2 / D        e = 1/N^2 sum_i |x_i x_i^T - S|^2 / D
    """
    N, D = x.shape
    mean, square = variances.sum() / D, float((variances**2).sum())  # m, |S|^2
    d = square / D - mean**2
    e = float((((x**2).sum(axis=1) ** 2).sum() / N - square) / (N * D))
    return min(e, d) / d if d > 0 else 1.0
