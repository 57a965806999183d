"""What is remembered: a cache of all that can be computed again, and outputs that appear whole or not at all.

class Store(Protocol): get_many, put_many, info, clear        cache.py holds the one for this machine (LMDB)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Store(Protocol):
    """Bytes by namespace and key. Safe for several processes; a put is complete or absent, whatever kills us."""

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        ...

    def put_many(self, namespace: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs in one transaction."""
        ...
