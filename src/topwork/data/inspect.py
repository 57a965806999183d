"""Look at every file once: what is there, what cannot be read, what is there twice, what would flatter the score.

    read -> BLAKE2b-128 of the bytes -> Facts (from the store when this content was seen before, else by a small decode)
         -> counts, sizes, formats; the same picture in several places; findings

Unreadable files leave the dataset, and so do training copies of val and test pictures (drop_leaks); both are listed in
`skipped` with their reason.
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
from topwork.data.findings import HELD_OUT, about, counts, label_sets, left_out, unreadable
from topwork.errors import BadData
from topwork.modalities.image import SKETCH, Facts, check_pixels, describe, read_bytes
from topwork.store import Store
from topwork.types import Dataset, Finding, Findings, Progress, Skipped, silent

NAMESPACE = "facts/1"
BATCH = 256  # files between two writes to the store
_SEVERITY = ("error", "warning", "note")


def inspect(
    dataset: Dataset,
    store: Store | None = None,
    threads: int = 2,
    progress: Progress = silent,
    drop_leaks: bool = True,
) -> Findings:
    """The readable items with `content` and `twin` columns, and everything worth saying about them."""
    seen = _look(dataset, store, threads, progress)
    good = np.flatnonzero([reason is None for reason in seen.reasons])
    if not len(good):
        first = f"e.g. {dataset.path(0)}: {seen.reasons[0]}" if len(dataset) else "it has no items"
        raise BadData(f"{dataset.name}: none of its {len(dataset):,} images can be read, {first}")
    bad = [Skipped(dataset.table["item"][row].as_py(), why) for row, why in enumerate(seen.reasons) if why is not None]
    whole, seen = dataset, seen.take(good)
    if bad:
        whole = dataset.take(good).replace(skipped=(*dataset.skipped, *bad))
    whole = whole.with_column("content", _binary(seen.contents))
    twin = twins(seen.contents, seen.hashes, seen.sketches, seen.blank, label_sets(whole.targets()))
    whole = whole.with_column("twin", _int32(twin))

    leaks = _leaking_rows(whole, twin) if drop_leaks else {}
    findings = [unreadable(bad), left_out(whole, leaks)]
    if leaks:
        stay = np.setdiff1d(np.arange(len(whole)), np.fromiter(leaks, int))
        items = whole.table["item"]
        out = [Skipped(items[row].as_py(), f"same picture as {items[held].as_py()}") for row, held in leaks.items()]
        whole, seen = whole.take(stay).replace(skipped=(*whole.skipped, *out)), seen.take(stay)
    whole, lost = _without_empty_labels(whole)
    twin = whole.table["twin"].to_numpy()
    findings += [lost, *about(whole, exact(seen.contents), twin, seen.blank)]
    found = sorted((f for f in findings if f), key=lambda f: _SEVERITY.index(f.severity))
    said = f"inspect: {len(good):,} readable, {len(bad):,} unreadable, {len(leaks):,} leaking training copies left out"
    facts = _facts(whole, seen, len(bad), twin)
    return Findings(whole.replace(history=(*whole.history, said)), tuple(found), facts)


def check_trainable(dataset: Dataset) -> None:
    """Raise BadData, in one line, when nothing can be learnt from the labels."""
    expected = "Expected at least two classes with two images each"
    if not dataset.labels:
        raise BadData(f"{dataset.name}: no labels. {expected}: a subfolder per class, or a table with a label column")
    targets = dataset.targets()
    training = ~np.isin(dataset.table["split"].cast("string").to_numpy(zero_copy_only=False), HELD_OUT)
    sizes = counts(targets[training], len(dataset.labels))
    with_items = [label for label, count in zip(dataset.labels, sizes, strict=True) if count]
    if not with_items:
        raise BadData(f"{dataset.name}: no labelled training images. {expected}")
    if len(with_items) == 1 and not dataset.multilabel:
        raise BadData(f"{dataset.name}: one class only ('{with_items[0]}', {sizes.sum():,} images). {expected}")
    if not dataset.multilabel and sizes.max() == 1:
        raise BadData(
            f"{dataset.name}: each of the {len(with_items):,} classes has a single training image. {expected}"
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the files told, as arrays: 50,000 images take 20 MB."""

    contents: NDArray[np.uint8]  # (N, 16)
    hashes: NDArray[np.uint64]  # (N,)
    sketches: NDArray[np.uint8]  # (N, 288)
    blank: NDArray[np.bool_]  # (N,)
    sizes: NDArray[np.int64]  # (N, 3): width px, height px, bytes
    kinds: NDArray[np.int32]  # (N, 2): index of mode and format in `words`
    words: list[str]
    reasons: list[str | None]  # why a file cannot be used

    def take(self, rows: NDArray[Any]) -> _Seen:
        names = ("contents", "hashes", "sketches", "blank", "sizes", "kinds")
        arrays = {name: getattr(self, name)[rows] for name in names}
        return dataclasses.replace(self, **arrays, reasons=[self.reasons[row] for row in rows])


