"""Rows appended to a table of a database in one transaction: all of them or none, whatever kills us.

    table = SqlTable(Database("sqlite:///x.db"), "predictions", (Column("id", "integer"), Column("label", "text")))
    table.check()                     before the work: does it exist, does it fit, may we write? Nothing is left behind
    table.append([(1, "cat"), ...])   created if it is absent

An existing table must have these columns, of kinds that hold such values; other columns of it stay empty and must
allow that. MySQL and MariaDB commit a CREATE TABLE at once: killed there, a new table may be left, with no rows in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from topwork.errors import BadSetting
from topwork.store.database import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

ROWS = 1000  # of one INSERT
TEXT = 512  # characters of a text in MySQL and MariaDB, whose TEXT cannot be joined by an index
_TABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?")


@dataclass(frozen=True)
class Column:
    """One column that is written."""

    name: str
    kind: Literal["integer", "real", "text", "time"]


@dataclass(frozen=True)
class SqlTable:
    """A table that rows are appended to."""

    database: Database
    name: str  # or schema.name
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not _TABLE.fullmatch(self.name):
            raise BadSetting(f"--table {self.name!r} is not the name of a table. Expected letters, digits and _")
        if len({column.name.lower() for column in self.columns}) < len(self.columns):
            raise BadSetting(f"two columns of {self.name} would have one name: {', '.join(self._names)}")

    def check(self) -> bool:
        """Whether the table is there; BadSetting, in one line, where it does not fit."""
        import sqlalchemy as sa

        with self.database.writing() as connection:
            known = sa.inspect(connection).has_table(self._bare, schema=self._schema)
            if known:
                self._refuse(connection)
                nothing = sa.select(*(sa.null() for _ in self.columns)).where(sa.false())
                connection.execute(sa.insert(self._table).from_select(self._names, nothing))
            elif self.database.kind in ("sqlite", "postgresql"):
                self._table.create(connection)
            connection.rollback()
        return known

    def append(self, rows: Iterable[Sequence[Any]]) -> int:
        """How many rows were written; where anything goes wrong the table is as it was."""
        import sqlalchemy as sa

        done, waiting, made = 0, iter(rows), False
        insert = sa.insert(self._table)
        with self.database.writing() as connection:
            try:
                if not sa.inspect(connection).has_table(self._bare, schema=self._schema):
                    self._table.create(connection)
                    made = True
                while chunk := [self._row(row) for row in islice(waiting, ROWS)]:
                    connection.execute(insert, chunk)
                    done += len(chunk)
            except BaseException:
                connection.rollback()
                if made and self.database.kind in ("mysql", "mariadb"):
                    self._table.drop(connection, checkfirst=True)
                raise
        return done

    @property
    def _names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def _schema(self) -> str | None:
        return self.name.rpartition(".")[0] or None

    @property
    def _bare(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def _table(self) -> Table:
        import sqlalchemy as sa

        text = sa.Text().with_variant(sa.String(TEXT), "mysql", "mariadb")
        kinds = {"integer": sa.BigInteger(), "real": sa.Double(), "text": text, "time": sa.DateTime(timezone=True)}
        columns = [sa.Column(column.name, kinds[column.kind], autoincrement=False) for column in self.columns]
        return sa.Table(self._bare, sa.MetaData(), *columns, schema=self._schema,
                        mysql_engine="InnoDB", mariadb_engine="InnoDB")  # fmt: skip

    def _row(self, row: Sequence[Any]) -> dict[str, Any]:
        aware = self.database.kind == "postgresql"
        plain = [
            value if column.kind != "time" or aware else value.astimezone(UTC).replace(tzinfo=None)
            for column, value in zip(self.columns, row, strict=True)
        ]
        return dict(zip(self._names, plain, strict=True))

    def _refuse(self, connection: Connection) -> None:
        """BadSetting where the table that is there cannot take such rows."""
        import sqlalchemy as sa

        there = {column["name"]: column for column in sa.inspect(connection).get_columns(self._bare, self._schema)}
        takes: dict[str, tuple[Any, ...]] = {
            "integer": (sa.Integer, sa.Numeric),
            "real": (sa.Numeric, sa.Float),
            "text": (sa.String,),
            "time": (sa.DateTime,),
        }
        missing = [column.name for column in self.columns if column.name not in there]
        wrong = [
            f"{column.name} is {there[column.name]['type']}, expected {column.kind}"
            for column in self.columns
            if column.name in there and not isinstance(there[column.name]["type"], takes[column.kind])
        ]
        full = [name for name, column in there.items() if name not in self._names and not _may_be_empty(column)]
        problems = [f"it has no column {', '.join(missing)}"] if missing else []
        problems += wrong + ([f"{', '.join(full)} must have a value, and there is none"] if full else [])
        if self.database.kind in ("mysql", "mariadb"):
            engine = (
                sa.inspect(connection)
                .get_table_options(self._bare, self._schema)
                .get(f"{self.database.kind}_engine", "InnoDB")
            )
            problems += [f"its engine {engine} knows no transactions"] if engine.lower() != "innodb" else []
        if problems:
            raise BadSetting(
                f"the table {self.name} of {self.database.shown} does not fit: {'; '.join(problems)}. Expected the "
                f"columns {', '.join(self._names)}, or choose another --table"
            )


def _may_be_empty(column: Any) -> bool:
    """Whether a row may leave a column out."""
    numbered = column.get("autoincrement") is True or column.get("identity") or column.get("primary_key")
    return bool(column["nullable"] or column.get("default") is not None or numbered or column.get("computed"))
