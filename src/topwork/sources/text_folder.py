"""A folder of texts: a subfolder per class, a file per class, or tables called train, dev and test.

    {train,test}/{pos,neg}/1.txt     one text per file; folders called unsup or unlabelled have no label
    rt-polarity.pos, rt-polarity.neg one text per line, the file is the label
    train.tsv, dev.tsv, test.tsv     also jsonl, parquet (train-00000-of-00002.parquet), train.label; or one table alone
    reviews.txt                      one text per line, no label

What it is, is told by names and first lines (`_layout.py`) and said in `notes`; files not used are in `skipped`.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from topwork.errors import BadData
from topwork.modalities.text import PAIR
from topwork.sources import SPLITS, _source
from topwork.sources._build import Builder
from topwork.sources._encoding import decode
from topwork.sources._layout import Layout, is_about, layout
from topwork.sources._texts import Asked, Part, gather, texts_of
from topwork.sources._walk import walk
from topwork.sources.table import Table
from topwork.store import remote
from topwork.types import Dataset, Skipped

MAX_BYTES = 100_000_000  # of a file that is one text


@dataclass(frozen=True)
class TextFolder:
    """Texts in files, tables or lines."""

    item_column: str | None = None  # column of texts; two with a comma between: a pair; None: guessed
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident
    numeric: bool | None = None  # whether labels are numbers that measure something; None: guessed
    time_column: str | None = None  # when an item came to be, for by_time
    domain_column: str | None = None  # the world that it is from, for by_domain
    features: tuple[str, ...] | None = None  # items are rows of these columns; (): guessed; None: if there is no text

    def accepts(self, uri: str) -> bool:
        """A folder without images whose files are texts or tables."""
        return layout(uri) is not None

    def modality(self, uri: str) -> str:
        """Texts, but for a folder with a table of image files or of feature columns."""
        found = layout(uri)
        if found is not None and found.kind == "tables" and found.parts:
            first = found.parts[0].path
            if (table := self._table()).accepts(first):
                return table.modality(first)
        return "text"

    def read(self, uri: str) -> Dataset:
        """All texts, in the order train, val, test of their files."""
        found = layout(uri)
        if found is None:
            raise BadData(f"{uri}: is not a folder of texts")
        if found.kind == "several" or not found.parts:
            raise BadData(_choose(uri, found))
        root = remote.absolute(uri)
        prefix = os.path.relpath(found.base, root)
        skipped = [Skipped(os.path.normpath(os.path.join(prefix, s.item)), s.reason) for s in found.skipped]
        if found.kind == "files":
            data = _files(root, found)
        elif self.modality(uri) == "image":
            if len(found.parts) > 1:
                raise BadData(f"{uri}: several tables of images. Expected one table, with a split column")
            data = self._table().read(found.parts[0].path)
        else:
            data = gather(uri, root, found.parts, Asked.of(self), found.notes)
        return data.replace(skipped=(*skipped, *data.skipped))

    def _table(self) -> Table:
        return Table(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Table)})


def stream(uri: str, skipped: list[Skipped], options: Mapping[str, Any]) -> Iterator[str]:
    """Every text of a file or of a folder at any depth, one after the other."""
    asked = Asked(options.get("item_column"))
    found = layout(uri)
    if found is not None and found.kind == "files":
        skipped += found.skipped
        for part in found.parts:
            try:
                yield _text(part.path)[0]
            except BadData as error:
                skipped.append(Skipped(os.path.relpath(part.path, uri), str(error)))
    elif remote.isdir(uri):
        count = 0
        for folder, listing in walk(uri):
            for name, reason in listing.others:
                if name and reason.startswith("not an image") and not is_about(name):
                    for text in _lines_of(os.path.join(uri, folder, name), asked, skipped):
                        count += 1
                        yield text
        if not count:
            raise BadData(f"{uri}: no text in this folder or below it. Expected .txt files or tables")
    elif remote.exists(uri):
        yield from texts_of(uri, asked, skipped)
    else:
        _source(uri, {})  # says what is wrong


def _lines_of(path: str, asked: Asked, skipped: list[Skipped]) -> Iterator[str]:
    try:
        yield from texts_of(path, asked, skipped)
    except BadData as error:
        skipped.append(Skipped(os.path.basename(path), str(error)))


def _files(root: str, found: Layout) -> Dataset:
    """One text per file."""
    builder = Builder(texts=True)
    skipped: list[Skipped] = []
    encodings: Counter[str] = Counter()
    with remote.ahead(part.path for part in found.parts):
        for part in found.parts:
            item = os.path.relpath(part.path, root)
            try:
                text, encoding = _text(part.path)
            except BadData as error:
                skipped.append(Skipped(item, str(error)))
                continue
            encodings[encoding] += 1
            builder.add(item, [] if part.label is None else [part.label], _side(part), text=text)
    if not len(builder):
        why = f"e.g. {skipped[0].item}: {skipped[0].reason}" if skipped else "it has no files"
        raise BadData(f"{root}: no usable text of {len(skipped):,}, {why}")
    notes = list(found.notes)
    for encoding, count in encodings.most_common():
        if encoding not in ("utf-8", "utf-8-sig"):
            notes.append(f"{count:,} files are not UTF-8: read as {encoding.upper()}, told by their bytes")
    table, labels = builder.table(multilabel=False)
    name = remote.title(root)
    history = (f"read folder {name}: {len(table):,} texts, {len(labels)} classes",)
    return Dataset(table, root, labels, False, name, tuple(skipped), tuple(notes), history, "text")


def _text(path: str) -> tuple[str, str]:
    """The text of a file and its encoding."""
    try:
        large = remote.getsize(path) > MAX_BYTES
    except OSError as error:
        raise BadData(f"cannot be read: {error.strerror or error}") from error
    if large:
        raise BadData(f"more than {MAX_BYTES // 10**6} MB in one text")
    data = remote.read(path)
    text, encoding = decode(data)
    text = text.replace(PAIR, " ").strip()
    if not text:
        raise BadData("empty file (0 bytes)" if not data else "no text")
    if "\0" in text:
        raise BadData("holds NUL bytes")
    return text, encoding


def _side(part: Part) -> int:
    return -1 if part.split is None else SPLITS.index(part.split)


def _choose(uri: str, found: Layout) -> str:
    names = ", ".join(found.names[:8]) + " ..." * (len(found.names) > 8)
    example = os.path.join(uri, os.path.relpath(found.base, uri), found.names[0])
    example = os.path.normpath(example)
    if found.kind == "several":
        return f"{uri}: holds several sets of texts ({names}). Name one, e.g. {example}"
    return f"{uri}: holds several tables and none is called train ({names}). Name one, e.g. {example}"
