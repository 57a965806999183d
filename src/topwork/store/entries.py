"""Entries inside one LMDB file: checked values, and the order in which they were last used.

    values   blake2b-64(namespace) + key  ->  crc32(whole key, data) + data
    uses     blake2b-64(namespace) + key  ->  number of the transaction that last used it, bytes of room it takes
    names    blake2b-64(namespace)        ->  namespace

LMDB numbers its write transactions, so "last used" needs no clock and eviction is deterministic. Reading writes
nothing: the caller collects the keys it used and hands them to the next `write` or `touch`.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from topwork.store.environment import Environment

_USE = struct.Struct("<QQ")
CRC = struct.Struct("<I")
_PAGE = 4096
_INLINE = 2000  # LMDB gives larger entries pages of their own


def prefix(namespace: str) -> bytes:
    """First 8 bytes of every key of a namespace."""
    return hashlib.blake2b(namespace.encode(), digest_size=8).digest()


def room(key: bytes, value: bytes) -> int:
    """About what an entry takes in the file: whole pages if large, else a share of pages that are two thirds full."""
    use = (len(key) + 40) * 3 // 2
    size = len(value) + CRC.size + 16
    return use + (-(-size // _PAGE) * _PAGE if size > _INLINE else (size + len(key)) * 3 // 2)


def total(env: Environment) -> int:
    """Room that all entries take."""
    with env.begin() as txn:
        return _total(txn)


def read(env: Environment, keys: list[bytes]) -> tuple[list[bytes | None], bool]:
    """Values in the order of the keys, and whether any of them failed its checksum (it is None then)."""
    found: list[bytes | None] = []
    damaged = False
    with env.begin() as txn:
        for key in keys:
            stored = txn.get(key, db=env.values)  # a view into the map, good until the transaction ends
            data = None if stored is None else bytes(stored[CRC.size :])
            if stored is not None and data is not None and bytes(stored[: CRC.size]) != checksum(key, data):
                data, damaged = None, True
            found.append(data)
    return found, damaged


def write(env: Environment, namespace: str, entries: dict[bytes, bytes], used: Iterable[bytes]) -> None:
    """Put all entries, and mark the used ones, in one transaction."""
    with env.begin(write=True) as txn:
        _touch(env, txn, used)
        size, now = _total(txn), txn.id()
        txn.put(prefix(namespace), namespace.encode(), db=env.names)
        for key, value in entries.items():
            old = txn.get(key, db=env.uses)
            size += room(key, value) - (_USE.unpack(old)[1] if old else 0)
            txn.put(key, checksum(key, value) + value, db=env.values)
            txn.put(key, _USE.pack(now, room(key, value)), db=env.uses)
        _set_total(txn, size)


def touch(env: Environment, used: Iterable[bytes]) -> None:
    """Mark entries as used now."""
    with env.begin(write=True) as txn:
        _touch(env, txn, used)


def evict(env: Environment, target: int, used: Iterable[bytes]) -> None:
    """Delete the least recently used entries until at most `target` bytes are left; ties go by key."""
    with env.begin(write=True) as txn:
        _touch(env, txn, used)
        ages: Counter[int] = Counter()
        for record in txn.cursor(env.uses).iternext(keys=False):
            last, size = _USE.unpack(record)
            ages[last] += size
        left, youngest = sum(ages.values()), -1  # youngest: last use of the youngest entries that leave
        for last in sorted(ages):
            if left <= target:
                break
            left, youngest = left - ages[last], last
        for key, record in [item for item in txn.cursor(env.uses) if _USE.unpack(item[1])[0] <= youngest]:
            last, size = _USE.unpack(record)
            if last == youngest and left + size <= target:
                left += size  # not all of the youngest need to go
                continue
            _delete(env, txn, key)
        _set_total(txn, left)


def clear(env: Environment, namespace: str) -> None:
    """Delete a namespace and those below it ("features" holds "features/...")."""
    with env.begin(write=True) as txn:
        left = _total(txn)
        for start, name in list(txn.cursor(env.names)):
            if f"{name.decode()}/".startswith(f"{namespace}/"):
                for key, record in list(_under(txn.cursor(env.uses), start)):
                    left -= _USE.unpack(record)[1]
                    _delete(env, txn, key)
                txn.delete(start, db=env.names)
        _set_total(txn, left)


def contents(env: Environment) -> dict[str, dict[str, int]]:
    """Number of entries and their room for every namespace."""
    entries: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    with env.begin() as txn:
        names = {bytes(start): str(name, "utf-8") for start, name in txn.cursor(env.names)}
        for key, record in txn.cursor(env.uses):
            entries[bytes(key[:8])] += 1
            sizes[bytes(key[:8])] += _USE.unpack(record)[1]
    ordered = sorted(names.items(), key=lambda item: item[1])
    return {name: {"entries": entries[at], "bytes": sizes[at]} for at, name in ordered if entries[at]}


def checksum(key: bytes, value: bytes) -> bytes:
    """What stands before a stored value."""
    return CRC.pack(zlib.crc32(value, zlib.crc32(key)))


def _touch(env: Environment, txn: Any, used: Iterable[bytes]) -> None:
    now = txn.id()
    for key in used:
        old = txn.get(key, db=env.uses)
        if old:
            txn.put(key, _USE.pack(now, _USE.unpack(old)[1]), db=env.uses)


def _delete(env: Environment, txn: Any, key: bytes) -> None:
    txn.delete(key, db=env.values)
    txn.delete(key, db=env.uses)


def _total(txn: Any) -> int:
    return int(bytes(txn.get(b"total") or b"0"))


def _set_total(txn: Any, size: int) -> None:
    txn.put(b"total", str(size).encode())


def _under(cursor: Any, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    if cursor.set_range(start):
        for key, record in cursor:
            if not key.startswith(start):
                return
            yield key, record
