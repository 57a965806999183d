"""States of texts at the boundary of a frozen part: computed once per window, kept on disk, read by memory map.

    windows of tokens -> boundary/KEY/states.npy  (T, D)      row ends[w] + t: token t of window w; nothing is padded

float16, float32, or uint8 with a least value and a scale per token: q = round((x - low) / scale). Windows of like
length are computed together, longest first; states.json says how many are good, and the next run goes on from there.
KEY names the texts, how they are read, the backbone and the boundary; those used longest ago make room for new ones.
Where encryption is asked for nothing is written: all of it is in memory, and every process makes its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes, settings
from topwork.errors import StoreError
from topwork.features.boundary import BYTES, SHARE, _free_bytes, _make_room
from topwork.features.in_memory import allocated
from topwork.modalities.text import Tokens, buckets
from topwork.store import locks
from topwork.store.atomic import explain, write_file
from topwork.types import Choice, Progress, silent

AT_ONCE = 4096  # tokens per forward pass, padding included
NOTED = 64  # batches between two notes of how far it is

Windows = NDArray[np.int64]
Make = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
"""make(ids (B, L), weights (B, L)) -> states (B, L, D)."""


@dataclass(frozen=True, eq=False)
class States:
    """What goes into the layers above the boundary."""

    values: NDArray[Any]  # (T, D)
    ranges: NDArray[np.float32] | None  # (T, 2): low, scale of uint8
    tokens: Tokens

    def __call__(self, windows: Windows) -> list[NDArray[Any]]:
        """States (B, L, D) float32, ids and weights (B, L) of some windows; padding is 0."""
        ids, weights = self.tokens.padded(windows)
        lengths = self.tokens.lengths[windows]
        out = np.zeros((*ids.shape, self.values.shape[1]), np.float32)
        for row in np.argsort(windows, kind="stable"):  # the disk likes it
            at = slice(self.tokens.ends[windows[row]], self.tokens.ends[windows[row] + 1])
            states = self.values[at].astype(np.float32)
            if self.ranges is not None:
                low, scale = self.ranges[at].T
                states = states * scale[:, None] + low[:, None]
            out[row, : lengths[row]] = states
        return [out, ids, weights]

    def write(self, window: int, states: NDArray[np.float32]) -> None:
        """The states (L, D) of one window."""
        at = slice(self.tokens.ends[window], self.tokens.ends[window + 1])
        if self.ranges is None:
            self.values[at] = states
            return
        low = states.min(1, keepdims=True)
        scale = np.maximum((states.max(1, keepdims=True) - low) / 255, np.float32(1e-12))
        self.ranges[at] = np.concatenate([low, scale], 1)
        self.values[at] = np.rint((states - low) / scale)


def fits(tokens: Tokens, width: int, dtype: str) -> Choice:
    """Whether the states fit into the disk budget: 1, or 0."""
    size = _bytes(tokens, width, dtype)
    budget = int(min(settings.cache_limit_bytes().value * SHARE, _free_bytes() * SHARE))
    if size <= budget:
        return Choice("cached views", 1, f"{size / 1e6:,.0f} MB {'in memory' if settings.encrypted() else 'on disk'}")
    why = f"the states take {size / 1e6:,.0f} MB, the disk budget is {budget / 1e6:,.0f} MB (TOPWORK_CACHE_GB)"
    return Choice("cached views", 0, f"{why}: everything runs in every epoch")


def store(
    key: str, tokens: Tokens, width: int, make: Make, *, dtype: str = "float16", progress: Progress = silent
) -> States:
    """The states, from disk where an earlier run left them; whatever is missing is made now."""
    if settings.encrypted():
        T = max(1, len(tokens.ids))
        ranges = allocated((T, 2), np.float32, "The ranges of the states") if dtype == "uint8" else None
        states = States(allocated((T, width), dtype, "The states"), ranges, tokens)
        for _ in _run(states, tokens, list(buckets(tokens.lengths, AT_ONCE)), 0, make, progress):
            pass
        return states
    folder = settings.cache_folder() / "boundary" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        with processes.first(), locks.held(f"boundary {key}"):
            if not (folder / "states.json.done").exists():
                _make_room(folder, _bytes(tokens, width, dtype))
                _fill(folder, tokens, width, dtype, make, progress)
        return _open(folder, tokens, width, dtype, "r")
    except OSError as error:
        raise error if isinstance(error, StoreError) else explain(error, folder) from error


def _fill(folder: Path, tokens: Tokens, width: int, dtype: str, make: Make, progress: Progress) -> None:
    note, done = folder / "states.json", 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        done = int(json.loads(note.read_bytes())["done"])
    states = _open(folder, tokens, width, dtype, "r+" if done else "w+")
    batches: Sequence[Windows] = list(buckets(tokens.lengths, AT_ONCE))
    for number in _run(states, tokens, batches, done, make, progress):
        if (number + 1) % NOTED == 0 or number + 1 == len(batches):
            states.values.flush()  # type: ignore[attr-defined]
            write_file(note, json.dumps({"done": number + 1}).encode())
    os.replace(note, folder / "states.json.done")


def _run(
    states: States, tokens: Tokens, batches: Sequence[Windows], done: int, make: Make, progress: Progress
) -> Iterator[int]:
    """Fill in the batches from `done` on; after every one, its number."""
    total, before = len(tokens.lengths), sum(len(batch) for batch in batches[:done])
    for number, windows in enumerate(batches[done:], done):
        made = make(*tokens.padded(windows))
        for window, own, length in zip(windows, made, tokens.lengths[windows], strict=True):
            states.write(int(window), own[:length])
        before += len(windows)
        progress("boundary", before, total)
        yield number


def _open(folder: Path, tokens: Tokens, width: int, dtype: str, mode: Any) -> States:
    T = max(1, len(tokens.ids))

    def mapped(name: str, kind: Any, columns: int) -> NDArray[Any]:
        if mode == "w+":
            return np.lib.format.open_memmap(folder / name, "w+", kind, (T, columns))
        return np.load(folder / name, mmap_mode=mode)

    ranges = mapped("ranges.npy", np.dtype(np.float32), 2) if dtype == "uint8" else None
    return States(mapped("states.npy", np.dtype(dtype), width), ranges, tokens)


def _bytes(tokens: Tokens, width: int, dtype: str) -> int:
    return len(tokens.ids) * (width * BYTES[dtype] + (8 if dtype == "uint8" else 0))
