"""Rows of one or several files to a dataset of texts, or of rows of features: one plan, made of the first file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from topwork.errors import BadData, BadSetting
from topwork.modalities.text import PAIR
from topwork.sources import SPLITS, _carry, _features, split_of
from topwork.sources._build import Builder
from topwork.sources._columns import (
    TEXT_LABEL_NAMES,
    guess_group,
    guess_kind,
    guess_label,
    guess_split,
    guess_text,
)
from topwork.sources._encoding import is_damaged
from topwork.sources._labels import as_number, is_formula, targets_of
from topwork.sources._lines import Lines, Reviews, open_rows
from topwork.sources._one_hot import together
from topwork.sources._rows import SAMPLE_ROWS
from topwork.store import remote
from topwork.types import Dataset, Skipped

FREE_TEXT_ROWS = 20  # below which labels that are all different are few examples, no free text
HALF_A_PAIR = "holds half a surrogate pair, which is no text"


@dataclass(frozen=True)
class Asked:
    """What the user has named; the options of the sources of texts."""

    item_column: str | None = None  # column of texts; two: a pair, "A,B"; more: feature columns; None: guessed
    label_column: str | None = None  # several with commas between: zeros and ones, one column for each label
    split_column: str | None = None
    group_column: str | None = None  # items of one group stay on one side of a split
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident
    numeric: bool | None = None  # whether labels are numbers that measure something; None: guessed
    time_column: str | None = None  # when an item came to be, for by_time
    domain_column: str | None = None  # the world that it is from, for by_domain
    features: tuple[str, ...] | None = None  # items are rows of these columns; (): guessed; None: if there is no text

    @classmethod
    def of(cls, options: Any) -> Asked:
        """From a source's own fields."""
        return cls(**{field.name: getattr(options, field.name, None) for field in dataclasses.fields(cls)})

    @property
    def names(self) -> list[str]:
        """Every column named."""
        named = [self.split_column, self.group_column, self.time_column, self.domain_column]
        named += [*(self.item_column or "").split(","), *(self.label_column or "").split(","), *(self.features or ())]
        return [name.strip() for name in named if name and name.strip()]


@dataclass(frozen=True)
class Part:
    """A file of texts, and what its name says about them."""

    path: str
    split: str | None = None
    label: str | None = None  # of all its texts
    unlabelled: bool = False


@dataclass
class Plan:
    """Which column is what."""

    text: tuple[int, ...]
    label: int | None
    split: int | None
    group: int | None
    multilabel: bool
    separator: str
    numeric: bool = False
    notes: list[str] = field(default_factory=list)
    carry: dict[str, int | None] = field(default_factory=dict)  # further columns, see _carry.py
    features: tuple[_features.Feature, ...] = ()  # in place of texts

    @property
    def modality(self) -> str:
        """What the items are."""
        return "row" if self.features else "text"

    @classmethod
    def of(cls, asked: Asked, path: str, reader: Any, sample: Sequence[Sequence[Any]], labels: bool = True) -> Plan:
        """Named columns as named, the others guessed; BadData where no column holds texts and none is a feature."""
        columns, notes = list(reader.columns), list(reader.notes)
        aloud = [] if isinstance(reader, Lines) else notes  # of lines it is known which is what

        def named(name: str | None) -> int | None:
            if name is not None and name not in columns:
                raise BadSetting(f"{path} has no column '{name}'. Its columns: {', '.join(columns)}")
            return None if name is None else columns.index(name)

        split, group, label = named(asked.split_column), named(asked.group_column), named(asked.label_column)
        text, rows = _named_items(asked, reader, named)
        taken = {*text, split, group, label} - {None}
        if split is None:
            split = guess_split(columns, sample, taken, aloud)
            taken.add(split)
        if group is None:
            group = guess_group(columns, taken, aloud)
            taken.add(group)
        carry = _carry.find(asked, path, columns, sample, taken, aloud)
        taken.update(carry.values())
        if not text and rows is None:
            by_name = [i for i, c in enumerate(columns) if i not in taken and c.lower() in TEXT_LABEL_NAMES[:10]]
            text = guess_text(columns, sample, taken | set(by_name[:1] if label is None and labels else ()), aloud)
            taken.update(text)
        if label is None and labels and not isinstance(reader, Reviews):
            free = taken | {i for i, name in enumerate(columns) if name in (rows or ())}
            label = (guess_label if text else _features.guess_label)(columns, sample, free, aloud, TEXT_LABEL_NAMES)
            taken.add(label)
        features = () if text else _features.find(path, columns, sample, taken, rows or (), notes)
        if not text and not (features if asked.features is not None else any(f.numeric or f.coded for f in features)):
            raise no_texts(path, columns, sample) if rows is None else _several(asked.item_column, len(rows))
        values = [row[label] for row in sample] if label is not None else []
        name = None if label is None else columns[label]
        multilabel, separator, numeric = guess_kind(name, values, asked.separator, asked.numeric, notes)
        return cls(text, label, split, group, multilabel, separator, numeric, notes, dict(carry), features)

    def for_columns(self, names: Sequence[str], path: str, columns: Sequence[str]) -> Plan | None:
        """The same columns of another file, by name; None where it has no labels; BadData where texts are missing."""
        at = {name: i for i, name in enumerate(columns)}
        needed = [*self.text, *(feature.at for feature in self.features)]
        missing = [names[i] for i in needed if names[i] not in at]
        if missing:
            raise BadData(
                f"{path} has no column '{missing[0]}' as the training file has. Its columns: {', '.join(columns)}"
            )
        if self.label is not None and names[self.label] not in at:
            return None

        def moved(i: int | None) -> int | None:
            return None if i is None else at.get(names[i])

        return dataclasses.replace(
            self,
            text=tuple(at[names[i]] for i in self.text),
            label=moved(self.label),
            split=moved(self.split),
            group=moved(self.group),
            notes=[],
            carry={name: moved(i) for name, i in self.carry.items()},
            features=tuple(dataclasses.replace(feature, at=at[feature.name]) for feature in self.features),
        )


