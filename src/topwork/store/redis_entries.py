"""Entries inside a Redis server: checked values, and the order in which they were last used.

    topwork:1:v:MEMBER     crc32(MEMBER, data) + data          MEMBER: blake2b-64(namespace) + key
    topwork:1:uses         sorted set: MEMBER by the number of the write that last used it
    topwork:1:sizes        hash: MEMBER -> bytes of memory it takes, about
    topwork:1:entries      hash: blake2b-64(namespace) -> how many          topwork:1:bytes    -> their memory
    topwork:1:names        hash: blake2b-64(namespace) -> namespace
    topwork:1:total, topwork:1:clock                    memory of all entries; number of the last write
    topwork:1:c:MEMBER     who is computing this entry now; expires (redis_claims.py)

A put is one transaction (MULTI) of at most BATCH_BYTES: the values and the account of them, or nothing. The account is
kept by scripts, which Redis runs one at a time. Nothing outside topwork:1: is read or written. One server, or what
looks like one; a Redis Cluster spreads keys over servers and is refused. A server whose maxmemory-policy is allkeys-*
may drop anything at any time, its own account included: entries are then computed again, and the limit is the server's.

Every function raises what the redis client raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from topwork.store.entries import CRC, checksum, prefix

ROOT = b"topwork:1:"
BATCH_BYTES = 16_000_000  # of one transaction, or about of one answer
MOST_AT_ONCE = 4096  # keys of one command
_SCRIPT_KEYS = 500  # entries that one script removes, so that others need not wait long
_OVERHEAD = 230  # bytes that Redis takes for an entry beside key and value, measured in benchmarks/shared_cache.py

_ACCOUNT = """
local r, id = KEYS[1], ARGV[1]
local now, grown, new = redis.call('INCR', r..'clock'), 0, 0
redis.call('HSET', r..'names', id, ARGV[2])
for i = 3, #ARGV, 2 do
  local old = redis.call('HGET', r..'sizes', ARGV[i])
  if not old then new = new + 1 end
  grown = grown + tonumber(ARGV[i + 1]) - tonumber(old or '0')
  redis.call('HSET', r..'sizes', ARGV[i], ARGV[i + 1])
  redis.call('ZADD', r..'uses', now, ARGV[i])
end
redis.call('HINCRBY', r..'entries', id, new)
redis.call('HINCRBY', r..'bytes', id, string.format('%.0f', grown))
return redis.call('INCRBY', r..'total', string.format('%.0f', grown))
"""
_TOUCH = """
local r = KEYS[1]
local now = redis.call('INCR', r..'clock')
for i = 1, #ARGV do redis.call('ZADD', r..'uses', 'XX', now, ARGV[i]) end
"""
_REMOVE = """
local function remove(r, member)
  redis.call('UNLINK', r..'v:'..member)
  local size = redis.call('HGET', r..'sizes', member)
  redis.call('ZREM', r..'uses', member)
  if not size then return 0 end
  local id = string.sub(member, 1, 8)
  redis.call('HDEL', r..'sizes', member)
  redis.call('HINCRBY', r..'bytes', id, '-'..size)
  redis.call('INCRBY', r..'total', '-'..size)
  if redis.call('HINCRBY', r..'entries', id, -1) <= 0 then
    redis.call('HDEL', r..'entries', id)
    redis.call('HDEL', r..'bytes', id)
  end
  return tonumber(size)
end
"""
_DROP = (
    _REMOVE
    + """
for i = 1, #ARGV do remove(KEYS[1], ARGV[i]) end
"""
)
_EVICT = (
    _REMOVE
    + """
local r, target = KEYS[1], tonumber(ARGV[1])
local total = tonumber(redis.call('GET', r..'total') or '0')
if total <= target then return -1 end
for _, member in ipairs(redis.call('ZRANGE', r..'uses', 0, tonumber(ARGV[2]) - 1)) do
  if total <= target then return -1 end
  total = total - remove(r, member)
