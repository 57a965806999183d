"""Rows of a table file with the line each one starts on: csv, tsv, jsonl, parquet.

Each reader has `columns`, `notes` (what was guessed), `unit` (what its numbers count) and `rows()`, which starts anew
each time. The csv module and not Arrow's: it knows the line below a quoted line break too, and hands over ragged rows.
"""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from topwork.errors import BadData
from topwork.modalities.image import SUFFIXES

SAMPLE_ROWS = 1000  # enough to tell columns apart

Row = tuple[int, Sequence[Any] | str]  # line number, and the cells, or why there are none


def is_image(value: Any) -> bool:
    """Whether a cell reads like the name of an image file."""
    return isinstance(value, str) and os.path.splitext(value.strip())[1].lower() in SUFFIXES


class _Csv:
    """Rows of a delimited text file, with the line on which each one starts."""

    unit = "line"

    def __init__(self, path: str) -> None:
        self.path = path
        self.encoding, said = _encoding(path)
        self.notes = [said] if said else []
        with open(path, encoding=self.encoding, newline="") as file:
            first = next((line for line in file if line.strip()), "")
        if "\0" in first:
            raise BadData(f"{path} line 1: holds NUL bytes. Expected text; save the table again as UTF-8 csv")
        self.delimiter = "\t" if path.lower().endswith(".tsv") else _delimiter(first)
        if self.delimiter != "," and not path.lower().endswith(".tsv"):
            self.notes.append(f"columns are separated by {self.delimiter!r}")
        self.headless = False
        header = next(iter(self._all()), (1, []))[1]
        if not header or isinstance(header, str):
            raise BadData(f"{path}: no header line{f' ({header})' if header else ''}. Expected column names in line 1")
        self.headless = any(is_image(cell) for cell in header)
        if self.headless:
            self.notes.append("line 1 holds an image file: read as data, the table has no header")
        self.columns = [f"column {i + 1}" if self.headless else c.strip() for i, c in enumerate(header)]
        _refuse_twice(path, self.columns)

    def rows(self) -> Iterator[Row]:
        """Rows below the header."""
        for line, cells in islice(self._all(), 0 if self.headless else 1, None):
            if isinstance(cells, str) or len(cells) == len(self.columns):
                yield line, cells
            else:
                yield line, f"{len(cells)} fields, expected {len(self.columns)}"

    def _all(self) -> Iterator[Row]:
        with open(self.path, encoding=self.encoding, newline="") as file:
            reader = csv.reader(self._lines(file), delimiter=self.delimiter, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield line, f"broken quotes: {error} (line {reader.line_num})"
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


class _Jsonl:
    """Rows of a file with one JSON object per line."""

    unit = "line"

    def __init__(self, path: str) -> None:
        self.path = path
        self.encoding, said = _encoding(path)
        self.notes = [said] if said else []
        seen: dict[str, None] = {}
        for _, row in islice(self._objects(), SAMPLE_ROWS):
            seen |= dict.fromkeys(row if isinstance(row, dict) else ())
        self.columns = list(seen)
        if not seen:
            raise BadData(f'{path}: no JSON object. Expected one per line, e.g. {{"path": "1.jpg", "label": "cat"}}')

    def rows(self) -> Iterator[Row]:
        """One row per object; a column that it lacks is empty."""
        for line, row in self._objects():
            yield line, row if isinstance(row, str) else [row.get(column) for column in self.columns]

    def _objects(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        with open(self.path, encoding=self.encoding) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield number, f"not JSON: {error}"
                else:
                    yield number, row if isinstance(row, dict) else "not a JSON object"


class _Parquet:
    """Rows of a Parquet file; its rows count from 1."""

    unit = "row"

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.notes = path, []
        try:
            schema = pq.read_schema(path)
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
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=SAMPLE_ROWS):
                    columns = [column.to_pylist() for column in batch.columns]
                    for cells in zip(*columns, strict=True):
                        number += 1
                        yield number, cells
        except (pa.ArrowException, OSError) as error:
            raise BadData(f"{self.path} row {number + 1}: damaged: {str(error).splitlines()[0]}") from error


READERS: dict[str, Any] = {".csv": _Csv, ".tsv": _Csv, ".jsonl": _Jsonl, ".ndjson": _Jsonl, ".parquet": _Parquet}


def _encoding(path: str) -> tuple[str, str]:
    """The text encoding, and a note where it is not plain UTF-8."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    marks = {
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF8: "utf-8-sig",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    likely = next((name for mark, name in marks.items() if head.startswith(mark)), None)
    if likely is None and len(head) > 3 and max(head[0::2].count(0), head[1::2].count(0)) > len(head) / 8:
        likely = "utf-16-be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16-le"
    for name in [likely] if likely else ["utf-8", "gb18030"]:
        if _decodes(path, name) and (name != "gb18030" or _looks_chinese(head)):
            said = {"utf-8": "", "utf-8-sig": "UTF-8 with a byte order mark"}
            return name, said.get(name, f"text encoding {name.upper()}, told by its bytes")
    raise BadData(f"{path}: its text is neither UTF-8, UTF-16 nor GB18030. Save it again as UTF-8")


def _decodes(path: str, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _looks_chinese(head: bytes) -> bool:
    """False for Western 8-bit text: it may decode too, but into rare characters (second byte in the ASCII range)."""
    wide = re.findall(rb"[\x81-\xfe]([\x30-\x39][\x81-\xfe][\x30-\x39]|[\x40-\x7e\x80-\xfe])", head)
    return sum(len(rest) == 3 or rest[0] >= 0xA1 for rest in wide) >= len(wide) / 2


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)


def _refuse_twice(path: str, columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise BadData(f"{path}: two columns are called '{twice[0]}'. Expected different names")
