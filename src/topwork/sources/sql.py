"""A query to a database: a row per item, its columns guessed and said like those of a table.

    read("postgresql://ann@db/shop", query="select body, stars from reviews")

Cells are texts, numbers, paths of images, labels, or images themselves (blobs): those are kept in the cache folder, a
file by the hash of its content. Paths are relative to the folder of an SQLite file, else to the current one. Rows come
in chunks of about CHUNK_BYTES from one read-only transaction, so that they are all of one point in time; what other
connections write meanwhile is not seen. Rows count from 1 in the order in which they come; ORDER BY makes it firm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import os
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

from topwork.errors import BadData, BadSetting
from topwork.sources._encoding import is_damaged
from topwork.sources._one_hot import together
from topwork.sources._rows import NOT_UTF8, SAMPLE_ROWS, Row
from topwork.sources._texts import Asked, Part, Plan, gather, modality_of, no_rows, sample_of, text_of
from topwork.sources.table import Table, _file, _gather, _image_column, _Plan
from topwork.store import blobs
from topwork.store.database import Database, is_database
from topwork.store.one_select import one_select
from topwork.types import Dataset, Skipped

CHUNK_BYTES = 1 << 24  # that are fetched at once, about
_FIRST, _MOST = 64, 4096  # rows of the first chunk, and at most
_NAME = "query"  # what its rows are called: "query row 12"
_ENDINGS = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"RIFF": ".webp", b"BM": ".bmp", b"GIF8": ".gif",
    b"II*\0": ".tiff", b"MM\0*": ".tiff", b"P4": ".pbm", b"P5": ".pgm", b"P6": ".ppm",
}  # fmt: skip
KEYS = ("id", "key", "uuid", "pk", "rowid")


@dataclass(frozen=True)
class Sql:
    """The rows of one select."""

    query: str | None = None  # the select; None: all of a database that has a single table
    item_column: str | None = None  # column of texts, image files or images; two texts: "A,B"; None: guessed
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None  # items of one group stay on one side of a split
    time_column: str | None = None  # when an item came to be, for by_time
    domain_column: str | None = None  # the world that it is from, for by_domain
    separator: str | None = None  # between labels in one cell; "": one label per cell; None: | or ; where evident
    numeric: bool | None = None  # whether labels are numbers that measure something; None: guessed
    features: tuple[str, ...] | None = None  # items are rows of these columns; (): guessed; None: if there is no text

    def accepts(self, uri: str) -> bool:
        """The address of a database."""
        return is_database(uri)

    def modality(self, uri: str) -> str:
        """Whether the first rows have a column of images, of texts or of numbers."""
        database = Database(uri)
        query = f"select * from (\n{self._select(database)}\n) topwork_sample limit {SAMPLE_ROWS}"
        with opened(database, query) as rows:
            sample = _sample(database, rows)
            if self._image_column(database, rows, sample) is not None:
                return "image"
            reader = together(rows, self.label_column)
            return modality_of(Asked.of(self), _NAME, reader, sample_of(reader))

    def read(self, uri: str) -> Dataset:
        """One item per usable row."""
        database = Database(uri)
        with opened(database, self._select(database)) as rows:
            sample = _sample(database, rows)
            item = self._image_column(database, rows, sample)
            if item is None:
                data = gather(database.shown, "", [Part(_NAME)], Asked.of(self), reader=rows)
            else:
                reader = together(rows, self.label_column)
                plan = _Plan.of(
                    self._table(),
                    _NAME,
                    reader,
                    sample_of(reader),
                    reader.columns.index(rows.columns[item]),
                    database.folder,
                )
                data = _gather(_NAME, reader, plan)
        done = f"{len(data):,} of {len(data) + len(data.skipped):,} rows, {len(data.labels)} classes"
        return data.replace(name=database.name, history=(f"read a query of {database.shown}: {done}",))

    def _select(self, database: Database) -> str:
        if self.query is None:
            names, quoted = _tables(database)
            if len(names) == 1:
                return f"select * from {quoted[0]}"
            example = f'--query "select * from {names[0] if names else "photos"}"'
            has = f". Its tables: {', '.join(names[:10])}{' ...' * (len(names) > 10)}" if names else ""
            raise BadSetting(f"{database.shown}: a database needs a query, e.g. {example}{has}")
        return one_select(self.query)

    def _table(self) -> Table:
        """The options of a table, which are ours."""
        names = {f.name for f in dataclasses.fields(self)}
        return Table(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Table) if f.name in names})

    def _image_column(self, database: Database, rows: Rows, sample: list[Sequence[Any]]) -> int | None:
        if self.features is not None:
            return None
        return _image_column(self._table(), _NAME, list(rows.columns), sample, database.folder)


@dataclass
class Rows:
    """What a query gives, once, in chunks: a reader as those of `_rows.py`."""

    columns: list[str]
    head: list[Row]  # the first rows, which may be read again
    rest: Iterator[Row]
    unit: str = "row"
    path: str = _NAME
    notes: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Number and cells of every row; anew only as long as the first ones are asked for."""
        return chain(self.head, self.rest)


