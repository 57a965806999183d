"""Look at every image once: its content, its size, a hash and a sketch that tell copies of the same picture.

read -> BLAKE2b-128 of the bytes -> Facts (from the store when this content was seen before, else by a small decode)
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import exact, twins
from topwork.errors import BadData
from topwork.modalities.image import SKETCH, Facts, check_pixels, describe, read_bytes
from topwork.store import Store
from topwork.types import Dataset, Progress

NAMESPACE = "facts/1"
BATCH = 256  # files between two writes to the store


@dataclass(frozen=True, eq=False)
class Seen:
    """What the files told, as arrays: 50,000 images take 20 MB."""

    contents: NDArray[np.uint8]  # (N, 16)
    hashes: NDArray[np.uint64]  # (N,)
    sketches: NDArray[np.uint8]  # (N, 288)
    blank: NDArray[np.bool_]  # (N,)
    sizes: NDArray[np.int64]  # (N, 3): width px, height px, bytes
    kinds: NDArray[np.int32]  # (N, 2): index of mode and format in `words`
    words: list[str]
    reasons: list[str | None]  # why a file cannot be used

    def take(self, rows: NDArray[Any]) -> Seen:
        """Some of them."""
        names = ("contents", "hashes", "sketches", "blank", "sizes", "kinds")
        arrays = {name: getattr(self, name)[rows] for name in names}
        return dataclasses.replace(self, **arrays, reasons=[self.reasons[row] for row in rows])

    def facts(self) -> dict[str, Any]:
        """Sizes, modes and formats as plain JSON."""
        return {
            "bytes": int(self.sizes[:, 2].sum()),
            "width": _spread(self.sizes[:, 0]),
            "height": _spread(self.sizes[:, 1]),
            "modes": dict(Counter(self.words[k] for k in self.kinds[:, 0].tolist()).most_common()),
            "formats": dict(Counter(self.words[k] for k in self.kinds[:, 1].tolist()).most_common()),
        }

    def same(self) -> NDArray[np.int32]:
        """(N,) numbers: equal for equal bytes."""
        return exact(self.contents)

    def twins(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """(N,) numbers: equal for the same picture."""
        return twins(self.contents, self.hashes, self.sketches, self.blank, labels)


def look(dataset: Dataset, store: Store | None, threads: int, progress: Progress) -> Seen:
    """Read every file once."""
    N = len(dataset)
    seen = Seen(
        np.zeros((N, 16), np.uint8),
        np.zeros(N, np.uint64),
        np.zeros((N, SKETCH), np.uint8),
        np.zeros(N, bool),
        np.zeros((N, 3), np.int64),
        np.zeros((N, 2), np.int32),
        [],
        [None] * N,
    )
    word: dict[str, int] = {}
    lock = threading.Lock()

    def one(path: str) -> tuple[bytes, int, Facts | str, bool]:
        try:
            data = read_bytes(path)
        except BadData as error:
            return b"", 0, str(error), False
        content = hashlib.blake2b(data, digest_size=16).digest()
        try:
            if store is not None:
                with lock:
                    known = store.get_many(NAMESPACE, [content])[0]
                if known is not None:
                    facts = Facts.from_bytes(known)
                    check_pixels(facts.width, facts.height)
                    return content, len(data), facts, False
            return content, len(data), describe(data), True
        except BadData as error:
            return content, len(data), str(error), False

    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="inspect")
    try:
        for start in range(0, N, BATCH):
            paths = dataset.replace(table=dataset.table.slice(start, BATCH)).paths()
            fresh: dict[bytes, bytes] = {}
            for row, (content, size, facts, new) in enumerate(pool.map(one, paths), start):
                if isinstance(facts, str):
                    seen.reasons[row] = facts
                    continue
                seen.contents[row] = np.frombuffer(content, np.uint8)
                seen.hashes[row], seen.blank[row] = facts.fingerprint, facts.blank
                seen.sketches[row] = np.frombuffer(facts.sketch, np.uint8)
                seen.sizes[row] = facts.width, facts.height, size
                seen.kinds[row] = [word.setdefault(w, len(word)) for w in (facts.mode, facts.format)]
                if new:
                    fresh[content] = facts.to_bytes()
            if store is not None and fresh:
                with lock:
                    store.put_many(NAMESPACE, fresh.items())
            progress("inspect", min(start + BATCH, N), N)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return dataclasses.replace(seen, words=list(word))


def _spread(values: NDArray[Any]) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
