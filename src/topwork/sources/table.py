"""A table with a column of image files and a column of labels: csv, tsv, jsonl or parquet.

    path,label            paths are relative to the table's folder
    cats/1.jpg,cat        a list as label (jsonl, parquet; in csv "cat|dog" or "cat;dog" where evident): multi-label

Columns are guessed and said aloud in `notes`, or named. Rows that cannot be used are in `skipped` with file, line (as
an editor counts) and reason. UTF-8, UTF-16 and GB18030 are told apart by the bytes of the whole file.
"""

from __future__ import annotations

import array
import ast
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from topwork.errors import BadData, BadSetting
from topwork.sources import SPLITS, split_of
from topwork.sources._rows import READERS, SAMPLE_ROWS, is_image
from topwork.types import Dataset, Skipped

if TYPE_CHECKING:
    import pyarrow as pa

_ITEM_NAMES = ("item", "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img")
_LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "tags", "species", "breed", "y")
_SPLIT_NAMES = ("split", "set", "subset", "partition", "data set", "dataset", "phase", "fold")
_GROUP_NAMES = ("group", "group_id")


@dataclass(frozen=True)
class Table:
    """A table of paths and labels."""

    item_column: str | None = None  # column with the image files; None: guessed
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None  # items of one group stay on one side of a split
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident

    def accepts(self, uri: str) -> bool:
        """A file whose name ends like a table's."""
        return os.path.splitext(uri)[1].lower() in READERS and os.path.isfile(uri)

    def read(self, uri: str) -> Dataset:
        """One item per usable row."""
        if not os.path.getsize(uri):
            raise BadData(f"{uri}: empty file (0 bytes). Expected a header line and one line per image")
        reader = READERS[os.path.splitext(uri)[1].lower()](uri)
        sample = [cells for _, cells in islice(reader.rows(), SAMPLE_ROWS) if not isinstance(cells, str)]
        if not sample:
            raise BadData(f"{uri}: {_no_rows(reader)}. Columns: {', '.join(reader.columns)}")
        plan = _Plan.of(self, uri, reader, sample)
        return _gather(uri, reader, plan)


@dataclass
class _Plan:
    """Which column is what, and where the files lie."""

    item: int
    label: int | None
    split: int | None
    group: int | None
    multilabel: bool
    separator: str
    folder: str
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, asked: Table, uri: str, reader: Any, sample: list[Sequence[Any]]) -> _Plan:
        """Named columns as named, the others guessed from the sample; every guess is a note."""
        notes, columns = list(reader.notes), reader.columns

        def named(name: str | None) -> int | None:
            if name is not None and name not in columns:
                raise BadSetting(f"{uri} has no column '{name}'. Its columns: {', '.join(columns)}")
            return None if name is None else columns.index(name)

        item, split, group = named(asked.item_column), named(asked.split_column), named(asked.group_column)
        label = named(asked.label_column)
        taken = {item, split, group, label} - {None}
        if item is None:
            item = _guess_item(uri, columns, sample, taken, notes)
            taken.add(item)
        if split is None:
            split = _guess_split(columns, sample, taken, notes)
            taken.add(split)
        if group is None:
            group = next((i for i, c in enumerate(columns) if i not in taken and c.lower() in _GROUP_NAMES), None)
            if group is not None:
                notes.append(f"group column '{columns[group]}': its name")
            taken.add(group)
        if label is None:
            label = _guess_label(columns, sample, taken, notes)
        values = [row[label] for row in sample] if label is not None else []
        separator = asked.separator if asked.separator is not None else _guess_separator(values, notes)
        multilabel = bool(separator) or any(isinstance(_parsed(value), list) for value in values)
        if multilabel and not separator:
            notes.append(f"column '{columns[label or 0]}' holds lists: multi-label")
        folder = _guess_folder(uri, [str(row[item]).strip() for row in sample if row[item]], notes)
        return cls(item, label, split, group, multilabel, separator, folder, notes)


