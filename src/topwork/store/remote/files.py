"""A remote file: what is known of it, what a client of its endpoint answers, and any file system of fsspec as one."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from dataclasses import dataclass
from typing import IO, Any, Protocol

CONNECT_SECONDS, READ_SECONDS = 4.0, 15.0  # to reach a server; between two packets of an answer
BLOCK = 16 * 2**20  # bytes of one request
CONNECTIONS = 24
PAGE_KEYS = 1000  # of a listing: as many as S3 gives at once
ETAG = "etag"
_MD5 = re.compile(r"[0-9a-f]{32}")


class Broken(OSError):
    """What came is not what the server said it would be."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a remote file without its bytes."""

    size: int | None
    version: str  # etag, generation or time: another version, another text
    told: str = ""  # MD5 as 32 hex digits where the server tells it, or ETAG: the version is it

    @property
    def md5(self) -> str:
        """MD5 of the content as 32 hex digits; "": not known."""
        return self.version.strip('"').lower() if self.told == ETAG else self.told


@dataclass(frozen=True, slots=True)
class Listed:
    """A file below a folder; facts are None where the listing does not tell them."""

    name: str  # relative, parts divided by /
    address: str  # "": that of the folder and the name
    facts: Facts | None


Page = tuple[list[Listed], list[str], Any]
"""Files, folders, and the mark of the next page: None where this is the last."""


class Client(Protocol):
    """One endpoint. Calls block; several threads may call at once. Errors are raw: `patiently` sorts them."""

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        """Files below a folder and, unless deep, the names of its folders; the mark leads to the next page."""
        ...

    def facts(self, address: str) -> Facts:
        """Of one file."""
        ...

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        """Append what `sink` has not yet; at most so many bytes in all; facts as the answer tells them."""
        ...


class Files:
    """Any file system of fsspec."""

    def __init__(self, fsspec: Any, scheme: str, **options: Any) -> None:
        self.files = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:  # noqa: ARG002 all at once
        """A page of a listing."""
        self.files.invalidate_cache()
        root = address.strip("/")
        if deep:
            found = self.files.find(address, detail=True)
            entries = found.values() if isinstance(found, dict) else found
        else:
            entries = self.files.ls(address, detail=True)
        files: list[Listed] = []
        folders: list[str] = []
        for entry in entries:
            whole = entry["name"].strip("/")
            if not whole.startswith(f"{root}/"):
                continue
            name = whole[len(root) + 1 :]
            if entry["type"] == "directory":
                folders.append(name)
            else:
                files.append(Listed(name, entry["name"], _facts_of(entry)))
        return files, folders, None

    def facts(self, address: str) -> Facts:
        """Of one file."""
        entry = self.files.info(address)
        if entry["type"] == "directory":
            raise FileNotFoundError(address)
        return _facts_of(entry)

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        """Append what `sink` has not yet."""
        facts = facts or self.facts(address)
        size = facts.size
        if size is None:
            raise Broken("its length is not known")
        if size > most:
            return facts
        while (at := sink.tell()) < size:
            whole = at == 0 and size <= BLOCK
            data = self._bytes(address, facts, *((None, None) if whole else (at, min(size, at + BLOCK))))
            if len(data) != (size if whole else min(size, at + BLOCK) - at):
                raise Broken(f"{at + len(data):,} of {size:,} bytes came")
            sink.write(data)
            if not whole and not isinstance(sink, io.BytesIO):  # it outlives us: the next process goes on behind it
                sink.flush()
                os.fsync(sink.fileno())
        return facts

    def _bytes(self, address: str, facts: Facts, start: int | None, end: int | None) -> bytes:  # noqa: ARG002
        """Those of a part of a file; None, None: all."""
        return self.files.cat_file(address, **({} if start is None else {"start": start, "end": end}))


def _facts_of(entry: dict[str, Any]) -> Facts:
    """From fsspec's description of a file."""
    size = entry.get("size")
    etag = entry.get("ETag") or entry.get("etag") or entry.get("generation")
    when = entry.get("LastModified") or entry.get("mtime") or entry.get("updated") or entry.get("created")
    facts = of_etag(size, str(etag or ""), when)
    if entry.get("md5Hash"):
        return Facts(size, facts.version, of_base64(entry["md5Hash"]))
    return facts if "ETag" in entry else Facts(size, facts.version)


def of_etag(size: int | None, etag: str, when: Any) -> Facts:
    """An S3 etag is the MD5 of the content, but for objects written in parts (it has a dash) or encrypted by KMS."""
    bare = etag.strip('"').lower()
    return Facts(size, etag or str(when or ""), ETAG if _MD5.fullmatch(bare) else "")


def of_base64(text: str) -> str:
    """An MD5 as 32 hex digits; "" where it is none."""
    try:
        digest = base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
    return digest if len(digest) == 32 else ""
