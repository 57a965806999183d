"""Local copies of remote files: whole or not there, within a limit, the least recently used leave first.

    CACHE/remote-v1/ab/abcd..-0123...jpg     a copy: 32 digits of its address, 32 of its version (etag, size or time)
    CACHE/remote-v1/new/KEY.part             a large one on its way; the next process goes on behind it
    CACHE/remote-v1/new/KEY.PID.N.part       a small one on its way; swept when its process is dead

Names are hashes, so that nothing in an address can lead anywhere. A copy gets its name when it is complete and compared
with what the server said of it. Room is made before a file comes: what is on its way counts. Several processes may use
the folder; each looks again at what lies there when it has written a twentieth of the limit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from topwork.errors import StoreError
from topwork.store.atomic import _alive, explain
from topwork.types import Choice

VERSION = 1
KEEP = 0.95  # share of the limit that stays when room is made
LOOK_AGAIN = 0.05  # of the limit: written since the folder was looked at
FORGOTTEN_SECONDS = 7 * 86400.0  # after which an unfinished file is given up
WAIT_SECONDS = 120.0  # for others to end what is on its way, where there is no room for all at once
_NUMBER = itertools.count()


def address_key(address: str) -> str:
    """32 hex digits for where a file lies."""
    return hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Coming:
    """A copy on its way."""

    part: Path  # where its bytes go
    name: str  # under which it appears; may be found out while it comes
    reserve: Callable[[int], None]
    reserved: int = 0

    def grow(self, size: int) -> None:
        """Room for so many bytes more."""
        self.reserve(size)
        self.reserved += size


class Copies:
    """The folder of copies. Threads may call at once."""

    def __init__(self, root: Path, limit: Choice, sealed: bool = False) -> None:
        self.folder, self.limit = root / f"remote-v{VERSION}{'-sealed' * sealed}", limit
        self.sealed = sealed  # for those who write them: they lie apart
        self._files: OrderedDict[str, int] = OrderedDict()  # name -> bytes, the least recently used first
        self._at: dict[str, set[str]] = {}  # address key -> names
        self._total = self._coming = self._written = 0
        self._pinned: set[str] = set()
        self._room = threading.Condition(threading.RLock())
        self._looked = False

    def known(self, key: str) -> bool:
        """Whether any version of an address was there when the folder was last looked at."""
        with self._room:
            self._look()
            return bool(self._at.get(key))

    def has(self, name: str) -> bool:
        """Whether a copy is here, by memory alone."""
        with self._room:
            self._look()
            return name in self._files

    def find(self, name: str, pin: bool = False) -> Path | None:
        """A copy, now the most recently used; pinned ones stay as long as this process."""
        path = self._path(name)
        try:
            os.utime(path)
            size = path.stat().st_size
        except OSError:
            with self._room:
                self._drop(name)
            return None
        with self._room:
            self._look()
            self._note(name, size)
            if pin:
                self._pinned.add(name)
        return path

    @contextlib.contextmanager
    def coming(self, name: str, size: int | None, resume: bool) -> Iterator[Coming]:
        """Where the bytes of a copy go until it is whole; the block ends well where it is, and it appears."""
        part = self.folder / "new" / (f"{name}.part" if resume else f"{name}.{os.getpid()}.{next(_NUMBER)}.part")
        place = Coming(part, name, self.reserve)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            place.grow(size or 0)
            yield place
            name, found = place.name, part.stat().st_size
            if found > place.reserved:
                place.grow(found - place.reserved)
            target = self._path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            with self._room:
                for old in self._at.get(name[:32], set()) - {name} - self._pinned:
                    self._remove(old)
                self._note(name, found)
                self._written += found
        except StoreError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or os.fspath(self.folder) in str(error.filename):
                raise explain(error, self.folder) from error  # of this machine's disk, not of a server
            raise
        finally:
            if not resume:
                with contextlib.suppress(OSError):
                    part.unlink()
            with self._room:
                self._coming -= place.reserved
                self._room.notify_all()

    def reserve(self, size: int) -> None:
        """Room for so many bytes; the least recently used copies leave, or others are waited for."""
        if size > self.limit.value:
            raise self._does_not_fit(size)
        until = time.monotonic() + WAIT_SECONDS
        with self._room:
            self._look()
            if self._written > LOOK_AGAIN * self.limit.value:
                self._looked = False
                self._look()
            while self._total + self._coming + size > self.limit.value:
                goal = max(0.0, KEEP * self.limit.value) - self._coming - size
                for name in [name for name in self._files if name not in self._pinned]:
                    if self._total <= max(goal, 0):
                        break
                    self._remove(name)
                if self._total + self._coming + size <= self.limit.value:
                    break
                if not self._coming or time.monotonic() > until:
                    held = sum(self._files.get(name, 0) for name in self._pinned)
                    raise StoreError(
                        f"No room for {_amount(size)} of remote data: tables and archives in use take "
                        f"{_amount(held)} of {_amount(self.limit.value)} ({self.limit.reason}). Raise TOPWORK_REMOTE_GB"
                    )
                self._room.wait(0.5)
            self._coming += size

    def spare(self) -> Callable[[int], None]:
        """Counts what is held in memory, as much as copies may take; StoreError beyond that."""
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            held += size
            if held > self.limit.value:
                raise self._does_not_fit(held)

        return grow

    def _does_not_fit(self, size: int) -> StoreError:
        return StoreError(
            f"A remote file of {_amount(size)} does not fit: local copies may take {_amount(self.limit.value)} "
            f"({self.limit.reason}). Raise TOPWORK_REMOTE_GB"
        )

    def info(self) -> dict[str, object]:
        """Where they lie, how many and how large."""
        with self._room:
            self._looked = False
            self._look()
            return {
                "folder": os.fspath(self.folder),
                "files": len(self._files),
                "bytes": self._total,
                "limit": f"{self.limit.value / 1e9:,.1f} GB ({self.limit.reason})",
            }

    def clear(self) -> None:
        """Remove all copies, those on their way too."""
        with self._room:
            self._pinned.clear()
            self._looked = False
            self._look()
            for name in list(self._files):
                self._remove(name)
            for part in self._parts():
                with contextlib.suppress(OSError):
                    os.unlink(part.path)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _note(self, name: str, size: int) -> None:
        self._total += size - self._files.pop(name, 0)
        self._files[name] = size
        self._at.setdefault(name[:32], set()).add(name)

    def _drop(self, name: str) -> None:
        self._total -= self._files.pop(name, 0)
        names = self._at.get(name[:32])
        if names is not None:
            names.discard(name)
            if not names:
                del self._at[name[:32]]

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
        self._drop(name)

    def _look(self) -> None:
        """What lies there, once in a while: others write, too."""
        if self._looked:
            return
        self._looked, self._written = True, 0
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as folders:
            for folder in folders:
                if folder.name == "new" or not folder.is_dir():
                    continue
                with os.scandir(folder.path) as entries:
                    for entry in entries:
                        with contextlib.suppress(FileNotFoundError):
                            facts = entry.stat()
                            found.append((facts.st_mtime_ns, entry.name, facts.st_size))
        self._files.clear()
        self._at.clear()
        self._total = 0
        for _, name, size in sorted(found):
            self._note(name, size)
        self._sweep()

    def _sweep(self) -> None:
        """Unfinished files of dead processes go; large ones may still be finished."""
        for part in self._parts():
            *_, pid, number, _ = ("", "", *part.name.split("."))
            with contextlib.suppress(OSError):
                small = pid.isdigit() and number.isdigit()
                if not _alive(int(pid)) if small else time.time() - part.stat().st_mtime > FORGOTTEN_SECONDS:
                    os.unlink(part.path)

    def _parts(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder / "new") as entries:
                return [entry for entry in entries if entry.name.endswith(".part")]
        except FileNotFoundError:
            return []


def _amount(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"
