"""Probabilities of the backbone's own classes, checked, and labels as a table of zeros and ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.ranking import Given
from topwork.ranking._items import Array


def probabilities(given: Given, n: int) -> Array:
    """(N, Z) in float64; each row sums to one."""
    if given.source is None:
        raise BadData("This score needs what the backbone's own classifier says of the items: given.source (N, Z)")
    p = np.asarray(given.source, np.float64)
    if p.ndim != 2 or len(p) != n or not (p >= 0).all() or np.abs(p.sum(axis=1) - 1).max(initial=0) > 1e-3:
        raise BadData(f"given.source {p.shape} is not a table of probabilities: expected ({n}, Z), rows that sum to 1")
    return p


def classes_of(y: NDArray[Any]) -> Array:
    """(N, C): 1 where item i has label c."""
    return np.eye(int(y.max()) + 1)[y]
