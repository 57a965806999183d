"""A text as numbers: what every reader gives and every text graph takes.

    "What a film!"  --reader-->  ids, weights (T,)  --padded, in batches-->  ids int64 (W, L), weights float32 (W, L)

    pieces   words in pieces, one row of a table each            `wordpiece.py`, static embeddings, no torch
    tokens   a tokenizer.json, special tokens and windows        `tokens.py`, transformers; weights 1, padding 0
    ngrams   character and word n-grams of a fitted vocabulary   `ngrams.py`, weights are TF-IDF
    columns  a row of feature columns, filled and scaled         `columns.py`

A text that is longer than a reader's window is several windows, whose features are averaged; the reader says which
texts those were, and which lost their end. A pair of texts is one string with PAIR between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PAIR = "\x1e"  # record separator: no text holds it
READER = "reader.json"  # in an artefact: {"kind": ..., options}


@dataclass(frozen=True, eq=False)
class Tokens:
    """Windows of numbers one after the other: window w has ids[ends[w]:ends[w + 1]]."""

    ids: NDArray[np.int32]  # (T,)
    weights: NDArray[np.float32] | None  # (T,); None: all 1
    ends: NDArray[np.int64]  # (W + 1,)
    owner: NDArray[np.int64]  # (W,) text of every window, ascending; every text has one at least, perhaps empty
    cut: NDArray[np.bool_]  # (N,) texts of which something could not be read, because they are too long

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(W,)"""
        return np.diff(self.ends)

    def padded(self, windows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """ids and weights (len(windows), L) of some windows, L the longest of them and at least 1; the rest is 0."""
        lengths = self.lengths[windows]
        L = max(1, int(lengths.max(initial=0)))
        ids, weights = np.zeros((len(windows), L), np.int64), np.zeros((len(windows), L), np.float32)
        inside = np.arange(L) < lengths[:, None]  # (B, L)
        at = (self.ends[windows][:, None] + np.arange(L))[inside]
        ids[inside] = self.ids[at]
        weights[inside] = 1 if self.weights is None else self.weights[at]
        return ids, weights


class Reader(Protocol):
    """Texts to numbers; may be shared between threads."""

    kind: str  # "pieces", "tokens", "ngrams": how `readers.open_reader` finds it again

    def read(self, texts: Sequence[str]) -> Tokens:
        """BadData where one is no text."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """What an artefact keeps so that it reads alike: READER and the files it names. Nothing in them executes."""
        ...


def buckets(lengths: NDArray[np.int64], tokens: int, most: int = 64) -> Iterator[NDArray[np.int64]]:
    """Windows in batches of like length, longest first: at most `tokens` numbers with padding, `most` windows."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = int(np.clip(tokens // longest, 1, most))
        yield order[start : start + size]
        start += size
