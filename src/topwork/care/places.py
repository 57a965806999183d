"""A map of the items, with small pictures of those that were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from topwork.care.sight import Sight
from topwork.data import projection
from topwork.types import Finding

MAP_ITEMS = 1500


def places(sight: Sight, findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Places of up to MAP_ITEMS items, those with findings first; rows are those of the inspected dataset."""
    if len(sight.rows) < 3:
        return None
    named = {int(row) for one in findings if one.kind in ("label_errors", "outliers") for row in one.rows[:150]}
    chosen = np.flatnonzero(np.isin(sight.rows, sorted(named)))
    rest = np.setdiff1d(np.arange(len(sight.rows)), chosen)
    draw = np.random.Generator(np.random.Philox(key=sight.seed))
    room = max(MAP_ITEMS - len(chosen), 0)
    some = rest if len(rest) <= room else draw.choice(rest, room, replace=False)
    at = np.sort(np.concatenate([chosen, some]))
    made = projection.project(sight.x[at], seed=sight.seed)
    return {
        "method": made.method,
        "shown": made.shown,
        "rows": sight.rows[at].tolist(),
        "places": np.round(made.places, 4).tolist(),
    }
