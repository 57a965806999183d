"""TransRate: coding rate of all features less that of each class's: spread as a whole, compact within classes.

    R(Z) = 1/2 log det(I + Z^T Z / (n e))        Z (n, D): centred over all items, scaled to |Z|^2 = 1, e = 1e-4
    TransRate = R(Z) - sum_c n_c/N R(Z_c)

An estimate of the mutual information between features and labels. The paper's code weighs classes alike; here they are
weighed by their items, as its formula does, which is the same where classes are of equal size. Scaling makes backbones
of any unit comparable, as the paper proposes. Cost: two determinants of min(N, D), O(N D min(N, D)).
Huang et al., Frustratingly Easy Transferability Estimation, ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.ranking import NOTHING, Given
from topwork.ranking._items import Array, checked


@dataclass(frozen=True)
class Transrate:
    """Rate of the whole less the mean rate of the classes, in nats."""

    needs_source: ClassVar[bool] = False

    distortion: float = 1e-4  # e: finer than that, features count as equal

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:  # noqa: ARG002
        """Reads features and targets alone."""
        x, y = checked(features, targets)
        z = x - x.mean(axis=0)
        z /= max(float(np.sqrt((z**2).sum())), 1e-300)
        within = [(y == label) for label in range(y.max() + 1)]
        return self._rate(z) - sum(float(own.mean()) * self._rate(z[own]) for own in within)

    def _rate(self, z: Array) -> float:
        """Half the log determinant, over the smaller of the two products: they have the same."""
        n, D = z.shape
        product = z @ z.T if n <= D else z.T @ z
        return float(np.linalg.slogdet(np.eye(len(product)) + product / (n * self.distortion))[1]) / 2
