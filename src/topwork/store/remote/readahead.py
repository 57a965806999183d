"""Reading ahead: while some files are used, the next ones are fetched, a few at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from topwork.store.remote.fetch import MOST_BYTES, Fetcher

FETCHERS = 16  # downloads at a time
AHEAD_FILES, AHEAD_BYTES = 64, 256_000_000  # fetched before they are asked for; at most a quarter of the copies' limit


class Ahead:
    """Fetches what will be read next: a window of files behind the one that was read last."""

    def __init__(self, fetcher: Fetcher, paths: Sequence[str]) -> None:
        self._fetcher, self._paths = fetcher, paths
        self._at = {path: i for i, path in reversed(list(enumerate(paths)))}  # the first place of each
        self._bytes = min(AHEAD_BYTES, fetcher.copies.limit.value // 4)
        self._next = self._heavy = 0
        self._weights: dict[int, int] = {}
        self._reached = -1
        self._stopped = False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    def __enter__(self) -> None:
        self._fetcher.readers.append(self.reached)
        self._submit()

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._fetcher.readers.remove(self.reached)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def reached(self, path: str) -> None:
        """This one is being read now."""
        at = self._at.get(path)
        if at is not None and at > self._reached:
            with self._lock:
                for i in range(self._reached + 1, at + 1):
                    self._heavy -= self._weights.pop(i, 0)
                self._reached = max(self._reached, at)
                self._next = max(self._next, at + 1)
            self._submit()

    def _submit(self) -> None:
        with self._lock:
            while (
                not self._stopped
                and self._next < len(self._paths)
                and self._next - self._reached <= AHEAD_FILES
                and (self._heavy < self._bytes)
            ):
                path = self._paths[self._next]
                self._weights[self._next] = self._fetcher.weight(path)  # a guess, perhaps: taken back as it was
                self._heavy += self._weights[self._next]
                self._next += 1
                if not self._fetcher.ready(path):
                    self._pool.submit(self._fetch, path)

    def _fetch(self, path: str) -> None:
        if not self._stopped:
            with contextlib.suppress(Exception):  # who reads it meets the same, and says it
                self._fetcher.fetched(path, MOST_BYTES)
