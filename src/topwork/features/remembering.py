"""New features on their way into the matrix and the store; other runs that want the same wait."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from topwork import processes
from topwork.features.contents import Contents
from topwork.features.matrix import Matrix
from topwork.store import Store, claims_of, locks
from topwork.types import Progress

WRITE_EVERY_SECONDS = 0.25


class Read(Protocol):
    """What was read of a batch, or could not be."""

    @property
    def contents(self) -> list[int]:
        """Those with features."""
        ...

    @property
    def reasons(self) -> dict[int, str]:
        """Those without, and why."""
        ...


Passed = tuple[Read, NDArray[np.float32]]


@contextlib.contextmanager
def claimed(cache: Store | None, contents: Contents, namespace: str) -> Iterator[bool]:
    """Other runs wait that want the same of the same contents; says whether this one had to.

    Nobody waits where the store itself says who computes what (sharing.py).
    """
    if cache is None or processes.rank() or claims_of(cache) is not None:
        yield False
        return
    named = hashlib.blake2b(b"".join(contents.keys), digest_size=16).hexdigest()
    with locks.held(f"{namespace} {named}") as waited:
        yield waited


def collect(
    passes: Iterator[Passed], matrix: Matrix, store: Store | None, namespace: str, progress: Progress
) -> dict[int, str]:
    """Fill the matrix and the store; returns the contents that could not be read, with the reason."""
    keys = matrix.contents.keys
    reasons: dict[int, str] = {}
    waiting: list[tuple[bytes, bytes]] = []
    unread: list[bytes] = []
    written, claims = time.monotonic(), claims_of(store)

    def put(store: Store) -> None:
        store.put_many(namespace, waiting)
        if claims is not None:
            claims.release(namespace, [*(key for key, _ in waiting), *unread])
        waiting.clear()
        unread.clear()

    try:
        for batch, values in passes:
            matrix.fill(batch.contents, values)
            reasons |= batch.reasons
            unread += (keys[u] for u in batch.reasons)
            waiting += ((keys[u], row.tobytes()) for u, row in zip(batch.contents, values, strict=True))
            progress("extract", matrix.filled + len(reasons), len(keys))
            if store is not None and time.monotonic() - written > WRITE_EVERY_SECONDS:
                put(store)
                written = time.monotonic()
    finally:
        if store is not None and (waiting or unread):
            put(store)
    return reasons
