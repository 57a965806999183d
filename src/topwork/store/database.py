"""Databases by their address: SQLite, PostgreSQL, MySQL and MariaDB through SQLAlchemy 2.1; who asks is never shown.

    sqlite:///reviews.db                       relative to the current folder; sqlite:////srv/reviews.db is absolute
    postgresql://ann@db.example.org/shop       through psycopg 3
    mysql://... mariadb://...                  through PyMySQL
    postgresql://${DB_USER}:${DB_PASSWORD}@localhost/shop     names in the environment; '${DATABASE_URL}' alone, too

A password that the address lacks is taken from TOPWORK_SQL_PASSWORD, else the driver looks where it always does
(PGPASSWORD, ~/.pgpass). `shown` is the address for eyes: without user, password and options.

    with Database("sqlite:///reviews.db").snapshot() as connection: ...    one read-only transaction, one point in time
    with Database("sqlite:///reviews.db").writing() as connection: ...     one transaction: all of it or nothing

snapshot: PostgreSQL REPEATABLE READ, READ ONLY; MySQL, MariaDB START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;
SQLite BEGIN on a file that is opened with mode=ro.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from topwork.errors import BadData, BadSetting, MissingExtra
from topwork.settings import without_password

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

PASSWORD = "TOPWORK_SQL_PASSWORD"
DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
EXPECTED = "sqlite:///file.db, postgresql://host/database or mariadb://host/database"
_ADDRESS = re.compile(rf"({'|'.join(DRIVERS)})(\+\w+)?://", re.IGNORECASE)
_SIGNED = r"(?<=[?&])[\w.-]*(?:sig|token|key|secret|passw|credential|auth)[\w.-]*=[^\s&#]+"  # of a signed address
_ANYWHERE = re.compile(
    rf"(?:{'|'.join(DRIVERS)})(?:\+\w+)?://\S*|(?<=://)[^/@\s]+(?=@)|(?P<signed>{_SIGNED})", re.IGNORECASE
)
_NAME = re.compile(r"\$\{(\w+)\}")
_PATIENCE_SECONDS = 30 * 24 * 3600  # of a server whose rows are taken as fast as a model can judge them


def is_database(uri: object) -> bool:
    """Whether an address is one of a database; cheap, nothing is opened."""
    return isinstance(uri, str) and bool(_ADDRESS.match(_named_whole(uri)))


def shown(uri: str) -> str:
    """An address as it may be printed and stored: without user, password and options."""
    if _NAME.fullmatch(uri.strip()):
        return uri.strip()
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    user, at, place = rest.rpartition("@")
    if scheme.lower().startswith("sqlite"):
        user, at, place = "", "", rest
    unclear = "?" in user  # options that hold an @, or a password that holds a ?
    if unclear or (not at and re.match(r"[^/?\[]*:(?!\d*(?:[/?]|$))", place)):  # or user:password and no host
        return f"{scheme}://***"
    return f"{scheme}://{'***@' if at else ''}{place.partition('?')[0]}"


def hidden(text: str) -> str:
    """A text in which every address of a database is `shown`, and of other addresses user and password are not."""
    return _ANYWHERE.sub(lambda found: "***" if found["signed"] or "://" not in found[0] else shown(found[0]), text)


def command_of(words: Iterable[str]) -> str:
    """A command line for a report."""
    return " ".join(shown(word) if is_database(word) else _without_password(word) for word in words)


def _without_password(word: str) -> str:
    return without_password(word) if "redis" in word else hidden(word)


@dataclass(frozen=True)
class Database:
    """A database that can be reached."""

    uri: str

    def __repr__(self) -> str:
        return f"Database({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address for eyes."""
        return shown(self.uri)

    @property
    def kind(self) -> str:
        """sqlite, postgresql, mysql or mariadb."""
        return self.url.get_backend_name()

    @property
    def name(self) -> str:
        """What the data are called: the database, a file without its ending."""
        stem = os.path.splitext(os.path.basename(self.url.database or ""))[0]
        return re.sub(r"[^\w.-]", "_", stem) or "database"

    @property
    def folder(self) -> str:
        """What paths in it are relative to: the folder of an SQLite file, else the current one."""
        return os.path.dirname(os.path.abspath(self.url.database or "")) if self.kind == "sqlite" else os.getcwd()

    @cached_property
    def url(self) -> URL:
        """The whole address, with its secrets."""
        sqlalchemy, filled = _sqlalchemy(self.shown), _filled(self.uri)
        try:
            url = sqlalchemy.make_url(filled)
        except (sqlalchemy.exc.ArgumentError, ValueError):  # their text may hold the password: not shown, not chained
            url = None
        if url is None or not is_database(url.drivername + "://") or "@" in (url.host or ""):
            raise BadSetting(
                f"{self.shown}: not the address of a database. Expected {EXPECTED}; @ : / in a password as %40 %3A %2F"
            )
        kind = url.drivername.lower()
        url = url.set(drivername=DRIVERS.get(kind, kind))
        if kind != "sqlite" and not url.password and (given := os.environ.get(PASSWORD)):
            url = url.set(password=given)
        return url

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees the database as it is now, whatever others write, and cannot change it."""
        if self.kind == "sqlite":
            path = self.url.database or ""
            if not os.path.isfile(path):
                raise BadData(f"{self.shown}: {path or 'it'} is no file. Expected {EXPECTED}")
        with self.explained(), self._engine("ro").connect() as connection:
            if self.kind == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            elif self.kind == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
                connection.exec_driver_sql(f"SET SESSION net_write_timeout = {_PATIENCE_SECONDS}")
                connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose one transaction is committed when the block ends well, and undone otherwise."""
        with self.explained(), self._engine("rwc").connect() as connection:
            if self.kind == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What SQLAlchemy and drivers raise becomes one line, without secrets and without the data's own words."""
        sqlalchemy = _sqlalchemy(self.shown)
        try:
            yield
        except sqlalchemy.exc.DBAPIError as error:
            reason = self._scrubbed(str(error.orig if error.orig is not None else error))
        except sqlalchemy.exc.SQLAlchemyError as error:
            reason = self._scrubbed(str(error))
        else:
            return
        raise BadData(f"{self.shown}: {reason}") from None

    def _engine(self, mode: str) -> Engine:
        sqlalchemy = _sqlalchemy(self.shown)
        more: dict[str, Any] = {"creator": lambda: _open_file(self.url.database, mode)} if self.kind == "sqlite" else {}
        try:
            return sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool, hide_parameters=True, **more)
        except sqlalchemy.exc.NoSuchModuleError:
            raise BadSetting(f"{self.shown}: SQLAlchemy knows no such driver. Expected {EXPECTED}") from None
        except ImportError as error:
            if self.url.drivername in DRIVERS.values():
                raise MissingExtra.of("sql", self.shown) from error
            raise BadSetting(
                f"{self.shown}: its driver is not installed. Install it, or write {self.kind}:// without a driver"
            ) from error

    def _scrubbed(self, said: str) -> str:
        """The first line of what was said, without the password."""
        line = next((line.strip() for line in said.splitlines() if line.strip()), "no reason given")
        if match := re.fullmatch(r"\((\d+), (['\"])(.*)\2\)", line):  # of PyMySQL: number and reason
            line = f"{match[3]} ({match[1]})"
        secret = str(self.url.password or "")
        return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", line) if secret else line


