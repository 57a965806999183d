"""Look at every row of feature columns once: what is missing, what is there twice.

    row --canonical--> columns in one order, 1.0 as 1, missing ones left out       equal: the same row (exact)

Rows that agree in every column are copies; rows that are only close are none: numbers lie close by nature. Where more
than COMMON of all rows have an equal, as where a few words are all that a row says, equal rows are different items.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import in_order
from topwork.data.findings import COMMON
from topwork.errors import BadData
from topwork.modalities.rows import BLOCK, Cells, Row, Table, Words, parsed
from topwork.types import Dataset, Progress

_sorted = json.JSONEncoder(sort_keys=True).encode


@dataclass(eq=False)
class Seen:
    """What the rows told."""

    contents: NDArray[np.uint8]  # (N, 16) BLAKE2b-128 of the row as it is written
    form: NDArray[np.uint8]  # (N, 16) the same of its canonical form
    blank: NDArray[np.bool_]  # (N,) nothing but missing values
    reasons: list[str | None]  # why a row cannot be used
    columns: Mapping[str, Cells]  # of the rows

    def take(self, rows: NDArray[Any]) -> Seen:
        """Some of them."""
        arrays = {name: getattr(self, name)[rows] for name in ("contents", "form", "blank")}
        columns = {name: cells.take(rows) for name, cells in self.columns.items()}
        reasons = [self.reasons[row] for row in rows.tolist()]
        return dataclasses.replace(self, **arrays, reasons=reasons, columns=columns)

    @cached_property
    def recurring(self) -> float:
        """Share of the rows that have an equal."""
        return float((np.bincount(self._equal)[self._equal] > 1).mean()) if len(self.form) else 0.0

    @cached_property
    def _equal(self) -> NDArray[np.int32]:
        keys = np.ascontiguousarray(self.form).view(np.dtype((np.void, 16))).ravel()
        return in_order(np.unique(keys, return_inverse=True)[1])

    def same(self) -> NDArray[np.int32]:
        """(N,) numbers: equal for copies."""
        return self._equal if self.recurring <= COMMON else np.arange(len(self.form), dtype=np.int32)

    def near(self, labels: NDArray[Any]) -> NDArray[np.int32]:  # noqa: ARG002 as for images
        """(N,) the same: rows that are only close are different ones."""
        return self.same()

    def twins(self, near: NDArray[np.int32], labels: NDArray[Any]) -> NDArray[np.int32]:  # noqa: ARG002 as for images
        """(N,) the same: a row has no mirror image."""
        return near

    def likeness(self, rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
        """(P,) 1 for rows that agree in every column."""
        return (self.form[rows] == self.form[others]).all(1).astype(float)

    def facts(self) -> dict[str, Any]:
        """Columns with their kind and what is missing in them, as plain JSON."""
        return {"columns": {name: _facts(cells) for name, cells in self.columns.items()}}


def missing(cells: Cells) -> NDArray[np.bool_]:
    """(N,) where a column says nothing."""
    return cells.codes < 0 if isinstance(cells, Words) else np.isnan(cells)


def look(dataset: Dataset, progress: Progress) -> Seen:
    """Read all rows."""
    N = len(dataset)
    column = dataset.table["text"]
    contents, form, table = bytearray(), bytearray(), Table()
    blank = np.zeros(N, bool)
    reasons: list[str | None] = [None] * N
    for start in range(0, N, BLOCK):
        block: list[Row] = []
        for row, text in enumerate(column.slice(start, BLOCK).to_pylist(), start):
            try:
                own = parsed(text or "")
            except BadData as error:
                own, reasons[row] = {}, str(error)
            block.append(own)
            known = {name: _plain(cell) for name, cell in own.items() if cell is not None}
            blank[row] = not known
            contents += hashlib.blake2b((text or "").encode(), digest_size=16).digest()
            form += hashlib.blake2b(_sorted(known).encode(), digest_size=16).digest()
        table.add(block)
        progress("inspect", min(start + BLOCK, N), N)
    return Seen(_digests(contents), _digests(form), blank, reasons, table.columns())


def _facts(cells: Cells) -> dict[str, Any]:
    lost = int(missing(cells).sum())
    if isinstance(cells, Words):
        return {"kind": "words", "missing": lost, "different": len(np.unique(cells.codes[cells.codes >= 0]))}
    known = cells[np.isfinite(cells)]
    spread = {"min": known.min(), "median": np.median(known), "max": known.max()} if len(known) else {}
    return {"kind": "numbers", "missing": lost, **{name: float(value) for name, value in spread.items()}}


def _plain(cell: Any) -> Any:
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _digests(data: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(data), np.uint8).reshape(-1, 16)