end
return redis.call('ZCARD', r..'uses')
"""
)


def member(namespace: str, key: bytes) -> bytes:
    """The name of an entry."""
    return prefix(namespace) + key


def room(name: bytes, value: bytes) -> int:
    """About what an entry takes in the server's memory, whose allocator has four sizes between powers of two."""
    size = len(value) + CRC.size + 16
    step = 1 << max(4, (size - 1).bit_length() - 3)
    return -(-size // step) * step + 3 * len(name) + _OVERHEAD


def total(server: Any) -> int:
    """Memory that all entries take."""
    return int(server.get(ROOT + b"total") or 0)


def read(server: Any, names: Sequence[bytes]) -> tuple[list[bytes | None], bool]:
    """Values in the order of the names, and whether any of them failed its checksum (it is None then)."""
    found: list[bytes | None] = []
    damaged, start, size = False, 0, 256
    while start < len(names):
        some = names[start : start + size]
        stored = server.mget([ROOT + b"v:" + name for name in some])
        for name, value in zip(some, stored, strict=True):
            good = None if value is None or value[: CRC.size] != checksum(name, value[CRC.size :]) else value
            damaged |= value is not None and good is None
            found.append(None if good is None else good[CRC.size :])
        start += len(some)
        length = max(1, sum(len(value) for value in stored if value is not None) // len(some))
        size = min(MOST_AT_ONCE, max(1, BATCH_BYTES // length))  # the next ones are probably as long
    return found, damaged


def write(server: Any, namespace: str, new: Sequence[tuple[bytes, bytes]]) -> None:
    """Put some entries and account for them, in one transaction."""
    with server.pipeline(transaction=True) as pipe:
        pipe.mset({ROOT + b"v:" + name: checksum(name, value) + value for name, value in new})
        sizes = [part for name, value in new for part in (name, room(name, value))]
        pipe.eval(_ACCOUNT, 1, ROOT, prefix(namespace), namespace.encode(), *sizes)
        pipe.execute()


def touch(server: Any, names: Iterable[bytes]) -> None:
    """Mark entries as used now."""
    for some in batches(list(names)):
        server.eval(_TOUCH, 1, ROOT, *some)


def evict(server: Any, target: int) -> None:
    """Delete the least recently used entries until at most `target` bytes are left; ties go by name."""
    while (left := server.eval(_EVICT, 1, ROOT, target, _SCRIPT_KEYS)) >= 0:
        if not left:  # the account was lost or half lost: there is nothing to count any more
            server.delete(ROOT + b"total", ROOT + b"sizes", ROOT + b"entries", ROOT + b"bytes")
            return


def clear(server: Any, namespace: str) -> None:
    """Delete a namespace and those below it ("features" holds "features/...")."""
    for start, name in server.hgetall(ROOT + b"names").items():
        if f"{name.decode()}/".startswith(f"{namespace}/"):
            gone = [own for own, _ in server.hscan_iter(ROOT + b"sizes", match=_literal(start) + b"*", count=1000)]
            for some in batches(gone, _SCRIPT_KEYS):
                server.eval(_DROP, 1, ROOT, *some)
            server.hdel(ROOT + b"names", start)


def clear_all(server: Any) -> None:
    """Delete everything of ours, and nothing else."""
    gone: list[bytes] = []
    for key in server.scan_iter(match=ROOT + b"*", count=1000):
        gone.append(key)
        if len(gone) == _SCRIPT_KEYS:
            server.unlink(*gone)
            gone.clear()
    if gone:
        server.unlink(*gone)


def contents(server: Any) -> dict[str, dict[str, int]]:
    """Number of entries and their memory for every namespace."""
    names, entries, sizes = (server.hgetall(ROOT + part) for part in (b"names", b"entries", b"bytes"))
    ordered = sorted((name.decode(), start) for start, name in names.items())
    return {
        name: {"entries": int(entries[start]), "bytes": int(sizes.get(start, 0))}
        for name, start in ordered
        if int(entries.get(start, 0)) > 0
    }


def batches(names: Sequence[bytes], most: int = MOST_AT_ONCE) -> Iterator[Sequence[bytes]]:
    """So many at a time."""
    return (names[start : start + most] for start in range(0, len(names), most))


def by_bytes(namespace: str, new: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """(name, value) pairs in parts of at most BATCH_BYTES; the last value of a key stands."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in dict(new).items():
        name = member(namespace, key)
        if part and (size + len(value) > BATCH_BYTES or len(part) == MOST_AT_ONCE):
            yield part
            part, size = [], 0
        part.append((name, value))
        size += len(value)
    if part:
        yield part


def _literal(text: bytes) -> bytes:
    r"""For MATCH, where * ? [ ] ^ - and \ mean something."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]^-\\" else bytes([c]) for c in text)
