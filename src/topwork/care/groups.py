"""Groups that a random split tears apart: are they close, and does the score drop without their company?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.care.judged import FOLDS, Judged, probe
from topwork.care.sight import Sight
from topwork.data import stems
from topwork.data.duplicates import connected
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.paired import Comparison, compare_hits
from topwork.tasks.classification import hits
from topwork.types import Finding

OVERLAP = FOLDS / (FOLDS - 1) + 0.35  # out-of-fold answers share their training items, see evaluation.intervals
TRIED = 2  # groupings whose price is measured
CLOSE = 0.02  # excess of closeness below which a grouping does not matter


def look(sight: Sight, judged: Judged | None) -> Iterator[Finding]:
    """The grouping that costs most, if any does."""
    if judged is None:
        return
    if "group" in sight.dataset.columns:
        sight.not_done.append("groups that leak: the data name their groups, which stay together in every split")
        return
    y = judged.y if judged.y.ndim == 1 else np.unique(judged.y, axis=0, return_inverse=True)[1].reshape(-1)
    known = [sight.facts[at] for at in judged.at] if sight.facts else None
    taken = np.array([fact.taken for fact in known], np.int64) if known else None
    cameras = [fact.camera for fact in known] if known else None
    items = sight.dataset.table["item"].take(judged.at).to_pylist()
    suspected = stems.candidates(items, y, taken, cameras)
    first = np.sort(np.unique(sight.twins[judged.at], return_index=True)[1])  # copies are close anyway
    close = []
    for one in suspected:
        part = stems.Grouping(one.rule, one.names, one.codes[first])
        said = stems.closeness(sight.z[judged.at[first]], part, y[first], sight.seed)
        if said.p_value <= stems.LEVEL and said.excess >= CLOSE:
            close.append((said, one))
    close.sort(key=lambda pair: -pair[0].excess)
    for said, one in close[:TRIED]:
        gap = _price(sight, judged, one)
        if gap.low <= 0:
            continue
        yield _group_finding(sight, judged, one, said, gap)
        return
    if close:
        said, one = close[0]
        sight.not_done.append(
            f"groups: {sight.many} {one.rule} are more alike than others (p = {said.p_value:.3f}), but the score does "
            "not drop without their company"
        )


def _price(sight: Sight, judged: Judged, grouping: stems.Grouping) -> Comparison:
    """Accuracy with company in the training folds less that without it, on the same items."""
    links = np.stack([keep_together(sight.dataset)[judged.at], grouping.together()], 1)
    together = _joined(links)
    folds = make_folds(judged.y, together, FOLDS, sight.seed)
    mixed, apart = (probe(sight, judged.at, judged.y, one, "ridge") for one in (judged.folds, folds))
    return compare_hits(hits(apart.p, judged.y), hits(mixed.p, judged.y), OVERLAP)


def _joined(links: NDArray[Any]) -> NDArray[np.int32]:
    """(N,) numbers: equal for rows that any of the columns (N, K) joins."""
    N, nodes, pairs = len(links), len(links), []
    for column in links.T:
        number = np.unique(column, return_inverse=True)[1]
        pairs.append(np.stack([np.arange(N), nodes + number], 1))
        nodes += int(number.max(initial=-1)) + 1
    return connected(nodes, np.concatenate(pairs))[:N]


def _group_finding(
    sight: Sight, judged: Judged, grouping: stems.Grouping, said: stems.Closeness, gap: Comparison
) -> Finding:
    crossing = stems.sides(grouping, sight.splits[judged.at], sight.seed)
    where = ""
    if crossing is not None:
        where = f"; {crossing[0]:,} of these groups lie on both sides of the split (by chance {crossing[1]:.0f})"
    has = np.flatnonzero(grouping.codes >= 0)
    size = np.bincount(grouping.codes[has], minlength=len(grouping.names))
    has = has[size[grouping.codes[has]] > 1]
    has = has[np.argsort(grouping.codes[has], kind="stable")]
    example = sight.item(judged.at[has[0]]), sight.item(judged.at[has[1]])
    message = (
        f"{sight.many} {grouping.rule} belong together ({grouping.groups:,} groups, e.g. {' and '.join(example)}): "
        f"with company in the training folds {100 * gap.difference:.1f} points more are right "
        f"[{100 * gap.low:.1f}, {100 * gap.high:.1f}] than without{where}"
    )
    leaks = crossing is not None and crossing[0] > 0
    fix = "the score flatters: keep groups together; topwork clean --apply findings.json writes a group column"
    return Finding(
        "leaking_groups", "error" if leaks else "warning", message, fix, tuple(judged.at[has].tolist()),
        tuple(example), tuple(grouping.names[c] for c in grouping.codes[has]),
        tuple([round(said.excess, 4)] * len(has)),
    )  # fmt: skip
