"""A table with a column of image files, of texts, or columns of features, and a column of labels: csv, jsonl, parquet.

    path,label            paths are relative to the table's folder
    cats/1.jpg,cat        a list as label (jsonl, parquet; in csv "cat|dog" or "cat;dog" where evident): multi-label
    text,label            any text; item_column="premise,hypothesis": pairs
    "It was great.",good

Columns are guessed and said aloud in `notes`, or named. Rows that cannot be used are in `skipped` with file, line (as
an editor counts) and reason. Encodings are told apart by the bytes of the whole file. A table of images is one with a
column of image files; of texts, where there is none; of rows of numbers and words (`_features.py`), where there is
neither.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topwork.errors import BadData, BadSetting
from topwork.sources import _carry
from topwork.sources._build import Builder
from topwork.sources._columns import ITEM_NAMES, guess_group, guess_kind, guess_label, guess_split
from topwork.sources._encoding import refusal
from topwork.sources._labels import is_formula, targets_of
from topwork.sources._one_hot import together
from topwork.sources._rows import READERS, is_image
from topwork.sources._texts import Asked, Part, gather, modality_of, no_rows, sample_of, side_of
from topwork.store import remote
from topwork.types import Dataset, Skipped


@dataclass(frozen=True)
class Table:
    """A table of paths and labels."""

    item_column: str | None = None  # column with the image files; None: guessed
    label_column: str | None = None  # several with commas between: zeros and ones, one column for each label
    split_column: str | None = None
    group_column: str | None = None  # items of one group stay on one side of a split
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident
    numeric: bool | None = None  # whether labels are numbers that measure something; None: guessed
    time_column: str | None = None  # when an item came to be, for by_time
    domain_column: str | None = None  # the world that it is from, for by_domain
    features: tuple[str, ...] | None = None  # items are rows of these columns; (): guessed; None: if there is no text

    def accepts(self, uri: str) -> bool:
        """A file whose name ends like a table's."""
        return os.path.splitext(uri)[1].lower() in READERS and remote.isfile(uri)

    def modality(self, uri: str) -> str:
        """Whether it has a column of image files, of texts or of numbers, by its first rows."""
        reader, sample, item = self._opened(uri)
        return modality_of(Asked.of(self), uri, reader, sample) if item is None else "image"

    def read(self, uri: str) -> Dataset:
        """One item per usable row."""
        reader, sample, item = self._opened(uri)
        if item is None:
            return gather(uri, os.path.dirname(remote.absolute(uri)), [Part(uri)], Asked.of(self))
        if not reader.encoding.certain:
            raise refusal(uri)
        plan = _Plan.of(self, uri, reader, sample, item)
        return _gather(uri, reader, plan)

    def _opened(self, uri: str) -> tuple[Any, list[Sequence[Any]], int | None]:
        """Reader, first rows, and the column of image files where there is one."""
        if not remote.getsize(uri):
            raise BadData(f"{uri}: empty file (0 bytes). Expected a header line and one line per image or text")
        reader = together(READERS[os.path.splitext(uri)[1].lower()](uri, Asked.of(self).names), self.label_column)
        sample = sample_of(reader)
        if not sample:
            raise BadData(f"{uri}: {no_rows(reader)}. Columns: {', '.join(reader.columns)}")
        images = None if self.features is not None else _image_column(self, uri, reader.columns, sample)
        return reader, sample, images


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
    numeric: bool = False
    notes: list[str] = field(default_factory=list)
    carry: dict[str, int | None] = field(default_factory=dict)  # further columns, see _carry.py

    @classmethod
    def of(
        cls, asked: Table, uri: str, reader: Any, sample: list[Sequence[Any]], item: int, home: str | None = None
    ) -> _Plan:
        """Named columns as named, the others guessed from the sample; every guess is a note."""
        notes, columns = list(reader.notes), reader.columns

        def named(name: str | None) -> int | None:
            if name is not None and name not in columns:
                raise BadSetting(f"{uri} has no column '{name}'. Its columns: {', '.join(columns)}")
            return None if name is None else columns.index(name)

        split, group, label = named(asked.split_column), named(asked.group_column), named(asked.label_column)
        taken = {item, split, group, label} - {None}
        if asked.item_column is None:
            share = _share_of_images(sample, item)
            notes.append(f"item column '{columns[item]}': {share:.0%} of its values are image files")
        if split is None:
            split = guess_split(columns, sample, taken, notes)
            taken.add(split)
        if group is None:
            group = guess_group(columns, taken, notes)
            taken.add(group)
        carry = _carry.find(asked, uri, columns, sample, taken, notes)
        taken.update(carry.values())
        if label is None:
            label = guess_label(columns, sample, taken, notes)
        values = [row[label] for row in sample] if label is not None else []
        name = None if label is None else columns[label]
        multilabel, separator, numeric = guess_kind(name, values, asked.separator, asked.numeric, notes)
        files = [str(row[item]).strip() for row in sample if row[item]]
        folder = _guess_folder(home or os.path.dirname(remote.absolute(uri)), files, notes)
        return cls(item, label, split, group, multilabel, separator, folder, numeric, notes, dict(carry))


