"""Distinct contents of a dataset: equal files and equal texts are computed once.

keys[u]    BLAKE2b-128 of content u (of a text: of its UTF-8), in order of first appearance
index[i]   u of row i, or -1 where the file cannot be read
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.store import remote
from topwork.types import WRITTEN, Dataset, Skipped


def content_key(data: bytes) -> bytes:
    """BLAKE2b-128 of a file's bytes, or of a text's."""
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class Contents:
    """Distinct contents and the rows that hold them."""

    keys: list[bytes]  # U of them
    index: NDArray[np.int64]  # (N,)
    skipped: tuple[Skipped, ...] = ()
    first: NDArray[np.int64] = field(init=False)  # (U,) first row of every content
    _order: NDArray[np.int64] = field(init=False)  # rows sorted by content
    _start: NDArray[np.int64] = field(init=False)  # (U + 1,)

    def __post_init__(self) -> None:
        order = np.argsort(self.index, kind="stable")
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_start", np.searchsorted(self.index[order], np.arange(len(self.keys) + 1)))
        object.__setattr__(self, "first", order[self._start[:-1]])

    def rows(self, content: int) -> NDArray[np.int64]:
        """Rows with this content, ascending."""
        return self._order[self._start[content] : self._start[content + 1]]


def distinct(dataset: Dataset) -> Contents:
    """The distinct contents; files are hashed here where nobody did it before."""
    column, skipped = _column(dataset)
    encoded = column.dictionary_encode()
    index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return Contents(encoded.dictionary.to_pylist(), index, skipped)


def _column(dataset: Dataset) -> tuple[pa.Array, tuple[Skipped, ...]]:
    if "content" in dataset.columns and dataset.table["content"].null_count == 0:
        return pa.concat_arrays(dataset.table["content"].chunks or [pa.array([], pa.binary(16))]), ()
    if dataset.modality in WRITTEN:
        texts = (text.encode("utf-8", "surrogatepass") for text in dataset.inputs())
        return pa.array([content_key(text) for text in texts], pa.binary(16)), ()
    items = dataset.table["item"].to_pylist()
    known: list[bytes | None] = [None] * len(items)
    if "content" in dataset.columns:
        known = dataset.table["content"].to_pylist()
    skipped = []
    paths = dataset.paths()
    with remote.ahead(path for row, path in enumerate(paths) if known[row] is None):
        for row, path in enumerate(paths):
            if known[row] is not None:
                continue
            try:
                known[row] = content_key(remote.read(path))
            except BadData as error:
                skipped.append(Skipped(items[row], str(error)))
    return pa.array(known, pa.binary(16)), tuple(skipped)
