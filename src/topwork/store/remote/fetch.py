"""Bytes of remote files: the local copy, fetched where it is not here, compared with what the server said of it.

Who asks for a file that is on its way waits for it. What came broken (cut off, another length, another MD5) is fetched
again a few times and is then BadData; an etag that is twice in the same way no MD5 of what came is none (KMS). A large
file goes on behind what an interrupted download has left, as long as its version is the same.

Where encryption is asked for, copies are sealed (store/encryption.py) in a folder of their own and nothing else is
written: files are fetched into memory, and tables and archives in use are in memory, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from topwork.errors import BadData, StoreError
from topwork.store import locks, own_files
from topwork.store.encryption import NotOurs
from topwork.store.remote.archives import Archive, unpack, unpacker
from topwork.store.remote.clients import endpoint_of
from topwork.store.remote.files import BLOCK, Broken, Facts
from topwork.store.remote.local_copies import Copies, address_key
from topwork.store.remote.paths import URL, absolute, shown, split, suffix
from topwork.store.remote.patience import Endpoint, Unreachable, refused
from topwork.store.remote.places import Places

MOST_BYTES = 2_000_000_000  # of a file that is read at once
GUESS_BYTES = 500_000  # of a file whose size no listing tells
TRIES = 4  # for a file that comes broken
LARGE_BYTES = 4 * BLOCK  # from here on a killed download is taken up where it was


class Fetcher:
    """Paths to bytes and to copies. Threads may call at once."""

    def __init__(self, copies: Copies) -> None:
        self.copies, self.places = copies, Places(self._opened)
        self.readers: list[Callable[[str], None]] = []  # told of every path that is read
        self._flights: dict[str, Future[Path]] = {}
        self._no_md5: set[str] = set()  # hosts whose etags are no MD5
        self._held: dict[str, Path] = {}  # copies that are in memory
        self._lock = threading.Lock()

    def read(self, path: str, most: int) -> bytes:
        """The bytes of a file."""
        outer, inner = split(path)
        if inner is not None:
            return self.places.archive(outer).read(inner, most)
        for reached in tuple(self.readers):
            reached(path)
        for _ in range(TRIES):
            copy = self.fetched(path, most)
            with contextlib.suppress(FileNotFoundError, NotOurs):  # it may have left meanwhile
                data = self._unsealed(copy) if self.copies.sealed else copy.read_bytes()
                if len(data) > most:
                    raise BadData(f"too large: {len(data):,} bytes, the limit is {most:,}")
                return data
        raise StoreError(
            f"{shown(path)}: its local copy leaves before it is read. Raise TOPWORK_REMOTE_GB "
            f"({self.copies.limit.reason})"
        )

    def local(self, path: str) -> Path:
        """A copy that stays as long as this process."""
        outer, inner = split(path)
        try:
            if inner is None:
                return self._plain(self.fetched(path, self.copies.limit.value, pin=True))
            data = self.places.archive(outer).read(inner, min(MOST_BYTES, self.copies.limit.value))
        except BadData as error:
            raise BadData(f"{shown(path)}: {error}") from error
        entry = self.places.find(path)
        stamp = entry.facts.version if entry and entry.facts else ""
        name = f"{address_key(absolute(path))}-{address_key(stamp)}{suffix(path)}"
        if self.copies.sealed:
            return self._held.setdefault(name, in_memory(data))
        known = self.copies.find(name, pin=True)
        if known is None:
            with self.copies.coming(name, len(data), resume=False) as new:
                new.part.write_bytes(data)
            known = self.copies.find(name, pin=True)
        if known is None:
            raise StoreError(f"{shown(path)}: its local copy has gone. Raise TOPWORK_REMOTE_GB")
        return known

    def ready(self, path: str) -> bool:
        """Whether a copy is here or on its way, by memory alone."""
        if path in self._flights:
            return True
        entry = self.places.known(path)
        return bool(entry and entry.facts and self.copies.has(name_of(self._key(path), entry.facts, path)))

    def weight(self, path: str) -> int:
        """Bytes of a file, or a guess."""
        entry = self.places.known(path)
        return entry.facts.size if entry and entry.facts and entry.facts.size is not None else GUESS_BYTES

    def fetched(self, path: str, most: int, pin: bool = False) -> Path:
        """The copy of a file, fetched where it is not here; who asks for what is on its way waits for it."""
        with self._lock:
            flight = self._flights.get(path)
            mine = flight is None
            if flight is None:
                flight = self._flights[path] = Future()
        if not mine:
            with contextlib.suppress(BadData):  # found out again below: each has a reason of its own
                flight.result()
            return self._obtain(path, most, pin)
        try:
            copy = self._obtain(path, most, pin)
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # taken notice of
            raise
        else:
            flight.set_result(copy)
            return copy
        finally:
            with self._lock:
                self._flights.pop(path, None)

    def _obtain(self, path: str, most: int, pin: bool) -> Path:
        endpoint, address = self.places.endpoint(path)
        entry, key = self.places.known(path), self._key(path)
        if self.places.missing(path):
            raise BadData("does not exist")
        if entry is not None:
            address = entry.address or address
        facts = entry.facts if entry is not None else None
        try:
            if facts is None and (self.copies.known(key) or not path.startswith("http")):
                facts = endpoint.patiently(shown(path), lambda: endpoint.client.facts(address))
                self.places.learn(path, address, facts)
            if facts is not None:
                copy = self.copies.find(name_of(key, facts, path), pin)
                if copy is not None:
                    return copy
            return self._download(path, key, endpoint, address, facts, most, pin)
        except FileNotFoundError as error:
            raise BadData("does not exist") from error
        except IsADirectoryError as error:
            raise BadData("is a folder") from error
        except PermissionError as error:
            raise BadData(refused(error, path)) from error
        except Unreachable as error:
            if path.startswith("http") and not endpoint.answered and self.places.others_answer(endpoint):
                raise BadData(str(error)) from error  # one of many servers that a table names
            raise

    def _download(
        self, path: str, key: str, endpoint: Endpoint, address: str, facts: Facts | None, most: int, pin: bool
    ) -> Path:
        """Fetch, compare, keep; what came broken is fetched again, and asked anew what it should be."""
        sums: list[str] = []
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                facts = endpoint.patiently(shown(path), lambda: endpoint.client.facts(address))
            size = facts.size if facts is not None else None
            if size is not None and size > most:
                raise BadData(f"too large: {size:,} bytes, the limit is {most:,}")
            large = size is not None and size >= LARGE_BYTES and facts is not None and bool(facts.version)
            name = name_of(key, facts or Facts(None, ""), path)
            with locks.held(f"remote {name}") if large else contextlib.nullcontext():
                if large and (copy := self.copies.find(name, pin)) is not None:
                    return copy
                try:
                    told = self._one(path, key, endpoint, address, facts, most, large, sums)
                except Broken as error:
                    trouble = str(error)
                    continue
            self.places.learn(path, address, told)
            copy = self.copies.find(name_of(key, told, path), pin)
            if copy is not None:
                return copy
            trouble = "its copy left at once"
        raise BadData(f"came broken {TRIES} times: {trouble}")

    def _one(
        self, path: str, key: str, endpoint: Endpoint, address: str, facts: Facts | None, most: int, large: bool,
        sums: list[str],
    ) -> Facts:  # fmt: skip
        """One download; Broken where it is not what the server says."""
        host, said = path.partition("://")[2].partition("/")[0], facts or Facts(None, "")
        sealed = self.copies.sealed
        with (
            self.copies.coming(name_of(key, said, path), said.size, resume=large and not sealed) as new,
            io.BytesIO() if sealed else new.part.open("a+b") as sink,
        ):
            told = self._got(path, endpoint, address, facts, sink, most, large)
            came = sink.tell()
            if came > most or (told.size or 0) > most:
                raise BadData(f"too large: {told.size or came:,} bytes, the limit is {most:,}")
            if said.size is not None and came != said.size:
                sink.truncate(0)
                raise Broken(f"{came:,} bytes came, {said.size:,} were said")
            md5 = told.md5 or said.md5
            if md5 and host not in self._no_md5 and (found := _md5(sink)) != md5:
                if found not in sums:
                    sums.append(found)
                    sink.truncate(0)
                    raise Broken("its MD5 is not the one that the server tells")
                self._no_md5.add(host)  # twice the same: it is what lies there, and the etag is no MD5 (KMS)
            told = Facts(came, told.version or said.version, told.told or said.told)
            new.name = name_of(key, told, path)  # without facts beforehand the version is in the answer
            if sealed:
                sink.seek(0)
                new.part.write_bytes(own_files.keep([b"remote", new.name.encode()], sink.read()))
        return told

    def _got(
        self, path: str, endpoint: Endpoint, address: str, facts: Facts | None, sink: Any, most: int, large: bool
    ) -> Facts:
        """Bytes into a file; where a large one is cut off and has grown, it goes on behind what is there."""
        while True:
            before = sink.tell()

            def attempt() -> Facts:
                if not large or sink.tell() > (facts.size or 0 if facts else 0):
                    sink.truncate(sink.seek(0))
                return endpoint.client.get(address, facts, sink, most)

            try:
                return endpoint.patiently(shown(path), attempt)
            except Broken:
                if not large or sink.tell() < before + BLOCK:
                    raise

    def _key(self, path: str) -> str:
        """Names an address: host, path, and the endpoint where the scheme does not tell it."""
        where = endpoint_of(path.partition(":")[0])
        return address_key(f"{where} {path}?{self.places.query(path)}")

    def _unsealed(self, copy: Path) -> bytes:
        """The bytes of a sealed copy; one that does not open leaves."""
        try:
            return own_files.kept([b"remote", copy.name.encode()], copy.read_bytes())
        except NotOurs:
            copy.unlink(missing_ok=True)
            raise

    def _plain(self, copy: Path) -> Path:
        """A copy as it can be read by anybody in this process."""
        if not self.copies.sealed or copy.name in self._held:
            return self._held.get(copy.name, copy)
        try:
            return self._held.setdefault(copy.name, in_memory(self._unsealed(copy)))
        except NotOurs as error:
            raise BadData(f"its local copy was changed after it was written: {error}. Run again") from error

    def _opened(self, outer: str) -> tuple[Archive, str]:
        """An archive, readable from its middle, and what names its version."""
        path, stamp = self._archive_file(outer)
        if unpacker(os.fspath(path)) is None:
            return Archive(os.fspath(path), shown(outer)), stamp
        if self.copies.sealed:
            held = in_memory(b"")
            with held.open("r+b") as sink:
                unpack(os.fspath(path), shown(outer), sink, self.copies.spare())
            return Archive(os.fspath(held), shown(outer)), stamp
        name = f"{address_key(absolute(outer) + ' unpacked')}-{address_key(stamp)}.tar"
        with locks.held(f"remote {name}"):
            known = self.copies.find(name, pin=True)
            if known is None:
                with self.copies.coming(name, None, resume=False) as new, new.part.open("wb") as sink:
                    unpack(os.fspath(path), shown(outer), sink, new.grow)
                known = self.copies.find(name, pin=True)
        if known is None:
            raise StoreError(f"{shown(outer)}: its decompressed copy has gone. Raise TOPWORK_REMOTE_GB")
        return Archive(os.fspath(known), shown(outer)), stamp

    def _archive_file(self, outer: str) -> tuple[Path, str]:
        """Where it lies on this machine."""
        if URL.match(outer):
            try:
                path = self.fetched(outer, self.copies.limit.value, pin=True)
            except BadData as error:
                raise BadData(f"{shown(outer)}: {error}") from error
            return self._plain(path), path.name
        facts = os.stat(outer)
        return Path(outer), f"{facts.st_size} {facts.st_mtime_ns}"


def name_of(key: str, facts: Facts, path: str) -> str:
    """What the copy of an address in a version is called."""
    size = "" if '"' in facts.version else facts.size  # an etag says it all; a time has but seconds
    return f"{key}-{address_key(f'{facts.version} {size}')}{suffix(path)}"


def in_memory(data: bytes) -> Path:
    """A file that no disk sees and only this process can open."""
    if not hasattr(os, "memfd_create"):
        raise StoreError("Tables and archives that are encrypted at rest can be read on Linux alone")
    handle = os.memfd_create("topwork")
    with open(handle, "wb", closefd=False) as file:
        file.write(data)
    return Path(f"/proc/self/fd/{handle}")


def _md5(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
