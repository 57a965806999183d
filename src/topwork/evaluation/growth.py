"""Old and new model on old and new data: has what comes in changed, and is what was known still known?

    row       what it asks                                    before: the old model     after: the new one
    old       items of the old model's snapshot               forgetting = after - before
    new       items that have come since                      gain = after - before
    drift     the old model on new items, less on old ones    two samples, so an unpaired difference

Items that neither model has learnt from are compared pair by pair (`paired`). Unpaired differences of two metrics with
intervals [l, u]: d - sqrt((a - l_a)^2 + (u_b - b)^2) and so on (square and add: Newcombe, Statistics in Medicine 1998;
Zou & Donner 2008). A difference above 0 is better, also of a loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation import wording
from topwork.evaluation.intervals import interval
from topwork.evaluation.paired import compare, compare_metric
from topwork.evaluation.score import widening
from topwork.tasks import statistics
from topwork.types import Metric, Predictions

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAST = 10  # items of a row


def measured(said: Predictions, metric: str, folds: NDArray[Any] | None = None) -> Metric | None:
    """One metric with its interval; wider where the answers are out of fold. None where the items do not allow it."""
    if len(said.targets) < LEAST:
        return None
    found = statistics(said.probabilities, said.targets, said.multilabel)
    return interval(found[metric], _widen(said, folds)) if metric in found else None


def row(
    name: str, before: Predictions | None, after: Predictions, metric: str, folds: NDArray[Any] | None, said: str
) -> dict[str, Any]:
    """Both models on the same items, as plain JSON."""
    found: dict[str, Any] = {"data": name, "n": len(after.targets), "said": said, "difference": None}
    found["after"] = _plain(measured(after, metric, folds))
    found["before"] = None if before is None else _plain(measured(before, metric))
    if before is None or found["after"] is None:
        return found
    simple = metric == "accuracy" and not after.multilabel
    widen = _widen(after, folds)
    gain = compare(before, after, widen) if simple else compare_metric(before, after, metric, widen)
    return {**found, "difference": {**dataclasses.asdict(gain), "text": gain.over()}}


def apart(first: Metric, second: Metric, metric: str, loss: bool = False) -> dict[str, Any]:
    """Second less first, of different items."""
    d = second.value - first.value
    low = d - ((second.value - second.low) ** 2 + (first.high - first.value) ** 2) ** 0.5
    high = d + ((second.high - second.value) ** 2 + (first.value - first.low) ** 2) ** 0.5
    d, low, high = (-d, -high, -low) if loss else (d, low, high)
    if wording.words(metric).share:
        text = f"{100 * d:+.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
    else:
        text = f"{d:+.3f} {wording.words(metric).name.lower()} [{low:.3f}, {high:.3f}]"
    return {"difference": d, "low": low, "high": high, "measure": metric, "text": text}


def is_loss(said: Predictions, metric: str) -> bool:
    """Whether less of it is better."""
    found = statistics(said.probabilities, said.targets, said.multilabel)
    return metric in found and found[metric].kind == "mean"


def lines(found: Mapping[str, Any]) -> RenderableType:
    """For the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column(wording.words(found["metric"]).name.lower())
    for name in ("items", "before", "after", "difference"):
        shown.add_column(name, justify="right", overflow="fold")
    for cells in table(found):
        shown.add_row(*map(Text, cells))
    return Group(shown, Text(found["text"]))


def table(found: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """Cells of every row, as they are read on the page and in the terminal."""
    rows = []
    for one in found["rows"]:
        both = [_cell(found["metric"], one[side]) for side in ("before", "after")]
        rows.append((one["data"], f"{one['n']:,}", *both, (one["difference"] or {}).get("text", "–")))
    return rows


def _cell(metric: str, value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{wording.number(metric, value['value'])} ({wording.interval(metric, value)})"


def _widen(said: Predictions, folds: NDArray[Any] | None) -> float:
    return 1.0 if folds is None or len(np.unique(folds)) < 2 else widening([said], [folds])


def _plain(metric: Metric | None) -> dict[str, Any] | None:
    return None if metric is None else dataclasses.asdict(metric)
