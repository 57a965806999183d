"""k-NN: share of items whose label their nearest neighbours name, each item left out of its own vote.

    s_ij = cosine of z_i and z_j             z: features centred over all items
    label of i = argmax_c sum_{j in the k largest s_ij, y_j = c} exp(s_ij / t),    j not in i's own group

A weighted vote (t = 0.07) has no ties. Cost: O(N^2 D). Cover and Hart, Nearest Neighbor Pattern Classification, 1967;
as a score of representations: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
CVPR 2018 (whose weights these are).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadSetting
from topwork.ranking import NOTHING, Given
from topwork.ranking._items import checked
from topwork.ranking._source import classes_of


@dataclass(frozen=True)
class Knn:
    """Leave-one-out accuracy of the weighted vote of the nearest."""

    needs_source: ClassVar[bool] = False

    k: int = 5
    temperature: float = 0.07  # of the vote; higher = the k count more alike

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:
        """Reads `given.together`, where it is known, so that copies do not vouch for each other."""
        if self.k < 1 or not self.temperature > 0:
            raise BadSetting(f"k={self.k}, temperature={self.temperature}: expected k from 1, temperature above 0")
        x, y = checked(features, targets)
        z = x - x.mean(axis=0)
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
        group = np.arange(len(y)) if given.together is None else np.asarray(given.together)
        near = np.where(group[:, None] == group, -np.inf, z @ z.T)  # (N, N)
        k = min(self.k, len(y) - 1)
        best = np.argpartition(-near, k - 1, axis=1)[:, :k]  # (N, k)
        weight = np.exp((np.take_along_axis(near, best, axis=1) - 1) / self.temperature)
        votes = np.einsum("nk,nkc->nc", weight, classes_of(y)[best])  # (N, C)
        return float((votes.argmax(axis=1) == y).mean())
