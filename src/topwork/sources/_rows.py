"""Rows of a table file with the line each one starts on: csv, tsv, json, jsonl, parquet.

Each reader has `columns`, `notes` (what was guessed), `unit` (what its numbers count) and `rows()`, which starts anew
each time. The csv module and not Arrow's: it knows the line below a quoted line break too, and hands over ragged rows.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from topwork.errors import BadData
from topwork.modalities.image import SUFFIXES
from topwork.sources import _json
from topwork.sources._encoding import Encoding, encoding_of, is_damaged
from topwork.store import remote

SAMPLE_ROWS = 1000  # enough to tell columns apart
LONGEST_CELL = 1 << 22  # characters; an open quote ends there at the latest
STRAY = 0.01  # share of the rows that may hold something where no column has a name
NOT_UTF8 = "not valid UTF-8"
NAMES = frozenset(  # what columns are called: a line that holds one of them is a header
    (
        "text", "sentence", "review", "content", "label", "labels", "class", "category", "target", "path", "file",
        "image", "id", "index", "title", "body", "question", "answer", "premise", "hypothesis", "split", "set", "group",
        "sentiment", "rating", "score", "comment", "query", "intent", "文本", "内容", "评论", "标签", "类别",
    )
)  # fmt: skip

Row = tuple[int, Sequence[Any] | str]  # line number, and the cells, or why there are none


def is_image(value: Any) -> bool:
    """Whether a cell reads like the name of an image file."""
    return isinstance(value, str) and os.path.splitext(value.strip())[1].lower() in SUFFIXES


class Csv:
    """Rows of a delimited text file, with the line on which each one starts."""

    unit = "line"

    def __init__(self, path: str, names: Collection[str] = (), delimiter: str | None = None) -> None:
        """With a delimiter given the file is one of lines, which has a header only where its names say so."""
        self.path = path
        self.encoding: Encoding = encoding_of(path)
        self.notes = [self.encoding.said] if self.encoding.said else []
        with self.encoding.open(path, newline="") as file:
            first = next((line for line in file if line.strip()), "")
        if "\0" in first:
            raise BadData(f"{path} line 1: holds NUL bytes. Expected text; save the table again as UTF-8 csv")
        tabs = path.lower().endswith(".tsv")
        self.delimiter = delimiter or ("\t" if tabs else _delimiter(first))
        if self.delimiter != "," and not tabs:
            self.notes.append(f"columns are separated by {self.delimiter!r}")
        self.quoting = self.delimiter != "\t" or _is_quoted(self)
        if not self.quoting:
            self.notes.append("quotation marks belong to the text")
        self.headless = False
        header = next(iter(self._all()), (1, []))[1]
        if not header or isinstance(header, str):
            raise BadData(f"{path}: no header line{f' ({header})' if header else ''}. Expected column names in line 1")
        if any(is_image(cell) for cell in header):
            self.headless = True
            self.notes.append("line 1 holds an image file: read as data, the table has no header")
        elif why := _is_data(
            header, [cells for _, cells in islice(self._all(), 1, SAMPLE_ROWS)], names, delimiter is not None
        ):
            self.headless = True
            self.notes.append(f"{why}: read as data, the table has no header")
        self.columns = [f"column {i + 1}" if self.headless else c.strip() for i, c in enumerate(header)]
        self.empty = self._empty_at_the_end()
        if self.empty:
            del self.columns[-self.empty :]
            self.notes.append(f"{self.empty:,} columns without a name at the end, all but empty, are left out")
        _refuse_twice(path, self.columns)

    def _empty_at_the_end(self) -> int:
        """Columns that a spreadsheet has left behind: no name, and hardly a value in the first rows."""
        named = max((i for i, name in enumerate(self.columns, 1) if name), default=0)
        if self.headless or named in (0, len(self.columns)):
            return 0
        rows = [cells for _, cells in islice(self._all(), 1, SAMPLE_ROWS) if not isinstance(cells, str)]
        filled = sum(any(cell.strip() for cell in cells[named:]) for cells in rows)
        return len(self.columns) - named if filled <= STRAY * len(rows) else 0

    def rows(self) -> Iterator[Row]:
        """Rows below the header."""
        width = len(self.columns)
        for line, cells in islice(self._all(), 0 if self.headless else 1, None):
            if isinstance(cells, str):
                yield line, cells
            elif self.encoding.damaged and any(map(is_damaged, cells)):
                yield line, NOT_UTF8
            elif len(cells) == width + self.empty:
                yield line, cells[:width]
            else:
                yield line, f"{len(cells)} fields, expected {width + self.empty}"

    def _all(self) -> Iterator[Row]:
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # 131,072 unless told
        quoting = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        with self.encoding.open(self.path, newline="") as file:
            reader = csv.reader(self._lines(file), delimiter=self.delimiter, strict=True, quoting=quoting)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    why = f"a cell of over {LONGEST_CELL:,} characters" if "limit" in str(error) else str(error)
                    yield line, f"broken quotes: {why} (line {reader.line_num})"
                else:
                    if cells:
                        yield line, cells

    def _lines(self, file: Any) -> Iterator[str]:
        for number, line in enumerate(file, 1):
            if "\0" in line:
                raise BadData(
                    f"{self.path} line {number}: holds NUL bytes. Expected text; save the table again as UTF-8"
                )
            yield line


class Jsonl:
    """Rows of a file with one JSON object per line."""

    unit = "line"

    def __init__(self, path: str, names: Collection[str] = ()) -> None:  # noqa: ARG002 every line has them
        self.path = path
        self.encoding: Encoding = encoding_of(path)
        self.notes = [self.encoding.said] if self.encoding.said else []
        seen: dict[str, None] = {}
        for _, row in islice(self._objects(), SAMPLE_ROWS):
            seen |= dict.fromkeys(row if isinstance(row, dict) else ())
        self.columns = list(seen)
        if not seen:
            each = "one per line" if self.unit == "line" else "a list of them"
            raise BadData(f'{path}: no JSON object. Expected {each}, e.g. {{"path": "1.jpg", "label": "cat"}}')

    def rows(self) -> Iterator[Row]:
        """One row per object; a column that it lacks is empty."""
        for line, row in self._objects():
            yield line, row if isinstance(row, str) else [row.get(column) for column in self.columns]

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        with self.encoding.open(self.path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                if self.encoding.damaged and is_damaged(line):
                    yield number, NOT_UTF8
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield number, f"not JSON: {error}"
                else:
                    yield number, row if isinstance(row, dict) else "not a JSON object"


class Json(Jsonl):
    """Rows of a file that is one list of JSON objects; they count from 1."""

    unit = "row"

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        with self.encoding.open(self.path) as file:
            try:
                for number, text, row in _json.elements(file):
                    if self.encoding.damaged and is_damaged(text):
                        yield number, NOT_UTF8
                    else:
                        yield number, row if isinstance(row, dict) else "not a JSON object"
            except _json.Broken as error:
                where = "" if error.row is None else f" row {error.row}"
                raise BadData(f"{self.path}{where}: {error}") from None


def _json_rows(path: str, names: Collection[str] = ()) -> Json | Jsonl:
    """JSON lines are often called .json, too."""
    with encoding_of(path).open(path) as file:
        lines = _json.is_lines(file)
    return Jsonl(path, names) if lines else Json(path, names)


class Parquet:
    """Rows of a Parquet file; its rows count from 1."""

    unit = "row"

    def __init__(self, path: str, names: Collection[str] = ()) -> None:  # noqa: ARG002 they are in the file
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.encoding = path, Encoding("utf-8")
        self.notes: list[str] = []
        try:
            schema = pq.read_schema(remote.local(path))
        except (pa.ArrowException, OSError) as error:
            raise BadData(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
        self.columns = list(schema.names)
        _refuse_twice(path, self.columns)

    def rows(self) -> Iterator[Row]:
        """Rows in batches: the file is never in memory as a whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(remote.local(self.path)) as file:
                for batch in file.iter_batches(batch_size=SAMPLE_ROWS):
                    columns = [column.to_pylist() for column in batch.columns]
                    for cells in zip(*columns, strict=True):
                        number += 1
                        yield number, cells
        except (pa.ArrowException, OSError) as error:
            raise BadData(f"{self.path} row {number + 1}: damaged: {str(error).splitlines()[0]}") from error