def _filled(uri: str) -> str:
    """With the environment's values; those of user and password are quoted as an address wants them."""
    uri = _named_whole(uri, strict=True)
    head, mark, rest = uri.partition("://")
    user, at, place = rest.rpartition("@")
    return head + mark + _NAME.sub(lambda m: quote(_value(m[1]), safe=""), user) + at + _replace(place)


def _replace(text: str) -> str:
    return _NAME.sub(lambda found: _value(found[1]), text)


def _named_whole(uri: str, strict: bool = False) -> str:
    """The address itself where a name in the environment stands for all of it."""
    whole = _NAME.fullmatch(uri.strip())
    if not whole:
        return uri
    return _value(whole[1]) if strict else os.environ.get(whole[1], "")


def _value(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise BadSetting(f"the address of the database names ${{{name}}}, which the environment does not hold")
    return value


def _open_file(path: str | None, mode: str) -> Any:
    """An SQLite file; its texts keep bytes that are no UTF-8 as lone surrogates, for readers to notice."""
    import sqlite3

    if not path or path == ":memory:":
        raise BadSetting("sqlite:// names no file. Expected sqlite:///file.db")
    opened = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode={mode}", uri=True, isolation_level=None)
    opened.text_factory = lambda data: data.decode(errors="surrogateescape")
    return opened


def _sqlalchemy(what: str) -> Any:
    try:
        import sqlalchemy
    except ImportError as error:
        raise MissingExtra.of("sql", what) from error
    return sqlalchemy
