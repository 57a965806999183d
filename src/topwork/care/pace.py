"""How long features will take: told from the pace of the first ones, which stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from topwork.features.extract import extract
from topwork.store import Store
from topwork.types import Backbone, Dataset

PACE_ITEMS = (16, 48)  # the first ones pay for opening the backbone, the others tell the pace


def seconds_needed(dataset: Dataset, backbone: Backbone, store: Store | None, **extraction: Any) -> float:
    """About how long the features of all items will take; 0 where that is no time, or known already."""
    first, more = PACE_ITEMS
    if len(dataset) <= 4 * (first + more):
        return 0.0
    draw = np.random.Generator(np.random.Philox(key=1))  # what an earlier run knows is not always at the beginning
    some = np.sort(draw.choice(len(dataset), first + more, replace=False))
    opened = extract(dataset.take(some[:first]), backbone, store, **extraction)
    told = extract(dataset.take(some[first:]), backbone, store, **extraction)
    known = opened.cached > 0 and told.cached > 0  # part of it was seen before: the rest of it, too
    return 0.0 if known or not told.computed else told.seconds / told.computed * len(dataset)
