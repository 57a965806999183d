"""Rows of feature columns that can be read and are still suspicious, and columns that are.

    kind             which                                                                  score
    missing_values   rows with a value missing: they are filled (modalities.columns)        share of columns missing
    far_values       a number beyond FAR robust deviations of its column, in at most        robust deviations
                     SHARE of the rows: a typing mistake, another unit
    recurring        more than a fifth of the rows have an equal: those are no copies then
    tells_all        a column whose values tell the label of every row: is it the label,     (of the column)
                     written down twice?

A robust deviation is 1.4826 times the median distance from the column's median.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import COMMON, FAR, label_sets, suspicious
from topwork.data.inspect_row import missing
from topwork.modalities.rows import Words
from topwork.types import Dataset, Finding

if TYPE_CHECKING:
    from topwork.data.inspect_row import Seen

SHARE = 0.01  # of the rows: what is more common is a long tail
ENOUGH = 50  # rows from which a column that tells all labels is no accident
RECURS = 5  # rows a value should have on average to be said to tell a label


def suspects(dataset: Dataset, seen: Seen) -> list[Finding | None]:
    """Everything above that is there."""
    N = len(seen.blank)
    lacking, far = np.zeros(N), np.zeros(N)
    worst: dict[str, float] = {}
    for name, values in seen.columns.items():
        none = missing(values)
        lacking += none
        if none.any():
            worst[name] = float(none.mean())
        if not isinstance(values, Words):
            far = np.maximum(far, _far(values))
    share = lacking / max(1, len(seen.columns))
    return [_missing(dataset, share, worst), _outside(dataset, far), _recurring(seen), _told(dataset, seen)]


def _missing(dataset: Dataset, share: NDArray[Any], worst: dict[str, float]) -> Finding | None:
    if not worst:
        return None
    names = sorted(worst, key=lambda name: -worst[name])
    said = ", ".join(f"'{name}' {worst[name]:.1%}" for name in names[:4]) + " ..." * (len(names) > 4)
    message = "{} with missing values: " + said.replace("{", "{{").replace("}", "}}")
    fix = "filled with the median of the training rows, and a further feature says that they were"
    found = suspicious(dataset, "missing_values", np.flatnonzero(share), share, message, fix, sure=True)
    return found and dataclasses.replace(found, severity="note")


def _recurring(seen: Seen) -> Finding | None:
    if seen.recurring <= COMMON:
        return None
    message = f"{seen.recurring:.0%} of the rows have an equal: there are few different ones, so they are no copies"
    return Finding("recurring", "note", message, "expected? Equal rows in training and test make scores rosier")


def _outside(dataset: Dataset, far: NDArray[Any]) -> Finding | None:
    message = "{} with a number far from all others of its column"
    fix = "typing mistakes, another unit? Look at them"
    return suspicious(dataset, "far_values", np.flatnonzero(far), far, message, fix)


def _far(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) robust deviations where they are beyond FAR, 0 elsewhere."""
    away = np.abs(values - np.nanmedian(values)) if np.isfinite(values).any() else np.zeros(len(values))
    scale = 1.4826 * float(np.nanmedian(away)) if len(values) else 0.0
    if not scale > 0:
        return np.zeros(len(values))
    out = np.where(away > FAR * scale, away / scale, 0.0)
    return out if (out > 0).sum() <= SHARE * len(out) else np.zeros(len(values))


def _told(dataset: Dataset, seen: Seen) -> Finding | None:
    """A column that leaves no doubt about any label."""
    labels = label_sets(dataset.targets())
    known = labels >= 0
    if dataset.numeric or known.sum() < ENOUGH or len(np.unique(labels[known])) < 2:
        return None
    for name, values in seen.columns.items():
        cells = values.codes if isinstance(values, Words) else values
        code = np.unique(cells[known], return_inverse=True)[1]
        if len(np.unique(code)) * RECURS > len(code):
            continue
        pairs = np.unique(np.stack([code, labels[known]]), axis=1).shape[1]
        if pairs == len(np.unique(code)):
            message = f"column '{name}' alone tells the label of every row"
            fix = "is it the label, or made from it? Then name the others with --item-column"
            return Finding("tells_all", "warning", message, fix)
    return None
