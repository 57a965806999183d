"""Items unlike all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topwork.care.judged import Judged
from topwork.care.sight import Sight
from topwork.data.outliers import outliers
from topwork.types import Finding


def look(sight: Sight, _: Judged | None) -> Iterator[Finding]:
    """Those far from their nearest neighbours."""
    found = outliers(sight.x, sight.twins, seed=sight.seed)
    if found is None:
        sight.not_done.append(f"outliers: {len(sight.rows):,} {sight.many} are too few to say what is usual")
        return
    far = np.flatnonzero(found.far)
    if not len(far):
        return
    order = far[np.argsort(-found.distances[far], kind="stable")]
    chance = found.alarms * len(sight.rows)
    message = (
        f"{len(far):,} {sight.many} are unlike all others, e.g. {sight.item(order[0])}: "
        f"{found.distances[order[0]]:.2f} from its neighbours, usual is {np.median(found.distances):.2f} "
        f"({chance:.1f} such are to be expected by chance)"
    )
    fix = "look at them: a wrong file, or a rare case that is worth more than many common ones?"
    yield Finding(
        "outliers", "note", message, fix, tuple(order.tolist()), tuple(sight.item(i) for i in order[:5]), (),
        tuple(np.round(found.distances[order], 4).tolist()),
    )  # fmt: skip