def modality_of(asked: Asked, path: str, reader: Any, sample: Sequence[Sequence[Any]]) -> str:
    """What the items of a table without images are; "text" where there are none: reading it says why."""
    try:
        return Plan.of(asked, path, reader, sample).modality
    except (BadData, BadSetting):
        return "text"


def _named_items(
    asked: Asked, reader: Any, named: Callable[[str], int | None]
) -> tuple[tuple[int, ...], tuple[str, ...] | None]:
    """The columns of texts, as far as they are known; the feature columns, (): to be guessed, None: if nothing else."""
    if asked.item_column is None or asked.features:
        known = asked.features is None and (isinstance(reader, Reviews) or list(reader.columns) == ["text"])
        return (0,) * known, asked.features
    whole = asked.item_column in reader.columns or "," not in asked.item_column
    wanted = [asked.item_column] if whole else [name.strip() for name in asked.item_column.split(",")]
    at = tuple(i for name in wanted if (i := named(name)) is not None)
    return ((), tuple(wanted)) if asked.features is not None or len(wanted) > 2 else (at, None)


def _several(named: str | None, many: int) -> BadSetting:
    fix = "Expected one, two for pairs of texts, or feature columns with a number among them"
    return BadSetting(f"'{named}' names {many} columns. {fix}")


def no_texts(path: str, columns: Sequence[str], sample: Sequence[Sequence[Any]]) -> BadData:
    """What is said of a table without a column of images or texts."""
    held = any(isinstance(cell, bytes | dict) for row in sample[:1] for cell in row)
    hint = (
        "Images inside the table must be written out as files"
        if held
        else "Name the column of image files or texts, or all feature columns: --item-column"
    )
    return BadData(f"{path}: no column holds image files, texts or numbers (columns: {', '.join(columns)}). {hint}")


def sample_of(reader: Any) -> list[Sequence[Any]]:
    """The first rows that can be read."""
    return [cells for _, cells in islice(reader.rows(), SAMPLE_ROWS) if not isinstance(cells, str)]


def no_rows(reader: Any) -> str:
    """Why there is nothing to read."""
    first = next(reader.rows(), None)
    return "a header and no rows" if first is None else f"no usable row; {reader.unit} {first[0]}: {first[1]}"


def gather(
    uri: str, root: str, parts: Sequence[Part], asked: Asked, notes: Sequence[str] = (), reader: Any = None
) -> Dataset:
    """All texts of the parts, in their order; unusable rows are in `skipped`. `reader`: of the first part."""
    by_file = any(part.label is not None for part in parts)
    first = together(open_rows(parts[0].path, asked.names) if reader is None else reader, asked.label_column)
    sample = sample_of(first)
    if not sample:
        raise BadData(f"{parts[0].path}: {no_rows(first)}. Columns: {', '.join(first.columns)}")
    plan = Plan.of(asked, parts[0].path, first, sample, labels=not by_file)
    measured = first.columns[plan.label] if plan.numeric and plan.label is not None else None
    builder = Builder(texts=True, groups=plan.group is not None, measured=measured, carry=tuple(plan.carry))
    skipped: list[Skipped] = []
    said = [*notes, *plan.notes]
    for part in parts:
        reader = first if part is parts[0] else together(open_rows(part.path, asked.names), asked.label_column)
        name = os.path.relpath(part.path, root)
        own = plan if reader is first else plan.for_columns(first.columns, part.path, reader.columns)
        if own is None:
            skipped.append(Skipped(name, "has no label column: left out"))
            continue
        if reader is not first:
            said += [f"{name}: {note}" for note in _new(reader, first)]
        _add(part, name, reader, own, builder, skipped)
    if not len(builder):
        why = f"e.g. {skipped[0].item}: {skipped[0].reason}" if skipped else "it has no rows"
        raise BadData(f"{uri}: no usable row of {len(skipped):,}, {why}")
    if plan.label is not None and not plan.multilabel and not plan.numeric:
        _refuse_free_text(parts[0].path, first.columns, plan, builder)
    table, labels = builder.table(plan.multilabel)
    base = remote.title(uri)
    what = "table" if len(parts) == 1 else f"{len(parts)} files of"
    told = f"numbers of {measured}" if plan.numeric else f"{len(labels)} classes"
    done = f"read {what} {base}: {len(table):,} of {len(table) + len(skipped):,} rows, {told}"
    stem = os.path.splitext(base)[0] if remote.isfile(uri) else base
    return Dataset(
        table,
        root,
        labels,
        plan.multilabel,
        stem,
        tuple(skipped),
        (*said, *builder.notes),
        (done,),
        plan.modality,
        plan.numeric,
    )


