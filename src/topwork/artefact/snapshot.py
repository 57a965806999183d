"""Which items a model was made from: snapshot.safetensors, 13 bytes an item, for `fit --since`.

    content uint64 (N,)   the first 8 bytes of the item's BLAKE2b-128, ascending
    label   uint32 (N,)   of the names of its labels, or of its number
    held    uint8 (N,)    1: it only measured, the model has not learnt from it

Nothing of an item can be read from it, but whoever has the item can tell that it was there. Two of a million items
share a content number by chance once in 37 million snapshots.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.artefact.bundle import SNAPSHOT, contents
from topwork.artefact.sealed import Seal
from topwork.errors import BadSetting
from topwork.types import Dataset

_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads labels over content numbers


@dataclass(frozen=True, eq=False)
class Known:
    """What a snapshot knows of the rows of a dataset."""

    content: NDArray[np.bool_]  # (N,) the item was there
    label: NDArray[np.bool_]  # (N,) with the label that it has now
    held: NDArray[np.bool_]  # (N,) and was not learnt from, nor was a copy of it
    gone: int  # items of the snapshot that are not among the rows


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The items of a fit, as numbers."""

    content: NDArray[np.uint64]
    label: NDArray[np.uint32]
    held: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def of(cls, dataset: Dataset, held: NDArray[Any]) -> Snapshot:
        """Of an inspected dataset; held: rows that only measure."""
        content, label = _contents(dataset), _labels(dataset)
        kept = np.zeros(len(content), np.uint8)
        kept[held] = 1
        order = np.lexsort((kept, label, content))
        return cls(content[order], label[order], kept[order])

    def more(self, dataset: Dataset) -> Snapshot:
        """With further items, which were learnt from."""
        added = Snapshot.of(dataset, np.zeros(0, np.int64))
        parts = [np.concatenate(pair) for pair in zip(self._arrays(), added._arrays(), strict=True)]
        order = np.lexsort((parts[2], parts[1], parts[0]))
        return Snapshot(*(part[order] for part in parts))

    def known(self, dataset: Dataset) -> Known:
        """Which rows of an inspected dataset were there."""
        content, label = _contents(dataset), _labels(dataset)
        there = np.isin(content, self.content)
        same = np.isin(_pair(content, label), _pair(self.content, self.label))
        held = there & ~np.isin(content, self.content[self.held == 0])
        return Known(there, same, held, int((~np.isin(np.unique(self.content), content)).sum()))

    def pack(self) -> bytes:
        """The same items give the same bytes."""
        from safetensors.numpy import save

        return save(dict(zip(("content", "label", "held"), self._arrays(), strict=True)), {"format": "topwork 1"})

    @classmethod
    def read(cls, folder: Path, seal: Seal | None = None) -> Snapshot:
        """That of a saved model, whose files were compared with their checksums before."""
        from safetensors.numpy import load

        try:
            arrays = load(contents(folder, SNAPSHOT, seal))
        except FileNotFoundError as error:
            raise BadSetting(
                f"{folder} holds no {SNAPSHOT}: an older version wrote it. Fit again without --since, and later fits "
                "can go on from there"
            ) from error
        return cls(arrays["content"], arrays["label"], arrays["held"])

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.content, self.label, self.held


def _contents(dataset: Dataset) -> NDArray[np.uint64]:
    whole = b"".join(dataset.table["content"].to_pylist())
    return np.frombuffer(whole, "<u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def _labels(dataset: Dataset) -> NDArray[np.uint32]:
    """(N,) a number for the names of each row's labels, whatever their order in the dataset; 0: none."""
    targets = dataset.targets()
    if dataset.numeric:
        return _numbered([repr(float(value)) for value in targets.tolist()])
    if not dataset.multilabel:
        names = np.append(_numbered(list(dataset.labels)), np.uint32(0))
        return names[targets]
    each, which = np.unique(targets, axis=0, return_inverse=True)
    sets = ["\0".join(sorted(name for name, has in zip(dataset.labels, row, strict=True) if has)) for row in each]
    return _numbered(sets)[which.ravel()]


def _numbered(words: list[str]) -> NDArray[np.uint32]:
    found = b"".join(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=4).digest() for word in words)
    return np.frombuffer(found, "<u4").astype(np.uint32)


def _pair(content: NDArray[np.uint64], label: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return content ^ ((label.astype(np.uint64) + np.uint64(1)) * _ODD)
