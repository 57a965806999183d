"""What is remembered: a cache of all that can be computed again, and outputs that appear whole or not at all.

class Store(Protocol): get_many, put_many                              what rooms ask of it
class Remembering(Store): info, clear, close, notes                    what verbs and doors ask of it
    cache.py (LMDB, this machine)   redis_cache.py (a server that several share)   encryption.py (around either)
class Claims(Protocol): claim, release                                 who computes what, where several share a store
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Store(Protocol):
    """Bytes by namespace and key. Safe for several processes; a put is complete or absent, whatever kills us."""

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        ...

    def put_many(self, namespace: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs in one transaction."""
        ...


class Remembering(Store, Protocol):
    """A Store as it is opened: what went wrong is said in `notes`, once, and never ends a run."""

    @property
    def notes(self) -> list[str]:
        """What went wrong."""
        ...

    def info(self) -> dict[str, Any]:
        """Where it lies, how large it is and may become, and what is in it."""
        ...

    def clear(self, namespace: str | None = None) -> None:
        """Forget a namespace with all below it, or everything."""
        ...

    def close(self) -> None:
        """Let go of files and connections. The next use opens them again."""
        ...


class Claims(Protocol):
    """Who computes which entries, where several machines share a store; see redis_claims.py."""

    def claim(self, namespace: str, keys: Sequence[bytes]) -> list[str]:
        """For each key "ours" (compute it), "theirs" (somebody does) or "there" (the value is in the store)."""
        ...

    def release(self, namespace: str, keys: Sequence[bytes]) -> None:
        """What was put, or could not be computed."""
        ...


LONGEST_KEY = 256  # bytes


def check_key(key: bytes) -> bytes:
    """The key, if it is not too long for any store."""
    if len(key) > LONGEST_KEY:
        raise ValueError(f"A key of {len(key)} bytes; at most {LONGEST_KEY}: hash it first")
    return key


def claims_of(store: Store | None) -> Claims | None:
    """The claims of a store that several machines share; None for one of this machine."""
    return getattr(store, "claims", None)
