"""NCE: negative conditional entropy of the labels, given the source class that the backbone names for each item.

    z_i = argmax_z p(z | x_i)        NCE = -H(Y | Z) = sum_{y, z} P(y, z) log (P(y, z) / P(z))        P: counts / N

0 where every source class holds one label only; -log C at worst. With about as many source classes as items it is near
0 for every backbone. Cost: O(N Z). Tran, Nguyen and Hassner, Transferability and Hardness of Supervised Classification
Tasks, ICCV 2019.
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
class Nce:
    """How sure the labels are once the source class is known."""

    needs_source: ClassVar[bool] = True

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:
        """Reads `given.source` (N, Z)."""
        _, y = checked(features, targets)
        _, named = np.unique(probabilities(given, len(y)).argmax(axis=1), return_inverse=True)
        joint = classes_of(y).T @ classes_of(named) / len(y)  # (C, Z)
        seen = joint > 0
        share = (joint / joint.sum(axis=0))[seen]
        return float((joint[seen] * np.log(share)).sum())
