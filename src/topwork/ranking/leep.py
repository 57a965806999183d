"""LEEP: log expected empirical prediction, from what the backbone's own classifier says of the items.

    P(y, z) = 1/N sum_{i: y_i = y} p(z | x_i)         P(y | z) = P(y, z) / sum_y P(y, z)
    LEEP = 1/N sum_i log sum_z P(y_i | z) p(z | x_i)             z: classes of the source, p: its probabilities

At most 0; the mean log likelihood of a classifier that names a source class first and then a label.
Cost: O(N Z C). Nguyen et al., LEEP: A New Measure to Evaluate Transferability of Learned Representations, ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.ranking import NOTHING, Given
from topwork.ranking._items import checked
from topwork.ranking._source import classes_of, probabilities


@dataclass(frozen=True)
class Leep:
    """Mean log likelihood of the labels through the source's classes."""

    needs_source: ClassVar[bool] = True

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:
        """Reads `given.source` (N, Z)."""
        _, y = checked(features, targets)
        p = probabilities(given, len(y))
        joint = classes_of(y).T @ p / len(y)  # (C, Z)
        share = joint / np.maximum(joint.sum(axis=0), 1e-300)  # (C, Z): P(y | z)
        likelihood = (share[y] * p).sum(axis=1)  # (N,)
        return float(np.log(np.maximum(likelihood, 1e-300)).mean())
