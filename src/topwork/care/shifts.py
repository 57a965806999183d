"""Splits that a classifier tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import probe as probes
from topwork.care.judged import Judged
from topwork.care.sight import Sight
from topwork.data.shift import shift
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.types import Finding

TOLD = 0.6  # accuracy of telling two splits apart from which a shift is a warning


def look(sight: Sight, _: Judged | None) -> Iterator[Finding]:
    """Train from test, train from val, val from test."""
    splits, together = sight.splits, keep_together(sight.dataset)

    def ask(x: NDArray[np.float32], sides: NDArray[np.int32], folds: NDArray[np.int32]) -> NDArray[Any]:
        return probes.choose(x, sides, folds, 2, methods=("ridge",))[0].held_out

    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        rows = [np.flatnonzero(splits == side) for side in (one, other)]
        if not all(map(len, rows)):
            continue
        found = shift(sight.x, rows[0], rows[1], together, make_folds, ask, sight.seed)
        if found is None:
            fewest = min(map(len, rows))
            sight.not_done.append(f"shift between {one} and {other}: {fewest} {sight.many} are too few")
            continue
        if found.low <= 0.5:
            continue
        typical = np.argsort(-found.margin, kind="stable")
        asked = len(typical) // 2
        shown = [found.rows[i] for i in typical if i >= asked][:20]
        said = f"{found.accuracy:.0%} [{found.low:.0%}, {found.high:.0%}] right, {found.n:,} {sight.many}"
        most = f"most surely {sight.item(shown[0])}"
        message = f"a classifier tells {one} from {other} ({said}; 50% if they were alike), {most}"
        fix = (
            f"what is measured on {other} is another distribution than what is learnt: was it gathered in another way?"
        )
        yield Finding(
            "shift", "warning" if found.accuracy >= TOLD else "note", message, fix, tuple(int(i) for i in shown),
            tuple(sight.item(i) for i in shown[:5]),
        )  # fmt: skip
