"""Look at every image once: content, size, sharpness ..., hashes and a sketch that tell copies of the same picture.

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

from topwork.data.duplicates import alike, exact, mirror_twins, twins
from topwork.errors import BadData
from topwork.modalities.image import SKETCH, Facts, check_pixels, describe, read_bytes
from topwork.store import Store
from topwork.types import Dataset, Progress

NAMESPACE = "facts/2"
BATCH = 256  # files between two writes to the store


@dataclass(frozen=True, eq=False)
class Seen:
    """What the files told, as arrays: 50,000 images take 20 MB."""

    contents: NDArray[np.uint8]  # (N, 16)
    hashes: NDArray[np.uint64]  # (N,)
    mirrors: NDArray[np.uint64]  # (N,) of the mirror images
    sketches: NDArray[np.uint8]  # (N, 288)
    blank: NDArray[np.bool_]  # (N,)
    sharpness: NDArray[np.float32]  # (N,) nan: too small to tell
    tones: NDArray[np.uint8]  # (N, 2) 1 % and 99 % quantile of grey
    lost: NDArray[np.uint8]  # (N,) rows at the bottom, of 64, that a decoder has filled in
    turn: NDArray[np.uint8]  # (N,) EXIF orientation
    animated: NDArray[np.bool_]  # (N,)
    ended: NDArray[np.bool_]  # (N,) the file has its end
    sizes: NDArray[np.int64]  # (N, 3): width px, height px, bytes
    kinds: NDArray[np.int32]  # (N, 2): index of mode and format in `words`
    words: list[str]
    reasons: list[str | None]  # why a file cannot be used

    def take(self, rows: NDArray[Any]) -> Seen:
        """Some of them."""
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
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

    def near(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """(N,) numbers: equal for the same picture, however often it was saved."""
        return twins(self.contents, self.hashes, self.sketches, self.blank, labels)

    def twins(self, near: NDArray[np.int32], labels: NDArray[Any]) -> NDArray[np.int32]:
        """(N,) numbers: equal for the same picture or, within a class, its mirror image."""
        return mirror_twins(near, self.hashes, self.mirrors, self.sketches, self.blank, labels)

    def likeness(self, rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
        """(P,) correlation of the sketches, mirrored where that is nearer; 1 for equal bytes."""
        return np.where((self.contents[rows] == self.contents[others]).all(1), 1.0, alike(self.sketches, rows, others))


_ARRAYS = (
    "contents", "hashes", "mirrors", "sketches", "blank", "sharpness", "tones", "lost", "turn", "animated", "ended",
    "sizes", "kinds",
)  # fmt: skip


def look(dataset: Dataset, store: Store | None, threads: int, progress: Progress) -> Seen:
    """Read every file once."""
    N = len(dataset)
    seen = Seen(
        contents=np.zeros((N, 16), np.uint8),
        hashes=np.zeros(N, np.uint64),
        mirrors=np.zeros(N, np.uint64),
        sketches=np.zeros((N, SKETCH), np.uint8),
        blank=np.zeros(N, bool),
        sharpness=np.zeros(N, np.float32),
        tones=np.zeros((N, 2), np.uint8),
        lost=np.zeros(N, np.uint8),
        turn=np.ones(N, np.uint8),
        animated=np.zeros(N, bool),
        ended=np.ones(N, bool),
        sizes=np.zeros((N, 3), np.int64),
        kinds=np.zeros((N, 2), np.int32),
        words=[],
        reasons=[None] * N,
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
                seen.mirrors[row], seen.sharpness[row] = facts.mirrored, facts.sharpness
                seen.tones[row] = facts.dark, facts.light
                seen.lost[row], seen.turn[row] = facts.lost, facts.turn
                seen.animated[row], seen.ended[row] = facts.animated, facts.ended
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


def recorded(dataset: Dataset, store: Store | None) -> tuple[NDArray[np.float64], list[str]]:
    """(N,) seconds since 1970 by the camera's clock (nan: not known) and the N cameras ("": not known), by EXIF."""
    facts = remembered(dataset, store)
    return np.array([fact.taken or np.nan for fact in facts], float), [fact.camera for fact in facts]


def remembered(dataset: Dataset, store: Store | None) -> list[Facts]:
    """The facts of inspected images, from the store; files whose facts have left it are looked at again."""
    keys = dataset.table["content"].to_pylist()
    known = store.get_many(NAMESPACE, keys) if store is not None else [None] * len(keys)
    return [
        describe(read_bytes(dataset.path(row))) if value is None else Facts.from_bytes(value)
        for row, value in enumerate(known)
    ]


def _spread(values: NDArray[Any]) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
