"""Archives as folders: zip, tar, tar.gz, tar.bz2, tar.xz; their files are read where they lie, nothing is unpacked.

    photos.zip/cats/1.jpg       a path into an archive: the archive is a folder
    zip://cats::s3://b/p.zip    the same in fsspec's words: s3://b/p.zip/cats

A name that leads out of the archive (.., /, a drive) is left out and said; links and devices are no files. Nothing is
ever written under a name from an archive. A compressed tar cannot be read from its middle: it is decompressed once, as
one file among the local copies, within their limit.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from topwork.errors import BadData, StoreError

MOST_FILES = 5_000_000
_BLOCK, _STEP = 1 << 20, 1 << 24
_TOO_DEEP = 100  # folders in each other
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, tarfile.TarError, NotImplementedError, OSError)


class Archive:
    """An open archive: the names of its files and their bytes. Threads may read at once."""

    def __init__(self, path: str, name: str) -> None:
        self.name = name  # for people
        self.troubles: list[tuple[str, str]] = []  # entries that are no file for us, and why
        self.sizes: dict[str, int] = {}
        self._where: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._zip: zipfile.ZipFile | None = None
        self._file: IO[bytes] | None = None
        try:
            if zipfile.is_zipfile(path):
                self._zip = zipfile.ZipFile(path)
                self._list_zip(self._zip)
            else:
                self._list_tar(path)
        except _DAMAGE as error:
            self.close()
            raise BadData(f"{name}: damaged or no archive: {error}") from error

    def read(self, inner: str, most: int) -> bytes:
        """The bytes of one file; BadData where it is damaged, encrypted or larger than `most`."""
        if inner not in self._where:
            raise BadData("does not exist")
        if self.sizes[inner] > most:
            raise BadData(f"too large: {self.sizes[inner]:,} bytes, the limit is {most:,}")
        try:
            if self._zip is not None:
                with self._zip.open(self._where[inner]) as file:
                    data = file.read(most + 1)
            else:
                assert self._file is not None
                with self._lock:
                    self._file.seek(self._where[inner])
                    data = self._file.read(self.sizes[inner])
        except RuntimeError as error:  # a password is needed
            raise BadData(f"cannot be read from the archive: {error}") from error
        except _DAMAGE as error:
            raise BadData(f"damaged in the archive: {error}") from error
        if len(data) != self.sizes[inner]:
            raise BadData(f"damaged in the archive: {len(data):,} of {self.sizes[inner]:,} bytes")
        return data

    def close(self) -> None:
        """Let go of the file."""
        for file in (self._zip, self._file):
            if file is not None:
                file.close()

    def __del__(self) -> None:
        """Whoever still reads holds us: nobody does any more."""
        self.close()

    def _list_zip(self, opened: zipfile.ZipFile) -> None:
        entries = opened.infolist()
        backslashes = not any("/" in entry.filename for entry in entries)  # some Windows programs write them
        for entry in entries:
            name = entry.filename.replace("\\", "/") if backslashes else entry.filename
            kind = entry.external_attr >> 28  # of Unix: 8 a file, 0 not told, 10 a link
            if entry.is_dir() or name.endswith("/"):
                continue
            if kind not in (0, 8):
                self.troubles.append((name, "not an ordinary file"))
            elif self._take(name, entry.file_size):
                self._where[name.removeprefix("./")] = entry

    def _list_tar(self, path: str) -> None:
        opened = open(path, "rb")  # noqa: SIM115 closed by `close`
        self._file = opened
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            for entry in tar:
                if entry.isdir():
                    continue
                if not entry.isreg() or entry.issparse():
                    self.troubles.append((entry.name, "not an ordinary file"))
                elif self._take(entry.name, entry.size):
                    self._where[entry.name.removeprefix("./")] = entry.offset_data
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all

    def _take(self, name: str, size: int) -> bool:
        inner = name.removeprefix("./")
        if why := unsafe(inner):
            self.troubles.append((name, why))
            return False
        if inner in self._where:
            self.troubles.append((name, "is in the archive twice: the last one is read"))
        self.sizes[inner] = size
        if len(self.sizes) > MOST_FILES:
            raise BadData(f"{self.name}: more than {MOST_FILES:,} files in an archive")
        return True


def unsafe(name: str) -> str:
    """Why a name cannot be one of a file below a folder, or ""."""
    parts = name.split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "its name leads out of the folder: left out"
    if "" in parts or "." in parts:
        return "its name has an empty part: left out"
    if "\0" in name:
        return "its name holds a NUL byte: left out"
    return "" if len(parts) <= _TOO_DEEP else f"more than {_TOO_DEEP} folders in each other: left out"


def unpacker(path: str) -> Any:
    """What opens the decompressed content of a compressed tar; None where it is not compressed."""
    with open(path, "rb") as file:
        head = file.read(6)
    return next((opener for mark, opener in _PACKED.items() if head.startswith(mark)), None)


def unpack(path: str, name: str, sink: IO[bytes], grow: Callable[[int], None]) -> None:
    """The tar in a compressed tar, into a file that asks for more room as it grows; BadData where that has an end."""
    room = 0
    for block in _blocks(path, name):
        while sink.tell() + len(block) > room:
            try:
                grow(_STEP)
            except StoreError as error:
                raise BadData(f"{name}: does not fit when it is decompressed. {error}") from error
            room += _STEP
        sink.write(block)


def _blocks(path: str, name: str) -> Iterator[bytes]:
    try:
        with unpacker(path)(path, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except _DAMAGE as error:
        raise BadData(f"{name}: damaged: {error}") from error
