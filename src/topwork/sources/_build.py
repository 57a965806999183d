"""Items one after the other to the Arrow table of a dataset: in chunks, labels numbered in the order of their names."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from topwork.sources import SPLITS, _carry

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS, _CHARACTERS = 1 << 16, 1 << 26  # of a chunk: Arrow counts its bytes in 31 bits


class Strings:
    """An Arrow string column that grows; Python's own strings would take twice the memory."""

    def __init__(self) -> None:
        self.waiting: list[str | None] = []
        self.characters = 0
        self.chunks: list[Any] = []

    def append(self, text: str | None) -> None:
        """One more."""
        self.waiting.append(text)
        self.characters += len(text or "")
        if len(self.waiting) == _ROWS or self.characters > _CHARACTERS:
            self._seal()

    def column(self) -> pa.ChunkedArray:
        """All of them."""
        import pyarrow as pa

        self._seal()
        return pa.chunked_array(self.chunks, pa.string())

    def _seal(self) -> None:
        import pyarrow as pa

        self.chunks.append(pa.array(self.waiting, pa.string()))
        self.waiting, self.characters = [], 0


class Builder:
    """Grows the columns item, text (where there is one), target, split and group (where there is one).

    `measured`: what the numbers are called where targets are numbers, not labels. `carry`: further columns, see
    `_carry.py`; what is to be said of them is in `notes` after `table`.
    """

    def __init__(
        self, texts: bool = False, groups: bool = False, measured: str | None = None, carry: Sequence[str] = ()
    ) -> None:
        self.carried, self.notes = {name: Strings() for name in carry}, list[str]()
        self.measured, self.values = measured, array.array("d")
        self.items, self.texts, self.groups = Strings(), Strings() if texts else None, Strings() if groups else None
        self.numbers: dict[str, int] = {}  # label -> number in order of appearance
        self.flat, self.ends, self.sides = array.array("i"), array.array("q", [0]), array.array("b")
        self.labelled = 0

    def __len__(self) -> int:
        return len(self.sides)

    def add(
        self,
        item: str,
        labels: Sequence[Any],
        side: int = -1,
        group: str | None = None,
        text: str | None = None,
        carried: Sequence[Any] = (),
    ) -> None:
        """One item; labels: names, or a single number; side: number of its split, -1 where it has none."""
        self.items.append(item)
        if self.texts is not None:
            self.texts.append(text)
        if self.measured is not None:
            self.values.append(labels[0] if labels else float("nan"))
        else:
            self.flat.extend([self.numbers.setdefault(label, len(self.numbers)) for label in labels])
            self.ends.append(len(self.flat))
        self.sides.append(side)
        self.labelled += bool(labels)
        if self.groups is not None:
            self.groups.append(group)
        for column, cell in zip(self.carried.values(), carried, strict=True):
            column.append(_carry.text_of(cell))

    def table(self, multilabel: bool) -> tuple[pa.Table, tuple[str, ...]]:
        """The table and the labels in order of their names; an item without label has a null, or an empty list."""
        import numpy as np
        import pyarrow as pa

        labels = tuple(sorted(self.numbers)) if self.measured is None else (self.measured,)
        rank = {label: index for index, label in enumerate(labels)}
        renumber = np.array([rank[label] for label in self.numbers] or [0], np.int32)
        codes = renumber[np.frombuffer(self.flat, np.int32)] if len(self.flat) else np.empty(0, np.int32)
        ends = np.frombuffer(self.ends, np.int64)
        if self.measured is not None:
            numbers = np.frombuffer(self.values, np.float64) if len(self.values) else np.empty(0)
            target: Any = pa.array(numbers, mask=np.isnan(numbers))
        elif multilabel:
            target = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(codes))
        else:
            none = np.diff(ends) == 0
            single = np.zeros(len(none), np.int32)
            single[~none] = codes
            target = pa.array(single, mask=none)
        split = np.frombuffer(self.sides, np.int8)
        columns = {
            "item": self.items.column(),
            **({"text": self.texts.column()} if self.texts is not None else {}),
            "target": target,
            "split": pa.DictionaryArray.from_arrays(pa.array(np.maximum(split, 0), mask=split < 0), pa.array(SPLITS)),
            **({"group": self.groups.column()} if self.groups is not None else {}),
            **{name: _carry.column(name, kept.column(), self.notes) for name, kept in self.carried.items()},
        }
        return pa.table(columns), labels
