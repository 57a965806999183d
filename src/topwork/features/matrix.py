"""The feature matrix (N, D): allocated once, filled in place, shrunk in place where items had to be left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topwork.features.contents import Contents
from topwork.store import Store

AT_ONCE = 1024  # rows read from a store or moved in one go


class Matrix:
    """Features of a dataset's rows. Row i of the dataset is row i here until `finish`."""

    def __init__(self, contents: Contents, features: int | None) -> None:
        self.contents = contents
        self._features = features
        self._x: NDArray[np.float32] | None = None
        self._there = np.zeros(len(contents.keys), bool)  # (U,)
        self.filled = 0  # contents whose features are there

    def fill(self, at: Sequence[int] | NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Features (n, D) of n contents."""
        if self._x is None:
            self._features = values.shape[1]
            self._x = np.empty((len(self.contents.index), self._features), np.float32)
        self._x[self.contents.first[at]] = values
        self.filled += int(np.count_nonzero(~self._there[at]))
        self._there[at] = True

    def recall(self, store: Store | None, namespace: str, among: Sequence[int] | None = None) -> list[int]:
        """Fill in what the store knows; returns the contents that it does not know."""
        asked = np.arange(len(self.contents.keys)) if among is None else np.asarray(among, np.int64)
        if store is not None:
            for start in range(0, len(asked), AT_ONCE):
                some = asked[start : start + AT_ONCE]
                values = store.get_many(namespace, [self.contents.keys[u] for u in some])
                size = 4 * self._features if self._features else len(next(filter(None, values), b""))
                known = [i for i, value in enumerate(values) if value is not None and len(value) == size > 0]
                if known:
                    block = b"".join(values[i] or b"" for i in known)
                    self.fill(some[known], np.frombuffer(block, "<f4").reshape(len(known), -1))
        return asked[~self._there[asked]].tolist()

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """x (N', D) of the rows that have features, and their numbers, ascending."""
        index = self.contents.index
        rows = np.flatnonzero((index >= 0) & np.append(self._there, False)[index])
        if self._x is None:
            return np.empty((0, self._features or 0), np.float32), rows
        first = self.contents.first
        copies = rows[first[index[rows]] != rows]
        for start in range(0, len(copies), AT_ONCE):
            part = copies[start : start + AT_ONCE]
            self._x[part] = self._x[first[index[part]]]
        if len(rows) < len(self._x):
            for start in range(0, len(rows), AT_ONCE):  # rows only move up, so nothing is overwritten before it moved
                part = rows[start : start + AT_ONCE]
                self._x[start : start + len(part)] = self._x[part]
        return self._x[: len(rows)], rows