def _gather(uri: str, reader: Any, plan: _Plan) -> Dataset:
    """All rows, through the plan, as Arrow columns."""
    skipped: list[Skipped] = []
    measured = reader.columns[plan.label] if plan.numeric and plan.label is not None else None
    builder = Builder(groups=plan.group is not None, measured=measured, carry=tuple(plan.carry))
    name = os.path.basename(uri)
    for line, cells in reader.rows():
        try:
            item, labels, side = _row(cells, plan)
        except BadData as error:
            skipped.append(Skipped(f"{name} {reader.unit} {line}", str(error)))
            continue
        if not plan.numeric and any(map(is_formula, labels)):
            where = f"{uri} {reader.unit} {line}"
            raise BadData(f"{where}: the label {labels[0][:40]!r} is a spreadsheet formula. Expected a plain name")
        value = cells[plan.group] if plan.group is not None else None
        carried = [None if at is None else cells[at] for at in plan.carry.values()]
        builder.add(item, labels, side, None if value is None or value == "" else str(value), carried=carried)
    if not len(builder):
        why = f"e.g. {skipped[0].item}: {skipped[0].reason}" if skipped else "it has no rows"
        raise BadData(f"{uri}: no usable row of {len(skipped):,}, {why}. Paths are looked for in {plan.folder}")
    table, labels = builder.table(plan.multilabel)
    told = f"numbers of {measured}" if plan.numeric else f"{len(labels)} classes"
    history = (f"read table {name}: {len(table):,} of {len(table) + len(skipped):,} rows, {told}",)
    stem = os.path.splitext(name)[0]
    notes = (*plan.notes, *builder.notes)
    return Dataset(
        table, plan.folder, labels, plan.multilabel, stem, tuple(skipped), notes, history, numeric=plan.numeric
    )


def _row(cells: Sequence[Any] | str, plan: _Plan) -> tuple[str, list[Any], int]:
    """Item, labels and split number (-1: none) of one row; BadData says why it cannot be used."""
    if isinstance(cells, str):
        raise BadData(cells)
    item = cells[plan.item]
    if not isinstance(item, str) or not item.strip():
        raise BadData(
            "no image file named" if item in (None, "") or isinstance(item, str) else "the image is not a path"
        )
    labels = (
        targets_of(cells[plan.label], plan.multilabel, plan.separator, plan.numeric) if plan.label is not None else []
    )
    side = -1 if plan.split is None else side_of(cells[plan.split])
    return _file(item.strip(), plan.folder), labels, side


def _file(item: str, folder: str) -> str:
    item = remote.beside(folder, item)
    path = _at(folder, item)
    if not remote.isfile(path) and "\\" in item and remote.isfile(_at(folder, item.replace("\\", "/"))):
        return item.replace("\\", "/")
    if remote.isfile(path):
        return item
    raise BadData(f"{item} is a folder" if os.path.isdir(path) else f"{item} does not exist")


def _at(folder: str, item: str) -> str:
    """The path of an item that a table names; an address stays as it is."""
    return item if "://" in item else os.path.join(folder, item)


def _image_column(
    asked: Table, uri: str, columns: list[str], sample: list[Sequence[Any]], home: str | None = None
) -> int | None:
    """The column of image files, as named or guessed; None: texts."""
    if asked.item_column is not None:
        if asked.item_column not in columns:
            if "," in asked.item_column:  # a pair of texts
                return None
            raise BadSetting(f"{uri} has no column '{asked.item_column}'. Its columns: {', '.join(columns)}")
        at = columns.index(asked.item_column)
        cells = [str(row[at]).strip() for row in sample[:100] if row[at]]
        home = home or os.path.dirname(remote.absolute(uri))
        files = sum(is_image(cell) or _is_file(_at(home, cell)) for cell in cells)
        return at if files and files >= len(cells) / 2 else None
    taken = {asked.split_column, asked.group_column, asked.label_column}
    shares = {i: _share_of_images(sample, i) for i, column in enumerate(columns) if column not in taken}
    best = max(shares, key=lambda i: (shares[i], columns[i].lower() in ITEM_NAMES, -i), default=None)
    return best if best is not None and shares[best] >= 0.5 else None


def _share_of_images(sample: list[Sequence[Any]], at: int) -> float:
    return sum(is_image(row[at]) for row in sample) / len(sample)


def _is_file(path: str) -> bool:
    try:
        return remote.isfile(path)
    except ValueError:  # a NUL byte
        return False


def _guess_folder(home: str, files: list[str], notes: list[str]) -> str:
    """The table's folder, or the subfolder of it in which the files lie."""

    def share(folder: str) -> float:
        tried = files[:: max(1, len(files) // 50)]
        return sum(remote.isfile(_at(folder, f.replace("\\", "/"))) for f in tried) / max(1, len(tried))

    if share(home) == 0:
        with remote.scandir(home) as entries:
            inside = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        best = max(inside[:1000], key=share, default=home)
        if share(best) >= 0.5:
            notes.append(f"the files lie in '{os.path.basename(best)}' beside the table")
            return best
    return home