def _gather(uri: str, reader: Any, plan: _Plan) -> Dataset:
    """All rows, through the plan, as Arrow columns."""
    import numpy as np
    import pyarrow as pa

    skipped: list[Skipped] = []
    numbers: dict[str, int] = {}  # label -> number in order of appearance
    flat, ends, sides = array.array("i"), array.array("i", [0]), array.array("b")
    items, groups = _Strings(), _Strings()
    name = os.path.basename(uri)
    for line, cells in reader.rows():
        try:
            item, labels, side = _row(cells, plan)
        except BadData as error:
            skipped.append(Skipped(f"{name} {reader.unit} {line}", str(error)))
            continue
        if any(map(_is_formula, labels)):
            where = f"{uri} {reader.unit} {line}"
            raise BadData(f"{where}: the label {labels[0][:40]!r} is a spreadsheet formula. Expected a plain name")
        items.append(item)
        flat.extend([numbers.setdefault(label, len(numbers)) for label in labels])
        ends.append(len(flat))
        sides.append(side)
        if plan.group is not None:
            value = cells[plan.group]
            groups.append(None if value is None or value == "" else str(value))
    if not len(sides):
        why = f"e.g. {skipped[0].item}: {skipped[0].reason}" if skipped else "it has no rows"
        raise BadData(f"{uri}: no usable row of {len(skipped):,}, {why}. Paths are looked for in {plan.folder}")
    labels = tuple(sorted(numbers))
    rank = {label: index for index, label in enumerate(labels)}
    renumber = np.array([rank[label] for label in numbers] or [0], np.int32)
    codes = renumber[np.frombuffer(flat, np.int32)] if len(flat) else np.empty(0, np.int32)
    if plan.multilabel:
        target: Any = pa.ListArray.from_arrays(pa.array(np.frombuffer(ends, np.int32)), pa.array(codes))
    elif plan.label is None:
        target = pa.nulls(len(sides), pa.int32())
    else:
        target = pa.array(codes)
    split = np.frombuffer(sides, np.int8)
    columns = {
        "item": items.column(),
        "target": target,
        "split": pa.DictionaryArray.from_arrays(pa.array(np.maximum(split, 0), mask=split < 0), pa.array(SPLITS)),
    }
    if plan.group is not None:
        columns["group"] = groups.column()
    history = (f"read table {name}: {len(sides):,} of {len(sides) + len(skipped):,} rows, {len(labels)} classes",)
    stem = os.path.splitext(name)[0]
    return Dataset(
        pa.table(columns), plan.folder, labels, plan.multilabel, stem, tuple(skipped), tuple(plan.notes), history
    )


class _Strings:
    """An Arrow string column that grows; Python's own strings would take twice the memory."""

    def __init__(self) -> None:
        self.waiting: list[str | None] = []
        self.chunks: list[Any] = []

    def append(self, text: str | None) -> None:
        self.waiting.append(text)
        if len(self.waiting) == 65536:
            self._seal()

    def column(self) -> pa.ChunkedArray:
        import pyarrow as pa

        self._seal()
        return pa.chunked_array(self.chunks, pa.string())

    def _seal(self) -> None:
        import pyarrow as pa

        self.chunks.append(pa.array(self.waiting, pa.string()))
        self.waiting = []


def _row(cells: Sequence[Any] | str, plan: _Plan) -> tuple[str, list[str], int]:
    """Item, labels and split number (-1: none) of one row; BadData says why it cannot be used."""
    if isinstance(cells, str):
        raise BadData(cells)
    item = cells[plan.item]
    if not isinstance(item, str) or not item.strip():
        raise BadData(
            "no image file named" if item in (None, "") or isinstance(item, str) else "the image is not a path"
        )
    labels = _labels(cells[plan.label], plan) if plan.label is not None else []
    side = -1
    if plan.split is not None and (word := str(cells[plan.split] or "").strip()):
        split = split_of(word)
        if split is None:
            raise BadData(f"split '{word}', expected train, val or test")
        side = SPLITS.index(split)
    return _file(item.strip(), plan.folder), labels, side


def _file(item: str, folder: str) -> str:
    path = os.path.join(folder, item)
    if not os.path.isfile(path) and "\\" in item and os.path.isfile(os.path.join(folder, item.replace("\\", "/"))):
        return item.replace("\\", "/")
    if os.path.isfile(path):
        return item
    if re.match(r"\w+://", item):
        raise BadData(f"{item} is a web address: download it first")
    raise BadData(f"{item} is a folder" if os.path.isdir(path) else f"{item} does not exist")


def _labels(value: Any, plan: _Plan) -> list[str]:
    value = _parsed(value)
    if isinstance(value, list):
        if not plan.multilabel:
            raise BadData("a list of labels where the other rows hold one label")
        parts = value
    elif value is None or value != value or not str(value).strip():  # NaN is not itself
        raise BadData("no label")
    elif plan.separator and isinstance(value, str):
        parts = value.split(plan.separator)
        parts = [part.strip() for part in parts if part.strip()]
    else:
        parts = [value]
    return list(dict.fromkeys(_text(part) for part in parts))


