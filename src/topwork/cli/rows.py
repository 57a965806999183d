"""What an argument of `topwork predict` means to a model of rows.

'{"age": 41, "town": "Oslo"}'     the row
patients.csv                      a table (csv, tsv, json, jsonl, parquet): its columns by name
-                                 standard input: a row as JSON a line
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from topwork.artefact.rows import Found
from topwork.cli.texts import TABLES, lines
from topwork.errors import BadData
from topwork.store import remote
from topwork.types import Skipped


def asked(arguments: Iterable[str], names: tuple[str, ...], skip: Callable[[Skipped], None]) -> Iterator[Any]:
    """The rows that the arguments name, one by one, as a model takes them; `names`: its columns."""
    for argument in arguments:
        if argument == "-":
            yield from (line for line in lines(sys.stdin.buffer) if line.strip())
        elif argument.lstrip().startswith("{"):
            yield argument
        else:
            yield from table(argument, names, skip)


def table(path: str, names: tuple[str, ...], skip: Callable[[Skipped], None]) -> Iterator[Found]:
    """Its rows with the columns that the model knows."""
    from topwork.sources._lines import open_rows

    path = remote.welcome(path)
    if not path.lower().endswith(TABLES) or not remote.isfile(path):
        skip(Skipped(path, "is no table. Expected a csv, tsv, json, jsonl or parquet file, or a row as JSON in quotes"))
        return
    reader = open_rows(path, names)
    at = [(name, reader.columns.index(name)) for name in names if name in reader.columns]
    if not at:
        has = ", ".join(reader.columns[:8])
        raise BadData(f"{path} has no column that the model knows (columns: {has}). It knows: {', '.join(names[:8])}")
    for number, cells in reader.rows():
        where = f"{os.path.basename(path)} {reader.unit} {number}"
        if isinstance(cells, str):
            skip(Skipped(where, cells))
        else:
            row = Found({name: cells[i] for name, i in at})
            row.where = where
            yield row