def texts_of(path: str, asked: Asked, skipped: list[Skipped]) -> Iterator[str]:
    """The texts of one file, one after the other."""
    reader = open_rows(path, asked.names)
    sample = sample_of(reader)
    if not sample:
        return
    plan = Plan.of(asked, path, reader, sample, labels=False)
    for line, cells in reader.rows():
        try:
            yield text_of(cells, plan)
        except BadData as error:
            skipped.append(Skipped(f"{os.path.basename(path)} {reader.unit} {line}", str(error)))


def text_of(cells: Sequence[Any] | str, plan: Plan) -> str:
    """The text of one row, or the pair, or its features written as a text; BadData says why there is none."""
    if isinstance(cells, str):
        raise BadData(cells)
    if plan.features:
        return _features.row_of(cells, plan.features)
    return PAIR.join(_clean(cells[at]) for at in plan.text)


def _clean(cell: Any) -> str:
    if isinstance(cell, int | float) and not isinstance(cell, bool) and cell == cell:
        cell = str(cell)
    if cell is None or cell != cell:
        raise BadData("no text")
    if not isinstance(cell, str):
        raise BadData(f"the text is a {type(cell).__name__}")
    text = cell.replace(PAIR, " ").strip()
    if not text:
        raise BadData("no text")
    if "\0" in text:
        raise BadData("holds a NUL byte")
    if is_damaged(text):
        raise BadData(HALF_A_PAIR)
    return text


def _add(part: Part, name: str, reader: Any, plan: Plan, builder: Builder, skipped: list[Skipped]) -> None:
    fixed = -1 if part.split is None else SPLITS.index(part.split)
    for line, cells in reader.rows():
        where = f"{name} {reader.unit} {line}"
        try:
            text = text_of(cells, plan)
            labels = [] if part.label is None else [part.label]
            if plan.label is not None and not part.unlabelled:
                labels = targets_of(cells[plan.label], plan.multilabel, plan.separator, plan.numeric)
            side = fixed if plan.split is None or fixed >= 0 else side_of(cells[plan.split])
        except BadData as error:
            skipped.append(Skipped(where, str(error)))
            continue
        if not plan.numeric and any(map(is_damaged, labels)):
            skipped.append(Skipped(where, f"the label {HALF_A_PAIR}"))
            continue
        if not plan.numeric and any(map(is_formula, labels)):
            at = f"{part.path} {reader.unit} {line}"
            raise BadData(f"{at}: the label {labels[0][:40]!r} is a spreadsheet formula. Expected a plain name")
        value = cells[plan.group] if plan.group is not None else None
        carried = [None if at is None else cells[at] for at in plan.carry.values()]
        builder.add(where, labels, side, None if value is None or value == "" else str(value), text, carried)


def _new(reader: Any, first: Any) -> list[str]:
    """What was guessed of a further file and not of the first."""
    alike = getattr(reader, "headless", False) and getattr(first, "headless", False)
    return [note for note in reader.notes if note not in first.notes and not (alike and "no header" in note)]


def side_of(cell: Any) -> int:
    """Number of the split that a cell names, -1 where it names none."""
    word = str(cell or "").strip()
    if not word:
        return -1
    split = split_of(word)
    if split is None:
        raise BadData(f"split '{word}', expected train, val or test")
    return SPLITS.index(split)


def _refuse_free_text(path: str, columns: Sequence[str], plan: Plan, builder: Builder) -> None:
    if builder.labelled < FREE_TEXT_ROWS or len(builder.numbers) <= builder.labelled / 2 or plan.label is None:
        return
    many = f"{len(builder.numbers):,} different values in {builder.labelled:,} rows"
    others = ", ".join(c for i, c in enumerate(columns) if i != plan.label and i not in plan.text) or "none other"
    numeric = sum(as_number(label) is not None for label in builder.numbers) > len(builder.numbers) / 2
    what = "holds numbers, not classes" if numeric else "looks like free text, not like labels"
    fix = "Take --task text-regression, or name another column" if numeric else "Name another column"
    raise BadData(
        f"{path}: column '{columns[plan.label]}' {what}: {many}. {fix} with --label-column (columns: {others})"
    )