@contextlib.contextmanager
def opened(database: Database, query: str) -> Iterator[Rows]:
    """The rows of a query while the block lasts."""
    with database.snapshot() as connection, database.explained():
        options = {"stream_results": True, "no_parameters": True}  # a cursor of the server's; % is no placeholder
        result = connection.execution_options(**options).exec_driver_sql(query)
        try:
            yield _rows(result)
        finally:
            result.close()  # before the connection: PyMySQL has to take what is still on its way


def _rows(result: Any) -> Rows:
    if not result.returns_rows:
        raise BadSetting("the query gives no rows. Expected one select")
    columns = [str(name) for name in result.keys()]  # noqa: SIM118 no mapping
    _refuse_twice(columns)
    raw = _chunked(result)
    first = list(islice(raw, SAMPLE_ROWS))
    images = {at for at in range(len(columns)) if _holds_images([row[at] for row in first])}
    notes = [f"column '{columns[at]}' holds images: kept in the cache as files" for at in sorted(images)]
    head = [_row(number, cells, images) for number, cells in enumerate(first, 1)]
    rest = (_row(number, cells, images) for number, cells in enumerate(raw, len(first) + 1))
    return Rows(columns, head, rest, notes=notes)


@dataclass(frozen=True)
class Inputs:
    """Rows that a model is asked about: the column that names them, and (name, input) pairs, once."""

    modality: str
    key: str
    kind: Literal["integer", "text"]  # of its values
    notes: tuple[str, ...]
    pairs: Iterator[tuple[Any, str]]


@contextlib.contextmanager
def inputs(
    uri: str,
    query: str | None,
    key: str | None,
    item_column: str | None,
    skipped: list[Skipped],
    features: tuple[str, ...] | None = None,
) -> Iterator[Inputs]:
    """Texts, paths of images or rows with the value of their key column, while the block lasts; no label is needed.

    `features`: the columns of rows, as far as the query gives them.
    """
    source, database = Sql(query, item_column, features=features), Database(uri)
    with opened(database, source._select(database)) as rows:
        sample = _sample(database, rows)
        if features is not None and not (features := tuple(name for name in features if name in rows.columns)):
            has = ", ".join(rows.columns)
            raise BadData(f"the query gives no column that the model knows. Its columns: {has}")
        item = source._image_column(database, rows, sample)
        notes = list(rows.notes)
        at = _key(rows.columns, sample, key, {item}, notes)
        columns = list(rows.columns)
        columns[at] += " (key)"  # never guessed as a text
        plan = None
        if item is None:
            blind = [[None if i == at else cell for i, cell in enumerate(row)] for row in sample]
            reader = dataclasses.replace(rows, columns=columns, notes=notes)
            plan = Plan.of(Asked(item_column, features=features), _NAME, reader, blind, labels=False)
            notes = plan.notes

        def pairs() -> Iterator[tuple[Any, str]]:
            for number, cells in rows.rows():
                try:
                    if isinstance(cells, str):
                        raise BadData(cells)
                    if cells[at] is None:
                        raise BadData(f"no {rows.columns[at]}")
                    asked = text_of(cells, plan) if plan is not None else _path(cells[item or 0], database.folder)
                except BadData as error:
                    skipped.append(Skipped(f"{_NAME} {rows.unit} {number}", str(error)))
                else:
                    yield cells[at], asked

        kind: Literal["integer", "text"] = (
            "integer" if all(type(row[at]) in (int, type(None)) for row in sample) else "text"
        )
        yield Inputs("image" if plan is None else plan.modality, rows.columns[at], kind, tuple(notes), pairs())