READERS: dict[str, Any] = {
    ".csv": Csv, ".tsv": Csv, ".json": _json_rows, ".jsonl": Jsonl, ".ndjson": Jsonl, ".parquet": Parquet,
}  # fmt: skip


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)


def _is_quoted(reader: Csv) -> bool:
    """False where tabs alone divide every line alike and a quotation mark at a field's edge is not one of a pair."""
    widths: set[int] = set()
    paired = True
    with reader.encoding.open(reader.path, newline="") as file:
        for line in islice((line for line in file if line.strip()), 20 * SAMPLE_ROWS):
            fields = line.rstrip("\r\n").split("\t")
            widths.add(len(fields))
            for field in fields:
                if field.startswith('"'):
                    inner = field[1:-1] if len(field) > 1 and field.endswith('"') else '"'
                    paired &= '"' not in inner.replace('""', "")
    return paired or len(widths) > 1


def _is_data(header: Sequence[Any], sample: Sequence[Any], names: Collection[str], bare: bool) -> str:
    """Why the first line is an item and no header, or "": it holds a number, or a value that recurs below."""
    words = [cell.strip() for cell in header]
    rows = [cells for cells in sample if not isinstance(cells, str) and len(cells) == len(header)]
    if len(rows) < 2 or words == [str(i) for i in range(len(words))]:
        return ""
    if any(is_image(cell) for cells in rows[:100] for cell in cells):
        return ""
    named = any(word.lower() in NAMES or word in names for word in words)
    for at, word in enumerate(words):
        below = sum(cells[at].strip() == word for cells in rows if list(cells) != list(header))
        if word and below > (len(rows) / 100 if named else 1):
            return f"'{word[:40]}' in line 1 is there again {below:,} times"
        if not named and re.fullmatch(r"[-+]?\d+(\.\d+)?", word):
            return f"line 1 holds the number {word}"
    return "" if named or not bare else "line 1 has no names of columns"


def _refuse_twice(path: str, columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise BadData(f"{path}: two columns are called '{twice[0]}'. Expected different names")
