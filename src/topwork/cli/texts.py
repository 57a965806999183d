"""What an argument of `topwork predict` means to a model of texts.

"What a film!"              the text
review.txt                  a file that is there: one text, in whatever encoding the bytes tell
reviews.csv                 a table (csv, tsv, json, jsonl, parquet): a text a row
reviews/                    a folder: every .txt file in it, a text a file
-                           standard input: a text a line, an empty line too
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

from topwork.errors import BadData, StoreError
from topwork.store import remote
from topwork.types import Skipped

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_FILE = re.compile(r"\S+\.(?:txt|csv|tsv|json|jsonl|ndjson|parquet)")
_MANY = 20  # lines of a file that are probably a text each


class _File(StringIO):
    """What a file holds, under its name."""

    name = ""


def asked(
    arguments: Iterable[str], column: str | None, skip: Callable[[Skipped], None], say: Callable[[str], None]
) -> Iterator[Any]:
    """The texts that the arguments name, one by one, as a model takes them."""
    for argument in arguments:
        if argument == "-":
            yield from lines(sys.stdin.buffer)
        elif remote.is_remote(argument) or "::" in argument:
            yield from _remote(remote.welcome(argument), column, skip, say)
        elif os.path.isdir(argument):
            yield from _folder(argument, skip)
        elif not os.path.exists(argument):
            yield Path(argument) if _FILE.fullmatch(argument) else argument  # a file that is not there is no text
        elif argument.lower().endswith(TABLES):
            yield from _rows(argument, column, skip)
        else:
            yield from _content(argument, skip, say)


def lines(stream: Iterable[bytes]) -> Iterator[str | bytes]:
    """Each line as text; as bytes where it is not UTF-8, for the model to refuse."""
    for number, line in enumerate(stream):
        data = line.rstrip(b"\r\n")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            yield data
        else:
            yield text.removeprefix("\ufeff") if number == 0 else text


def _folder(folder: str, skip: Callable[[Skipped], None]) -> Iterator[_File]:
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() == ".txt" and path.is_file())
    if not found:
        raise BadData(f"{folder}: no .txt file in this folder or below it. Put a text in quotation marks")
    for path in found:
        yield from _content(str(path), skip)


def _remote(
    path: str, column: str | None, skip: Callable[[Skipped], None], say: Callable[[str], None]
) -> Iterator[Any]:
    """What lies at an address or in an archive: as here."""
    from topwork.sources._walk import join, walk

    if not remote.isdir(path):
        yield from _rows(path, column, skip) if path.lower().endswith(TABLES) else _content(path, skip, say)
        return
    others = [f"{path}/{join(rel, name)}" for rel, here in walk(path) for name, _ in here.others]
    found = [name for name in others if name.lower().endswith(".txt")]
    if not found:
        raise BadData(f"{path}: no .txt file in this folder or below it")
    with remote.ahead(found):
        for one in found:
            yield from _content(one, skip)


def _content(path: str, skip: Callable[[Skipped], None], say: Callable[[str], None] | None = None) -> Iterator[_File]:
    from topwork.sources._encoding import encoding_of

    try:
        if not remote.isfile(path):
            raise BadData("is no file")
        encoding = encoding_of(path)
        if encoding.damaged:
            raise BadData("not UTF-8. Save it again as UTF-8")
        with encoding.open(path) as file:
            text = file.read()
    except StoreError:
        raise
    except (BadData, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        skip(Skipped(path, why.removeprefix(f"{path}: ")))
        return
    count = sum(1 for line in text.splitlines() if line.strip())
    if say is not None and count >= _MANY:
        say(f"{path}: read as one text of {count:,} lines. For a text a line: topwork predict MODEL - < {path}")
    held = _File(text)
    held.name = path
    yield held


def _rows(path: str, column: str | None, skip: Callable[[Skipped], None]) -> Iterator[str]:
    from topwork import sources

    skipped: list[Skipped] = []
    for text in chain(sources.texts(path, skipped, item_column=column), [None]):
        for one in skipped:
            skip(one)
        skipped.clear()
        if text is not None:
            yield text