def _look(dataset: Dataset, store: Store | None, threads: int, progress: Progress) -> _Seen:
    N = len(dataset)
    seen = _Seen(
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


def _facts(dataset: Dataset, seen: _Seen, unreadable: int, twin: NDArray[np.int32]) -> dict[str, Any]:
    """The numbers of an inspection as plain JSON."""
    splits = dataset.table["split"].cast("string").fill_null("unassigned").to_numpy(zero_copy_only=False)
    targets = dataset.targets()

    def tally(labels: NDArray[Any]) -> dict[str, int]:
        return dict(zip(dataset.labels, map(int, counts(labels, len(dataset.labels))), strict=True))

    def spread(values: NDArray[Any]) -> dict[str, int]:
        return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}

    return {
        "items": len(dataset),
        "unreadable": unreadable,
        "pictures": len(np.unique(twin)),
        "bytes": int(seen.sizes[:, 2].sum()),
        "classes": tally(targets),
        "unlabelled": int(dataset.table["target"].null_count),
        "splits": {str(name): tally(targets[splits == name]) for name in sorted(set(splits))},
        "width": spread(seen.sizes[:, 0]),
        "height": spread(seen.sizes[:, 1]),
        "modes": dict(Counter(seen.words[k] for k in seen.kinds[:, 0].tolist()).most_common()),
        "formats": dict(Counter(seen.words[k] for k in seen.kinds[:, 1].tolist()).most_common()),
    }


def _leaking_rows(dataset: Dataset, twin: NDArray[np.int32]) -> dict[int, int]:
    """Training row -> a val or test row with the same picture."""
    held: dict[int, int] = {}
    for split in reversed(HELD_OUT):
        rows = dataset.rows_of(split)
        held |= zip(twin[rows[::-1]].tolist(), rows[::-1].tolist(), strict=True)
    train = dataset.rows_of("train")
    return {int(row): held[number] for row, number in zip(train, twin[train].tolist(), strict=True) if number in held}


def _without_empty_labels(dataset: Dataset) -> tuple[Dataset, Finding | None]:
    """Classes that lost their last image are no classes."""
    import pyarrow as pa

    sizes = counts(dataset.targets(), len(dataset.labels))
    if not dataset.labels or sizes.all():
        return dataset, None
    kept = np.flatnonzero(sizes)
    number = np.full(len(sizes), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    old = dataset.table["target"].combine_chunks()
    if dataset.multilabel:
        new: Any = pa.ListArray.from_arrays(old.offsets, pa.array(number[old.values.to_numpy()]))
    else:
        codes = number[old.fill_null(0).to_numpy()]
        new = pa.array(codes, mask=old.is_null().to_numpy(zero_copy_only=False))
    gone = [dataset.labels[c] for c in np.flatnonzero(sizes == 0)]
    message = f"no usable image is left of {', '.join(map(repr, gone[:5]))}"
    finding = Finding("empty_class", "warning", message, "not a class of the model")
    return dataset.replace(labels=tuple(dataset.labels[c] for c in kept)).with_column("target", new), finding


def _binary(contents: NDArray[np.uint8]) -> Any:
    import pyarrow as pa

    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(contents), [None, pa.py_buffer(np.ascontiguousarray(contents))]
    )


def _int32(values: NDArray[np.int32]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.int32())
