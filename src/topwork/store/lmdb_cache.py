"""What can be computed again: bytes by namespace and key, in one LMDB file that several processes share.

A put is one transaction: SIGKILL leaves all of it or nothing. Reads are noted in memory and written with the next put
or at the end; above the size limit the least recently used entries leave, down to 90 % of it.

What goes wrong never ends a run, and is said once, in `notes`: an entry that fails its checksum is not there; a file
that is damaged is thrown away and begun anew (another version lies in another folder); a full disk stops the writing;
a folder that cannot be used means that nothing is remembered.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from topwork.errors import StoreError
from topwork.store import check_key, entries
from topwork.store.environment import Damaged, Environment, discard, is_damage
from topwork.types import Choice

T = TypeVar("T")
VERSION = 1
KEEP = 0.9  # share of the limit that stays when room is made
_STAMP = f"topwork cache {VERSION} {sys.byteorder}".encode()
_UNSAID_USES = 100_000  # reads to remember before they are written


class Cache:
    """A Store on this machine. Opened at first use; may be used from several threads, and after a fork."""

    def __init__(self, root: Path, limit: Choice) -> None:
        self.root = root
        self.folder = root / f"items-v{VERSION}"
        self.limit = limit
        self.notes: list[str] = []
        self._env: Environment | None = None
        self._used: dict[bytes, None] = {}
        self._lock = threading.RLock()
        self._usable = self._writing = True  # becomes False where the machine refuses

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        whole = [_whole(namespace, key) for key in keys]
        return self._safely(lambda env: self._get(env, whole), [None] * len(whole))

    def put_many(self, namespace: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs in one transaction."""
        new = {_whole(namespace, key): value for key, value in pairs}
        if new:
            self._safely(lambda env: self._put(env, namespace, new), None, write=True)

    def info(self) -> dict[str, Any]:
        """Where it lies, how large it is and may become, and what is in it."""
        file = self.folder / "data.mdb"
        namespaces = self._safely(entries.contents, {}) if os.path.exists(file) else {}
        return {
            "folder": os.fspath(self.root),
            "bytes": os.path.getsize(file) if os.path.exists(file) else 0,
            "limit_bytes": self.limit.value,
            "limit": f"{self.limit.value / 1e9:,.1f} GB ({self.limit.reason})",
            "namespaces": namespaces,
            "notes": list(self.notes),
        }

    def clear(self, namespace: str | None = None) -> None:
        """Forget a namespace with all below it, or everything; only the latter gives room on the disk back."""
        if namespace is not None:
            self._safely(lambda env: entries.clear(env, namespace), None, write=True)
            return
        with self._lock:
            self._used.clear()
            self._let_go()
            for folder in self.root.glob("items-v*"):
                discard(folder)
            self._usable = self._writing = True

    def close(self) -> None:
        """Write down what was used and let go of the file. The next use opens it again."""
        with self._lock:
            if self._env is not None and self._env.pid == os.getpid() and self._used:
                self._safely(self._write_uses, None, write=True)
            self._let_go()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, env: Environment, keys: list[bytes]) -> list[bytes | None]:
        found, damaged = entries.read(env, keys)
        if damaged:
            self._say(f"The cache in {self.root} held damaged entries; they are computed again")
        if self._writing:
            self._used.update((key, None) for key, value in zip(keys, found, strict=True) if value is not None)
        if len(self._used) > _UNSAID_USES:
            self._safely(self._write_uses, None, write=True)
        return found

    def _put(self, env: Environment, namespace: str, new: dict[bytes, bytes]) -> None:
        limit = self.limit.value
        needed = sum(entries.room(key, value) for key, value in new.items())
        if needed > KEEP * limit:
            self._say(f"{needed / 1e6:,.1f} MB at once are not kept: the cache may take {limit / 1e6:,.1f} MB")
            return
        if entries.total(env) + needed > limit:
            entries.evict(env, int(KEEP * limit) - needed, self._used)
        try:
            entries.write(env, namespace, new, self._used)
        except lmdb.MapFullError:  # room in the count, but not in the file: fragments, or a reader that holds old pages
            entries.evict(env, limit // 2 - needed, self._used)
            entries.write(env, namespace, new, self._used)
        self._used.clear()

    def _write_uses(self, env: Environment) -> None:
        entries.touch(env, self._used)
        self._used.clear()

    def _safely(self, work: Callable[[Environment], T], otherwise: T, write: bool = False) -> T:
        """Run work; begin anew (once) where the file is damaged, go on without where the machine refuses."""
        with self._lock:
            for _ in range(2):
                if not self._usable or (write and not self._writing):
                    break
                try:
                    return work(self._environment())
                except (lmdb.Error, OSError, Damaged, struct.error, ValueError) as error:
                    if is_damage(error):
                        self._begin_anew(error)
                    else:
                        self._refused(error)
            return otherwise

    def _environment(self) -> Environment:
        if self._env is not None and self._env.pid != os.getpid():
            self._let_go()
        if self._env is None:
            self._env = Environment(self.folder, self.limit.value + self.limit.value // 4 + (64 << 20), _STAMP)
        return self._env

    def _let_go(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _begin_anew(self, error: Exception) -> None:
        self._let_go()
        self._used.clear()
        reason = str(error).removeprefix(f"{self.folder}: ")
        try:
            discard(self.folder)
        except StoreError as refusal:
            self._usable = False
            self._say(f"The cache is damaged ({reason}) and not used: {refusal}")
        else:
            self._say(f"The cache in {self.root} was damaged ({reason}) and has been begun anew")

    def _refused(self, error: Exception) -> None:
        self._writing = False
        self._usable = self._env is not None
        self._used.clear()
        code = getattr(error, "code", 0) or getattr(error, "errno", 0) or 0
        if code in (errno.ENOSPC, errno.EDQUOT) or _is_full(self.root):
            self._say(
                f"The disk of the cache {self.root} is full: nothing more is kept. Free some space for the next run"
            )
        else:
            reason = os.strerror(code) if code > 0 else str(error)
            fix = "TOPWORK_CACHE names another folder"
            self._say(f"The cache {self.root} cannot be written ({reason}): nothing more is kept. {fix}")

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _whole(namespace: str, key: bytes) -> bytes:
    return entries.prefix(namespace) + check_key(key)


def _is_full(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < 1 << 20
    return False
