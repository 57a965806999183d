"""A row of feature columns: {"age": 41, "height": null, "town": "Oslo"}, a JSON object with null for a missing value.

written(row) -> text    parsed(text) -> row    shown(text) -> "age 41, height –, town Oslo"
Table                   rows that are added block by block, column by column
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.types import Dataset

LARGEST = 1e36  # of a number; features are float32, which ends at 3.4e38
LONGEST = 10_000_000  # characters of a row
BLOCK = 4096  # rows that are read at once
SHOWN = 60  # characters of a cell in an error
NOTHING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "?", "-", "--", ".", "missing", "unknown"))

Row = dict[str, Any]
_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def written(row: Mapping[str, Any]) -> str:
    """A row as text: equal rows are written alike."""
    return _encoded(dict(row))


def parsed(text: str) -> Row:
    """A row from its text; BadData where it is none."""
    if len(text) > LONGEST:
        raise BadData(f"a row of {len(text):,} characters. Expected at most {LONGEST:,}")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"no row: {text[:SHOWN]!r} is no JSON object of column names and values") from error
    if not isinstance(row, dict):
        raise BadData(f'no row: {text[:SHOWN]!r}. Expected a JSON object such as {{"age": 41}}')
    return {name: None if cell is None or cell != cell else cell for name, cell in row.items()}


def names_of(dataset: Dataset) -> tuple[str, ...] | None:
    """The columns of a dataset of rows; None of others."""
    if dataset.modality != "row" or not len(dataset):
        return None
    return tuple(parsed(dataset.table["text"][0].as_py()))


def shown(text: str) -> str:
    """A row for people: age 41, height –, town Oslo."""
    return ", ".join(f"{name} {_told(cell)}" for name, cell in parsed(text).items())


def is_missing(cell: Any) -> bool:
    """Whether a cell says nothing."""
    if isinstance(cell, str):
        return cell.strip().casefold() in NOTHING
    return cell is None or cell != cell


def number_of(cell: Any, name: str) -> float:
    """A cell of a column of numbers; BadData where it holds none."""
    number = math.nan
    try:
        if isinstance(cell, (int, float)) or (isinstance(cell, str) and "_" not in cell):
            number = float(cell)
    except (ValueError, OverflowError):
        pass
    if not abs(number) <= LARGEST:
        raise BadData(f"column '{name}' holds {str(cell)[:SHOWN]!r}. Expected a number, or nothing where it is missing")
    return number


def word_of(cell: Any) -> str | None:
    """A cell of a column of words; whole numbers as pandas writes them beside empty cells are whole."""
    if cell is None or isinstance(cell, str):
        return cell
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else json.dumps(cell)


def _told(cell: Any) -> str:
    if cell is None:
        return "–"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True, eq=False)
class Words:
    """The cells of a column of words."""

    codes: NDArray[np.int32]  # (N,) which word; -1: missing
    words: tuple[str, ...]

    def take(self, rows: NDArray[Any]) -> Words:
        """Some of them."""
        return Words(self.codes[rows], self.words)


Cells = NDArray[np.float64] | Words
"""(N,) numbers, NaN where missing; or words."""


class Table:
    """Rows that are added block by block, column by column: a million rows of twenty numbers are 160 MB."""

    def __init__(self) -> None:
        self._rows = 0
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._known: dict[str, dict[str, int]] = {}  # the words of columns that have some

    def add(self, rows: Sequence[Row]) -> None:
        """A block; a column that holds a word anywhere is one of words."""
        for name in dict.fromkeys(name for row in rows for name in row):
            self._parts.setdefault(name, [np.full(self._rows, np.nan)])
        for name, parts in self._parts.items():
            cells = [row.get(name) for row in rows]
            if name not in self._known and any(isinstance(cell, (str, list, dict)) for cell in cells):
                self._known[name] = {}
                before = np.concatenate(parts).tolist()
                parts[:] = [self._coded(name, [None if math.isnan(x) else x for x in before])]
            if name in self._known:
                parts.append(self._coded(name, cells))
            else:
                parts.append(
                    np.array([np.nan if cell is None else number_of(cell, name) for cell in cells], np.float64)
                )
        self._rows += len(rows)

    def columns(self) -> dict[str, Cells]:
        """All of it, in the order in which the columns were first seen."""
        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        return {name: Words(x, tuple(self._known[name])) if name in self._known else x for name, x in whole.items()}

    def _coded(self, name: str, cells: Sequence[Any]) -> NDArray[np.int32]:
        known = self._known[name]
        words = map(word_of, cells)
        return np.array([-1 if word is None else known.setdefault(word, len(known)) for word in words], np.int32)