def _key(
    columns: Sequence[str], sample: Sequence[Sequence[Any]], key: str | None, taken: Collection[Any], notes: list[str]
) -> int:
    """The column that names a row: as asked, by its name, or because its values are all different numbers."""
    if key is not None:
        if key not in columns:
            raise BadSetting(f"the query gives no column '{key}' (--key). Its columns: {', '.join(columns)}")
        return columns.index(key)
    free = [i for i in range(len(columns)) if i not in taken]
    names = [columns[i].lower() for i in free]
    named = [free[names.index(name)] for name in KEYS if name in names]
    named += [i for i in free if columns[i].lower().endswith("_id")]
    if named:
        notes.append(f"key column '{columns[named[0]]}': its name")
        return named[0]
    for i in free:
        values = [row[i] for row in sample]
        if all(type(value) is int for value in values) and len(set(values)) == len(values):
            notes.append(f"key column '{columns[i]}': different numbers")
            return i
    raise BadSetting(f"no column of the query names its rows. Name one with --key (columns: {', '.join(columns)})")


def _path(cell: Any, folder: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise BadData("no image")
    return os.path.join(folder, _file(cell.strip(), folder))


def _sample(database: Database, rows: Rows) -> list[Sequence[Any]]:
    sample = sample_of(rows)
    if not sample:
        why = "no rows" if not rows.head else no_rows(rows)
        raise BadData(f"{database.shown}: the query gives {why}. Columns: {', '.join(rows.columns)}")
    return sample


def _chunked(result: Any) -> Iterator[Sequence[Any]]:
    """All rows; as many at once as have about CHUNK_BYTES, by those seen last."""
    size = _FIRST
    while chunk := result.fetchmany(size):
        yield from chunk
        weight = sum(len(cell) for row in chunk for cell in row if isinstance(cell, (str, bytes, memoryview)))
        size = max(1, min(_MOST, 4 * size, CHUNK_BYTES * len(chunk) // max(weight, 1)))


def _row(number: int, cells: Sequence[Any], images: Collection[int]) -> Row:
    plain = [_plain(cell, at in images) for at, cell in enumerate(cells)]
    return number, NOT_UTF8 if any(isinstance(cell, str) and is_damaged(cell) for cell in plain) else plain


def _plain(cell: Any, image: bool) -> Any:
    """A cell as the other sources know it: text, number, list, None; an image is the file that it is kept as."""
    if cell is None or isinstance(cell, (str, bool, int, float)):
        return cell
    if isinstance(cell, (bytes, bytearray, memoryview)):
        data = bytes(cell)
        if image and data:
            return blobs.keep(data, _ending(data) or ".bin")
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data
    if isinstance(cell, decimal.Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, (datetime.datetime, datetime.date, datetime.time)):
        return cell.isoformat()
    if isinstance(cell, uuid.UUID):
        return str(cell)
    return list(cell) if isinstance(cell, tuple) else cell


def _holds_images(cells: Sequence[Any]) -> bool:
    """Whether most of the blobs of a column begin like images and are no texts."""
    blobs = [bytes(cell[:4096]) for cell in cells if isinstance(cell, (bytes, bytearray, memoryview)) and len(cell)]
    return bool(blobs) and sum(bool(_ending(blob)) and not _is_text(blob) for blob in blobs) >= len(blobs) / 2


def _ending(data: bytes) -> str:
    """Of the name of an image file, by its first bytes; "" where they are none of an image."""
    return next((ending for mark, ending in _ENDINGS.items() if data.startswith(mark)), "")


def _is_text(data: bytes) -> bool:
    return b"\0" not in data and not is_damaged(data.decode(errors="surrogateescape"))


def _refuse_twice(columns: Sequence[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise BadData(f"the query gives two columns called '{twice[0]}'. Name them apart with AS")


def _tables(database: Database) -> tuple[list[str], list[str]]:
    """Names of all tables, and the same as a statement writes them."""
    from sqlalchemy import inspect

    with database.snapshot() as connection:
        names = sorted(inspect(connection).get_table_names())
        return names, [connection.dialect.identifier_preparer.quote(name) for name in names]
