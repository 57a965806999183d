"""One process at a time: a lock by name in the cache folder. Whoever waited finds what the other one left there.

The lock goes with its process, however it dies. Where the system has no such locks, or the folder cannot be written,
nobody waits: the work is then done twice, and is as right.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from topwork import settings
from topwork.types import digest

POLL_SECONDS = 0.05


@contextlib.contextmanager
def held(name: str) -> Iterator[bool]:
    """Hold the lock of this name; says whether another process had it."""
    handle, waited = None, False
    try:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            folder = settings.cache_folder() / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / digest(name), os.O_RDWR | os.O_CREAT, 0o644)
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = True
                    time.sleep(POLL_SECONDS)
        yield waited
    finally:
        if handle is not None:
            os.close(handle)
