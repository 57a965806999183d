"""The store that the settings name: the cache of this machine, a server's above it, an encrypted one around both.

lmdb_cache.py    one file of this machine          redis_cache.py   shared by several machines
encryption.py    what wraps either                 own_files.py     files that lie beside them
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from pathlib import Path

from topwork import settings
from topwork.store import Remembering
from topwork.store.lmdb_cache import Cache

_CACHES: dict[Path, Cache] = {}
_CACHES_LOCK = threading.Lock()


def open_cache() -> Remembering:
    """What the settings name: the cache of this machine, a server's above it, an encrypted one around both."""
    store: Remembering = _of_this_machine()
    if url := settings.cache_url():
        from topwork.store.redis_cache import open_redis

        store = open_redis(url, _of_this_machine())
    if settings.encrypted():
        from topwork.store.encryption import wrapped
        from topwork.store.keys import current

        store = wrapped(store, current())
    return store


def _of_this_machine() -> Cache:
    """One object per folder and process. Others let go of their files."""
    root, limit = settings.cache_folder(), settings.cache_limit_bytes()
    with contextlib.suppress(OSError):
        root = root.resolve()
    with _CACHES_LOCK:
        cache = _CACHES.setdefault(root, Cache(root, limit))
    for other in _CACHES.values():
        if other is not cache:
            other.close()
    if cache.limit != limit:
        cache.close()
        cache.limit = limit
    return cache


@atexit.register
def close_all() -> None:
    """Write down what was used, in all that were opened."""
    if server := sys.modules.get("topwork.store.redis_cache"):
        server.close_all()
    for cache in _CACHES.values():
        cache.close()


def _after_fork() -> None:
    """In a child no other thread runs, so nobody would ever release a lock that was held."""
    for cache in _CACHES.values():
        cache._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
