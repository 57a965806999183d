"""What a model still knows after more classes were added: every old class before and after, and the new ones.

table(...) -> plain JSON for report.json          lines(...) -> a table for the terminal
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.intervals import wilson
from topwork.evaluation.paired import compare_hits

if TYPE_CHECKING:
    from rich.console import RenderableType

Hits = NDArray[np.bool_]


def table(
    labels: Sequence[str], y: NDArray[Any], before: Hits, after: Hits, fresh: Mapping[str, Hits], measured_on: str
) -> dict[str, Any]:
    """Old `labels`, items y (N,) of theirs and whether they were named rightly (N,); new labels with their hits."""
    rows = [
        {"label": label, "new": False, "before": _share(before[y == c]), "after": _share(after[y == c])}
        for c, label in enumerate(labels)
        if (y == c).any()
    ]
    rows += [{"label": label, "new": True, "before": None, "after": _share(hits)} for label, hits in fresh.items()]
    changed = compare_hits(before, after)
    new = "; ".join(f"{100 * hits.mean():.1f} % of {label}" for label, hits in list(fresh.items())[:5])
    text = (
        f"Old classes: {100 * before.mean():.1f} % right before, {100 * after.mean():.1f} % after "
        f"({changed.over()}), on {len(y):,} {measured_on}."
    )
    return {
        "measured_on": measured_on,
        "rows": rows,
        "old": {"before": _share(before), "after": _share(after), "difference": changed.difference,
                "low": changed.low, "high": changed.high, "p_value": changed.p_value},
        "text": f"{text} New ones: {new} found." if new else text,
    }  # fmt: skip


def lines(found: Mapping[str, Any]) -> RenderableType:
    """For the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("class")
    for name in ("before", "after", "95 % interval", "items"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in found["rows"]:
        after = row["after"]
        shown.add_row(
            Text(str(row["label"])),
            "new" if row["new"] else f"{100 * row['before']['value']:.1f} %",
            f"{100 * after['value']:.1f} %",
            f"{100 * after['low']:.1f} to {100 * after['high']:.1f} %",
            f"{after['n']:,}",
        )
    return shown


def _share(hits: Hits) -> dict[str, float | int]:
    low, high = wilson(hits.sum(), len(hits))
    return {"value": float(hits.mean()), "low": float(low), "high": float(high), "n": len(hits)}
