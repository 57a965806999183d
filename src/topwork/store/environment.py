"""An LMDB environment opened with care: a cut-off file, garbage or another version is noticed, never trusted.

LMDB maps its file into memory, so a file that is shorter than its header says would kill the process at the first touch
of a missing page. It is filled up with zeros here; LMDB recognises a zero page as damage and raises. (py-lmdb 3 checks
every page that it follows; random bytes over leaf, branch and header pages gave errors and never a crash.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import uuid
from pathlib import Path
from typing import Any

import lmdb

from topwork.errors import StoreError

TABLES = (b"values", b"uses", b"names")
_NOT_DAMAGE = (  # the file is fine, the circumstances are not
    lmdb.MapFullError,
    lmdb.MapResizedError,
    lmdb.PanicError,
    lmdb.ReadersFullError,
    lmdb.TxnFullError,
    lmdb.BadRslotError,
    lmdb.ReadonlyError,
    lmdb.LockError,
    lmdb.MemoryError,
)


class Damaged(Exception):
    """The file opens, but it is not one of ours."""


class Environment:
    """An open environment with the tables of a cache."""

    def __init__(self, folder: Path, map_bytes: int, stamp: bytes) -> None:
        self.folder = folder
        self.pid = os.getpid()
        self._env = _opened(folder, map_bytes)
        try:
            _fill_up(self._env, folder / "data.mdb")
            self.values, self.uses, self.names = (self._env.open_db(name) for name in TABLES)
            with self.begin(write=True) as txn:
                found = txn.get(b"format")
                if found is None and txn.stat(self.values)["entries"] == 0:
                    txn.put(b"format", stamp)
                elif found != stamp:
                    raise Damaged("it has another format")
        except BaseException:
            self._env.close()
            raise

    def begin(self, write: bool = False) -> Any:
        """A transaction: bytes when writing, views into the file when reading. Follows the file if others grew it."""
        try:
            return self._env.begin(write=write, buffers=not write)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
            return self._env.begin(write=write, buffers=not write)

    def close(self) -> None:
        """Let go of the file; safe in a forked child too, where nothing else is."""
        self._env.close()


def is_damage(error: Exception) -> bool:
    """Whether an error means that the content of the file is wrong, rather than that the machine refuses something."""
    if isinstance(error, lmdb.Error):
        return error.code <= 0 and not isinstance(error, _NOT_DAMAGE)
    return isinstance(error, (Damaged, struct.error, ValueError)) and not isinstance(error, OSError)


def discard(folder: Path) -> None:
    """Take a folder away: renamed first, so that nobody ever opens a half-deleted one.

    Other processes keep what they have open until they close it.
    """
    gone = folder.with_name(f"{folder.name}.gone-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{folder} cannot be removed: {error.strerror or error}. Remove it by hand") from error
    shutil.rmtree(gone, ignore_errors=True)


def _opened(folder: Path, map_bytes: int) -> lmdb.Environment:
    """Open, and open again if the folder was replaced in between (data and lock file must be of one age)."""
    for _ in range(10):
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            before = folder.stat().st_ino
            env = lmdb.open(
                os.fspath(folder),
                map_size=map_bytes,
                max_dbs=len(TABLES),
                metasync=False,
                create=False,
                max_readers=1024,
            )
            if folder.stat().st_ino == before:
                return env
            env.close()
    raise OSError(errno.EBUSY, "it is replaced again and again", os.fspath(folder))


def _fill_up(env: lmdb.Environment, file: Path) -> None:
    """Make the file as long as its header says, inside a write transaction: nobody else grows it meanwhile."""
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if file.stat().st_size >= needed:
        return
    with env.begin(write=True):
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if file.stat().st_size < needed:
            os.truncate(file, needed)
