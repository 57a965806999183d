"""Rows of feature columns as numbers: missing values filled, numbers standardised, words as columns of their own.

    number   z = (x - mean) / std, at most CLIP either way;  missing: x = median, and where training rows lacked it,
             too, a further column that is 1 for "missing" (0 otherwise)
    word     a column for each of the LEVELS most frequent words that LEAST training rows hold, 1 where it stands;
             the same for "missing". A word that training has not seen is none of them

All of it is fitted to the training rows without their labels. A constant column gives no feature. Filling with the
median and telling that it was filled: Little and Rubin, Statistical Analysis with Missing Data, 1987, 4.2; Van Ness et
al., The Missing Indicator Method: From Low to High Dimensions, 2023.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadWeights
from topwork.modalities.rows import BLOCK, Cells, Row, Table, Words, is_missing, number_of, parsed, word_of, written
from topwork.modalities.text import READER, Tokens

CLIP = 10.0  # standard deviations: what lies beyond is a typing mistake, and must not drown the others
LEVELS, LEAST = 64, 2


@dataclass(frozen=True)
class Number:
    """A column of numbers."""

    name: str
    median: float
    mean: float
    std: float
    missing: bool  # some training rows lacked it
    kind: str = "number"

    @property
    def features(self) -> tuple[str, ...]:
        """What they are called."""
        own = (self.name,) if self.std > 0 else ()
        return (*own, f"{self.name} missing") if self.missing else own

    def slots(self, cells: Sequence[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """(N,) which of its features, (N,) with which weight; as often as a row may have several."""
        x = np.array([np.nan if cell is None else number_of(cell, self.name) for cell in cells], np.float64)
        none, first = np.isnan(x), np.zeros(len(x), np.int64)
        if self.std > 0:
            yield first, np.clip((np.where(none, self.median, x) - self.mean) / self.std, -CLIP, CLIP)
        if self.missing:
            yield first + len(self.features) - 1, none.astype(np.float64)


@dataclass(frozen=True)
class Word:
    """A column of words: one of a few."""

    name: str
    levels: tuple[str, ...]
    missing: bool
    kind: str = "word"

    @property
    def features(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(f"{self.name} = {level}" for level in self.levels) + (f"{self.name} missing",) * self.missing

    def slots(self, cells: Sequence[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """As of numbers."""
        at = {level: i for i, level in enumerate(self.levels)} | ({None: len(self.levels)} if self.missing else {})
        found = np.array([at.get(word_of(cell), -1) for cell in cells], np.int64)
        if self.features:
            yield np.maximum(found, 0), (found >= 0).astype(np.float64)


Column = Number | Word


@dataclass(frozen=True, eq=False)
class ColumnsReader:
    """Rows to columns and weights. Instances may be shared between threads."""

    columns: tuple[Column, ...]
    kind = "columns"

    @classmethod
    def fitted(cls, rows: Sequence[str]) -> ColumnsReader:
        """Medians, means and words of these rows; no labels are asked."""
        table = Table()
        for start in range(0, len(rows), BLOCK):
            table.add([parsed(row) for row in rows[start : start + BLOCK]])
        found = tuple(_fitted(name, cells) for name, cells in table.columns().items())
        if not any(column.features for column in found):
            raise BadData(f"{len(rows):,} rows of {len(found):,} columns are all alike. Expected different ones")
        return cls(found)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> ColumnsReader:
        """What `files` came from; BadWeights where they are damaged."""
        try:
            columns = tuple(map(_column_of, json.loads(files[READER])["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadWeights(f"{READER} describes no columns: {error}. Fit again") from error
        return cls(columns)

    def files(self) -> dict[str, bytes]:
        """One file, for people as well."""
        facts = {"kind": self.kind, "columns": [asdict(column) for column in self.columns]}
        return {READER: json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False).encode()}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that a row should have."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What the features are called: "age", "town = Oslo", "height missing"."""
        return tuple(name for column in self.columns for name in column.features)

    @property
    def hash(self) -> str:
        """Names what was fitted: two that read alike have one."""
        return hashlib.sha256(self.files()[READER]).hexdigest()

    def read(self, texts: Sequence[str]) -> Tokens:
        """One window per row; BadData where one is no row."""
        blocks = [self._read(texts[start : start + BLOCK]) for start in range(0, max(1, len(texts)), BLOCK)]
        ids, weights = (np.concatenate(parts) for parts in zip(*blocks, strict=True))  # (N, K) each
        N, K = ids.shape
        return Tokens(ids.ravel(), weights.ravel(), np.arange(N + 1) * K, np.arange(N), np.zeros(N, bool))

    def _read(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        rows = [parsed(text) for text in texts]
        ids, weights, base = [], [], 0
        for column in self.columns:
            for which, weight in column.slots([row.get(column.name) for row in rows]):
                ids.append(base + which)
                weights.append(weight)
            base += len(column.features)
        return np.stack(ids, 1).astype(np.int32), np.stack(weights, 1).astype(np.float32)

    def checked(self, row: Row) -> str:
        """A row as a model takes it, written with the columns that it knows; BadData says what is wrong with it."""
        own = {name: None if is_missing(row[name]) else row[name] for name in self.names if name in row}
        if not own:
            given, wanted = (", ".join(list(names)[:8]) or "none" for names in (row, self.names))
            raise BadData(f"no column that the model knows (given: {given}). It knows: {wanted}")
        for column in self.columns:
            if isinstance(column, Number) and own.get(column.name) is not None:
                own[column.name] = number_of(own[column.name], column.name)
        return written(own)


def _fitted(name: str, cells: Cells) -> Column:
    if isinstance(cells, Words):
        counts = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.words)).tolist()
        missing, N = bool((cells.codes < 0).any()), len(cells.codes)
        least = LEAST if N >= 10 * LEAST else 1
        best = sorted(zip(cells.words, counts, strict=True), key=lambda one: (-one[1], one[0]))
        levels = tuple(word for word, count in best if count >= least)[:LEVELS]
        return Word(name, levels if missing or len(counts) > 1 else (), missing)
    none = np.isnan(cells)
    median = float(np.median(cells[~none])) if not none.all() else 0.0
    filled = np.where(none, median, cells)
    mean, std = float(filled.mean()), float(filled.std())
    flat = std <= 1e-12 * max(1.0, abs(mean))  # what rounding leaves of a constant
    return Number(name, median, mean, 0.0 if flat else std, bool(none.any()) and not none.all())


def _column_of(facts: Mapping[str, Any]) -> Column:
    """One column of a saved reader; ValueError where its facts are none."""
    name, missing = facts["name"], facts["missing"]
    if not isinstance(name, str) or not isinstance(missing, bool):
        raise ValueError(f"column {name!r}")
    if facts["kind"] == "word":
        levels = facts["levels"]
        if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
            raise ValueError(f"words of column {name!r}")
        return Word(name, tuple(levels), missing)
    median, mean, std = (float(facts[key]) for key in ("median", "mean", "std"))
    if facts["kind"] != "number" or not all(map(math.isfinite, (median, mean, std))) or std < 0:
        raise ValueError(f"numbers of column {name!r}")
    return Number(name, median, mean, std, missing)