def _text(label: Any) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():  # whole numbers beside empty cells become floats in pandas
        return str(int(label))
    if isinstance(label, str | int | float):
        return str(label)
    raise BadData(f"label {str(label)[:40]!r} is a {type(label).__name__}, expected text or a number")


def _parsed(value: Any) -> Any:
    """A cell that spells a list, '["cat", "dog"]', as that list."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def _is_formula(label: str) -> bool:
    """What a spreadsheet would execute if predictions were written to csv; -1 and +1 are labels."""
    return label[:1] in ("=", "@", "\t", "\r") or (label[:1] in ("+", "-") and any(c in label for c in "(|!"))


def _guess_item(uri: str, columns: list[str], sample: list[Any], taken: set[Any], notes: list[str]) -> int:
    shares = {i: sum(is_image(row[i]) for row in sample) / len(sample) for i in range(len(columns)) if i not in taken}
    best = max(shares, key=lambda i: (shares[i], columns[i].lower() in _ITEM_NAMES, -i), default=None)
    if best is not None and shares[best] >= 0.5:
        notes.append(f"item column '{columns[best]}': {shares[best]:.0%} of its values are image files")
        return best
    held = any(isinstance(cell, bytes | dict) for cell in sample[0])
    hint = (
        "Images inside the table must be written out as files"
        if held
        else "Name the column of image files if it has one"
    )
    raise BadData(
        f"{uri}: no column holds image files (columns: {', '.join(columns)}). This version handles images only. {hint}"
    )


def _guess_split(columns: list[str], sample: list[Any], taken: set[Any], notes: list[str]) -> int | None:
    for i, column in enumerate(columns):
        words = {str(row[i]).strip() for row in sample if row[i] not in (None, "")}
        if i not in taken and column.lower() in _SPLIT_NAMES and words and all(map(split_of, words)):
            notes.append(f"split column '{column}': its values are {', '.join(sorted(words))}")
            return i
    return None


def _guess_label(columns: list[str], sample: list[Any], taken: set[Any], notes: list[str]) -> int | None:
    free = [i for i in range(len(columns)) if i not in taken]
    by_name = [i for word in _LABEL_NAMES for i in free if columns[i].lower() == word]
    if by_name:
        notes.append(f"label column '{columns[by_name[0]]}': its name")
        return by_name[0]
    distinct = {i: len({str(row[i]) for row in sample}) for i in free}
    few = [i for i in free if len(free) == 1 or 2 <= distinct[i] <= len(sample) / 2]
    if not few:
        notes.append("no label column found: items without labels")
        return None
    best = min(few, key=lambda i: distinct[i])
    why = "the only other column" if len(free) == 1 else f"only {distinct[best]} different values in {len(sample)} rows"
    notes.append(f"label column '{columns[best]}': {why}")
    return best


def _guess_separator(values: list[Any], notes: list[str]) -> str:
    """| or ; when the pieces around it recur in other cells."""
    cells = {value.strip() for value in values if isinstance(value, str) and not value.startswith("[")}
    for separator in ("|", ";"):
        several = [cell for cell in cells if separator in cell]
        used = Counter(part.strip() for cell in cells for part in cell.split(separator))
        recurring = sum(any(used[part.strip()] > 1 for part in cell.split(separator)) for cell in several)
        if several and recurring >= len(several) / 2 and len(several) > 1:
            notes.append(f"labels are separated by '{separator}', e.g. '{min(several)}': multi-label")
            return separator
    return ""


def _guess_folder(uri: str, files: list[str], notes: list[str]) -> str:
    """The table's folder, or the subfolder of it in which the files lie."""
    home = os.path.dirname(os.path.abspath(uri))

    def share(folder: str) -> float:
        tried = files[:: max(1, len(files) // 50)]
        return sum(os.path.isfile(os.path.join(folder, f.replace("\\", "/"))) for f in tried) / max(1, len(tried))

    if share(home) == 0:
        with os.scandir(home) as entries:
            inside = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        best = max(inside[:1000], key=share, default=home)
        if share(best) >= 0.5:
            notes.append(f"the files lie in '{os.path.basename(best)}' beside the table")
            return best
    return home


def _no_rows(reader: Any) -> str:
    first = next(reader.rows(), None)
    return "a header and no rows" if first is None else f"no usable row; {reader.unit} {first[0]}: {first[1]}"
