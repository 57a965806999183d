"""What can be computed again, shared by several machines through one Redis server: --cache redis://HOST:PORT/DB.

    get     the server, then what it lacks from the cache of this machine (and the server gets that, too)
    put     the cache of this machine, then the server, in transactions of at most 16 MB
    claims  who computes what (redis_claims.py), so that several workers compute every item once

Entries, checksums, and the order in which they leave: redis_entries.py. The limit is TOPWORK_CACHE_GB, else 80 % of
the server's maxmemory, else half of its machine's memory, 10 GB at most; above it the least recently used leave.

A wrong address or password ends a run before its work begins. What goes wrong later never does, and is said once, in
`notes`: a server that goes away, or does not answer within SECONDS, is not asked again in this run; one that is full or
read-only is read from and not written to. All that was computed here is in the cache of this machine in any case.

What stays on this machine with any server: decoded frames, boundary activations and the tokens of a pretraining, which
are mapped into memory from files; exported graphs and cards; locks between processes; the run folders and models.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from topwork import settings
from topwork.errors import BadSetting, MissingExtra, StoreError
from topwork.settings import without_password
from topwork.store import check_key
from topwork.store import redis_entries as entries
from topwork.store.lmdb_cache import KEEP, Cache
from topwork.store.redis_claims import SECONDS as CLAIM_SECONDS
from topwork.store.redis_claims import RedisClaims
from topwork.types import Choice

T = TypeVar("T")
CONNECT_SECONDS = 2.0
SECONDS = 5.0  # without a byte from the server
_MOST = 10e9
_TRIES = 3  # to make room in a server that says it is full
_UNSAID_USES = 100_000  # reads to remember before they are written
_TWO = (entries.ROOT + b"total", entries.ROOT + b"clock")
_CLUSTER = (
    " is a node of a Redis Cluster, which spreads keys that belong together. Expected a single server: start a "
    "redis-server beside it, or name a folder with --cache"
)


class RedisCache:
    """A Store in a Redis server, with the cache of this machine below it. May be used from several threads."""

    def __init__(
        self, url: str, local: Cache | None = None, limit: Choice | None = None, claim_seconds: float = CLAIM_SECONDS
    ) -> None:
        """Raises StoreError, in one line, where the server cannot be used."""
        self.url = without_password(url)
        self.local = local
        self._own_notes: list[str] = []
        self._used: dict[bytes, None] = {}
        self._lock = threading.RLock()
        self._writing, self._there = True, False
        self._errors, self._server = _client(url)
        self.claims = RedisClaims(self._safely, claim_seconds)
        facts = self._reach()
        self._there = True
        self.limit = limit or _limit(facts)

    @property
    def notes(self) -> list[str]:
        """What went wrong, here and in the cache of this machine."""
        below = self.local.notes if self.local is not None else []
        return list(dict.fromkeys([*self._own_notes, *below]))

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        names = [entries.member(namespace, check_key(key)) for key in keys]
        nothing: list[bytes | None] = [None] * len(names)
        found = self._safely(lambda server: self._get(server, names), nothing) if names else nothing
        missing = [i for i, value in enumerate(found) if value is None]
        if self.local is None or not missing:
            return found
        ours = self.local.get_many(namespace, [keys[i] for i in missing])
        more = {keys[i]: value for i, value in zip(missing, ours, strict=True) if value is not None}
        if more:
            self._put(namespace, more)
            found = [more.get(key) if value is None else value for key, value in zip(keys, found, strict=True)]
        return found

    def put_many(self, namespace: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs, in one transaction where they are no more than 16 MB."""
        new = {check_key(key): value for key, value in pairs}
        if not new:
            return
        if self.local is not None:
            self.local.put_many(namespace, new.items())
        self._put(namespace, new)

    def info(self) -> dict[str, Any]:
        """Which server, how much memory our entries take and may take, and what they are."""
        facts = {
            "folder": self.url,
            "bytes": self._safely(entries.total, 0),
            "limit_bytes": self.limit.value,
            "limit": f"{self.limit.value / 1e9:,.1f} GB ({self.limit.reason})",
            "namespaces": self._safely(entries.contents, {}),
        }
        return {**facts, "notes": self.notes, **({} if self.local is None else {"local": self.local.info()})}

    def clear(self, namespace: str | None = None) -> None:
        """Forget a namespace with all below it, or everything of ours; in the server and on this machine."""
        with self._lock:
            self._used.clear()
        if namespace is None:
            self._safely(entries.clear_all, None)
        else:
            self._safely(lambda server: entries.clear(server, namespace), None)
        self._writing = True
        if self.local is not None:
            self.local.clear(namespace)

    def close(self) -> None:
        """Write down what was used, give claims back, let go of the connections. The next use opens them again."""
        self.claims.close()
        if self._writing and self._used:
            self._safely(self._write_uses, None)
        with contextlib.suppress(Exception):
            self._server.close()
        if self.local is not None:
            self.local.close()

    def again(self) -> None:
        """Ask a server once more that went away before."""
        if not self._there:
            with contextlib.suppress(StoreError):
                self._reach()
                self._there = self._writing = True

    def __enter__(self) -> RedisCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, server: Any, names: list[bytes]) -> list[bytes | None]:
        found, damaged = entries.read(server, names)
        if damaged:
            self._say(f"The cache at {self.url} held damaged entries; they are computed again")
        if self._writing:
            with self._lock:
                self._used.update((name, None) for name, value in zip(names, found, strict=True) if value is not None)
            if len(self._used) > _UNSAID_USES:
                self._write_uses(server)
        return found

    def _put(self, namespace: str, new: dict[bytes, bytes]) -> None:
        for part in entries.by_bytes(namespace, new.items()):
            if self._writing:
                self._safely(lambda server, part=part: self._write(server, namespace, part), None)

    def _write(self, server: Any, namespace: str, part: list[tuple[bytes, bytes]]) -> None:
        limit = self.limit.value
        needed = sum(entries.room(name, value) for name, value in part)
        if needed > KEEP * limit:
            size = sum(len(value) for _, value in part)
            self._say(f"{size / 1e6:,.1f} MB at once are not kept: the cache may take {limit / 1e6:,.1f} MB")
            return
        for attempt in range(_TRIES):
            try:
                self._write_uses(server)
                if (there := entries.total(server)) + needed > limit:
                    entries.evict(server, int(KEEP * limit) - needed)
                entries.write(server, namespace, part)
                return
            except self._errors.OutOfMemoryError:
                if attempt == _TRIES - 1:
                    raise
                there = entries.total(server)
                entries.evict(server, max(int(KEEP * there) - needed, there // 2))

    def _write_uses(self, server: Any) -> None:
        with self._lock:
            used, self._used = self._used, {}
        entries.touch(server, used)

    def _safely(self, work: Callable[[Any], T], otherwise: T) -> T:
        """Run work on the server; go on without it where it went away, and without writing where it refuses."""
        if not self._there:
            return otherwise
        try:
            return work(self._server)
        except (self._errors.OutOfMemoryError, self._errors.ReadOnlyError, self._errors.NoPermissionError) as error:
            self._refused(error)
        except (self._errors.RedisError, OSError, ValueError) as error:
            if str(error).startswith("MISCONF"):  # it cannot save to its disk and takes nothing more
                self._refused(error)
            else:
                self._gone(error)
        return otherwise

    def _refused(self, error: Exception) -> None:
        self._writing = False
        with self._lock:
            self._used.clear()
        full = isinstance(error, self._errors.OutOfMemoryError)
        why = "is full (maxmemory)" if full else f"cannot be written ({_reason(error)})"
        self._say(f"The cache at {self.url} {why}: {self._from_now_on()}")

    def _gone(self, error: Exception) -> None:
        self._there = False
        with self._lock:
            self._used.clear()
        self._say(f"The cache at {self.url} went away ({_reason(error)}): {self._from_now_on()}")

    def _from_now_on(self) -> str:
        if self.local is None:
            return "nothing more is kept"
        return f"what is new is kept in {self.local.root} only. Nothing that was computed here is lost"

    def _say(self, note: str) -> None:
        with self._lock:
            if note not in self._own_notes:
                self._own_notes.append(note)

    def _reach(self) -> dict[str, Any]:
        """What the server tells of itself; StoreError where it is not one that we can use."""
        errors, url = self._errors, self.url
        try:
            self._server.ping()
            self._server.exists(*_TWO)  # no node of a cluster has both
        except errors.AuthenticationError as error:
            fix = "Name the right one in the URL or in TOPWORK_REDIS_PASSWORD"
            raise StoreError(f"{url} does not take this password ({_reason(error)}). {fix}") from None
        except errors.InvalidResponse:
            raise StoreError(f"{url} does not answer as a Redis server does. Is it another service's port?") from None
        except (errors.TimeoutError, TimeoutError):
            raise StoreError(f"{url} does not answer within {SECONDS:g} seconds. Is it a Redis server?") from None
        except (errors.RedisError, OSError, ValueError) as error:
            if isinstance(error, _cluster_errors(errors)) or "cluster mode" in str(error):
                raise StoreError(url + _CLUSTER) from None
            if isinstance(error, errors.NoPermissionError):
                return {}  # found out, and said, when it is used
            fix = "Start the server, or name a folder"
            raise StoreError(f"{url} cannot be used as a cache: {_reason(error)}. {fix} with --cache") from None
        try:
            facts: dict[str, Any] = {**self._server.info("server"), **self._server.info("memory")}
        except (errors.RedisError, OSError, ValueError):
            return {}  # a user who may not ask
        if facts.get("redis_mode") == "cluster":
            raise StoreError(url + _CLUSTER)
        return facts


def _client(url: str) -> tuple[Any, Any]:
    """The library's errors, and a client that has not connected yet."""
    try:
        import redis
        from redis import exceptions
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise MissingExtra.of("redis", f"A cache at {without_password(url)}") from error
    try:
        client = redis.Redis.from_url(
            url,
            password=os.environ.get("TOPWORK_REDIS_PASSWORD") or None,
            protocol=2,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=SECONDS,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),  # a closed one is opened again
        )
        client.connection_pool.make_connection()  # options that it does not know
    except (ValueError, TypeError) as error:
        expected = "redis://HOST:PORT/DB or rediss://HOST:PORT/DB"
        raise BadSetting(f"--cache {without_password(url)} is no address: {error}. Expected {expected}") from None
    return exceptions, client


def _cluster_errors(errors: Any) -> tuple[type[Exception], ...]:
    return errors.ClusterError, errors.ClusterCrossSlotError, errors.MovedError


def _limit(facts: dict[str, Any]) -> Choice:
    """Memory at which the least recently used entries leave."""
    if os.environ.get("TOPWORK_CACHE_GB"):
        return settings.cache_limit_bytes()
    limits = [(_MOST, "default")]
    if facts.get("maxmemory"):
        limits.append((0.8 * facts["maxmemory"], "80 % of the server's maxmemory"))
    elif facts.get("total_system_memory"):
        limits.append((facts["total_system_memory"] / 2, "half of the memory of the server's machine"))
    value, reason = min(limits)
    return Choice("cache limit", int(value), reason)


def _reason(error: Exception) -> str:
    """The first line, without what might be a secret."""
    lines = str(error).splitlines() or [type(error).__name__]
    return without_password(lines[0].rstrip("."))[:200]


_CACHES: dict[tuple[str, str, Path | None], RedisCache] = {}
_CACHES_LOCK = threading.Lock()


def open_redis(url: str, local: Cache) -> RedisCache:
    """The cache at this server: one object per address, password, local folder and process."""
    key = (url, os.environ.get("TOPWORK_REDIS_PASSWORD", ""), local.root)
    with _CACHES_LOCK:
        cache = _CACHES.get(key)
        if cache is None:
            cache = _CACHES[key] = RedisCache(url, local)
            return cache
    cache.again()
    if os.environ.get("TOPWORK_CACHE_GB"):
        cache.limit = settings.cache_limit_bytes()
    return cache


def close_all() -> None:
    """Write down what was used and give claims back; cache.py calls it at the end."""
    for cache in _CACHES.values():
        cache.close()


def _after_fork() -> None:
    """In a child no other thread runs, so nobody would ever release a lock that was held."""
    for cache in _CACHES.values():
        cache._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
