"""Activations at the boundary of a frozen part: computed once per item and view, kept on disk, read by memory map.

    views 0 .. V - 1 and the plain view of N items -> boundary/KEY/VIEW.I.npy    I: which of the crossing tensors

A view's file holds (N, ...) float16, uint8 with a scale and a least value per item, or float32. It appears when it is
whole; until then VIEW.json says how many rows of the unfinished files are good, and the next run goes on from there.
Several processes share the views between them.
KEY names contents, backbone, boundary, recipe and seed; the keys used longest ago make room for new ones.
Where encryption is asked for nothing is written: all of it is in memory, and every process makes its own.

uint8: q = round((x - low) / scale), scale = (high - low) / 255 over the values of one item in one tensor.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes, settings
from topwork.errors import StoreError
from topwork.features.in_memory import allocated, free_bytes
from topwork.store import locks
from topwork.store.atomic import explain, write_file
from topwork.types import Choice, Progress, silent

AT_ONCE = 16  # items per forward pass
CHUNK = 512  # items between two notes of how far it is
MOST_VIEWS = 8
SHARE = 0.5  # of the cache folder's limit that one training may take
BYTES = {"float16": 2, "uint8": 1, "float32": 4}

Rows = NDArray[np.int64]
Make = Callable[[Rows, int], Sequence[NDArray[np.float32]]]
"""make(rows (B,), view) -> crossing tensors (B, ...); view -1 is the plain one. Called from several threads."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Activations of N items in V views."""

    tensors: tuple[tuple[_Tensor, ...], ...]  # V + 1 views, the plain one last

    @property
    def views(self) -> int:
        """V."""
        return len(self.tensors) - 1

    def __call__(self, rows: Rows, visits: Rows) -> list[NDArray[np.float32]]:
        """What item `rows[b]` shows at its `visits[b]`-th visit, float32 (B, ...) each."""
        found = [np.empty((len(rows), *tensor.shape[1:]), np.float32) for tensor in self.tensors[0]]
        view = visits % self.views
        for number in np.unique(view):
            at = np.flatnonzero(view == number)
            for out, tensor in zip(found, self.tensors[number], strict=True):
                out[at] = tensor.read(rows[at])
        return found

    def plain(self, rows: Rows) -> list[NDArray[np.float32]]:
        """What items show without augmentation."""
        return [tensor.read(rows) for tensor in self.tensors[-1]]


@dataclass(frozen=True, eq=False)
class _Tensor:
    """One crossing tensor of one view."""

    values: NDArray[Any]  # (N, ...)
    ranges: NDArray[np.float32] | None  # (N, 2): low, scale of uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, rows: Rows) -> NDArray[np.float32]:
        order = np.argsort(rows, kind="stable")  # the disk likes it
        found = self.values[rows[order]].astype(np.float32)
        if self.ranges is not None:
            low, scale = self.ranges[rows[order]].T
            each = (-1, *[1] * (found.ndim - 1))
            found = found * scale.reshape(each) + low.reshape(each)
        out = np.empty_like(found)
        out[order] = found
        return out

    def write(self, rows: slice, values: NDArray[np.float32]) -> None:
        if self.ranges is None:
            self.values[rows] = values
            return
        flat = values.reshape(len(values), -1)
        low = flat.min(1, keepdims=True)
        scale = np.maximum((flat.max(1, keepdims=True) - low) / 255, np.float32(1e-12))
        self.ranges[rows] = np.concatenate([low, scale], 1)
        self.values[rows] = np.rint((flat - low) / scale).reshape(values.shape)


def choose_views(items: int, shapes: Sequence[Sequence[int]], dtype: str, epochs: int) -> Choice:
    """How many views of each item fit into the disk budget: at most one per epoch and MOST_VIEWS; 0: not even one."""
    limit = settings.cache_limit_bytes()
    each = items * sum(int(np.prod(shape)) for shape in shapes) * BYTES[dtype]
    budget = int(min(limit.value * SHARE, _free_bytes() * SHARE))
    fitting = budget // each - 1  # the plain view is one more
    views = int(max(0, min(MOST_VIEWS, epochs, fitting)))
    if views == min(MOST_VIEWS, epochs):
        why = f"{each * (views + 1) / 1e6:,.0f} MB {'in memory' if settings.encrypted() else 'on disk'}"
    else:
        why = f"{each / 1e6:,.0f} MB each, the disk budget is {budget / 1e6:,.0f} MB (TOPWORK_CACHE_GB)"
    return Choice("cached views", views, why)


def store(
    key: str,
    items: int,
    shapes: Sequence[tuple[int, ...]],
    views: int,
    make: Make,
    *,
    dtype: str = "float16",
    threads: int | None = None,
    progress: Progress = silent,
) -> Stored:
    """The activations, from disk where an earlier run left them; whatever is missing is made now."""
    folder = settings.cache_folder() / "boundary" / key
    names = [*(f"view{number}" for number in range(views)), "plain"]
    if settings.encrypted():
        return _in_memory(names, items, shapes, make, dtype, threads, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)

        def missing() -> list[str]:
            return [name for name in names if not (folder / f"{name}.json.done").exists()]

        def fill(wanted: Sequence[str]) -> None:
            with ThreadPoolExecutor(threads or settings.threads().value, "boundary") as pool:
                for name in wanted:
                    number = -1 if name == "plain" else names.index(name)
                    before = names.index(name) * items

                    def told(done: int, before: int = before) -> None:
                        progress("boundary", before + done, items * len(names))

                    _fill(folder, name, number, items, shapes, dtype, make, pool, told)

        with contextlib.nullcontext() if processes.rank() else locks.held(f"boundary {key}"):
            wanted = processes.decided(missing)
            if not processes.rank():
                size = items * sum(int(np.prod(shape)) for shape in shapes) * BYTES[dtype]
                _make_room(folder, size * len(wanted))
            processes.barrier()
            fill(wanted[processes.rank() :: processes.count()])
            processes.barrier()
            if processes.rank():
                fill(missing())  # on another machine, with a disk of its own
        return Stored(tuple(_open(folder, name, items, shapes, dtype, "r") for name in names))
    except OSError as error:
        raise error if isinstance(error, StoreError) else explain(error, folder) from error


def _in_memory(
    names: Sequence[str],
    items: int,
    shapes: Sequence[tuple[int, ...]],
    make: Make,
    dtype: str,
    threads: int | None,
    progress: Progress,
) -> Stored:
    """All views, in no file."""
    found = []
    with ThreadPoolExecutor(threads or settings.threads().value, "boundary") as pool:
        for at, name in enumerate(names):
            tensors = tuple(
                _Tensor(
                    allocated((items, *shape), dtype, "The activations"),
                    allocated((items, 2), np.float32, "Their ranges") if dtype == "uint8" else None,
                )
                for shape in shapes
            )
            for end in _run(tensors, make, -1 if name == "plain" else at, range(items), pool):
                progress("boundary", at * items + end, items * len(names))
            found.append(tensors)
    return Stored(tuple(found))


def _run(tensors: Sequence[_Tensor], make: Make, number: int, rows: range, pool: ThreadPoolExecutor) -> Iterator[int]:
    """Fill some rows of one view; after every batch, up to which."""
    starts = rows[::AT_ONCE]
    made = pool.map(lambda a: make(np.arange(a, min(a + AT_ONCE, rows.stop)), number), starts)
    for start, values in zip(starts, made, strict=True):
        for tensor, value in zip(tensors, values, strict=True):
            tensor.write(slice(start, start + len(value)), value)
        yield min(start + AT_ONCE, rows.stop)


def _fill(
    folder: Path,
    name: str,
    number: int,
    items: int,
    shapes: Sequence[tuple[int, ...]],
    dtype: str,
    make: Make,
    pool: ThreadPoolExecutor,
    progress: Callable[[int], None],
) -> None:
    """One view of every item."""
    note = folder / f"{name}.json"
    try:
        done = int(json.loads(note.read_bytes())["done"])
    except (OSError, ValueError, KeyError):
        done = 0
    tensors = _open(folder, name, items, shapes, dtype, "r+" if done else "w+")
    for begin in range(done, items, CHUNK):
        end = min(begin + CHUNK, items)
        for at in _run(tensors, make, number, range(begin, end), pool):
            progress(at)
        for tensor in tensors:
            tensor.values.flush()  # type: ignore[attr-defined]
        write_file(note, json.dumps({"done": end}).encode())
    os.replace(note, folder / f"{name}.json.done")


def _open(
    folder: Path, name: str, items: int, shapes: Sequence[tuple[int, ...]], dtype: str, mode: Any
) -> tuple[_Tensor, ...]:
    def mapped(path: Path, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        if mode == "w+":
            return np.lib.format.open_memmap(path, "w+", kind, shape)
        return np.load(path, mmap_mode=mode)

    return tuple(
        _Tensor(
            mapped(folder / f"{name}.{i}.npy", np.dtype(dtype), (items, *shape)),
            mapped(folder / f"{name}.{i}.range.npy", np.dtype(np.float32), (items, 2)) if dtype == "uint8" else None,
        )
        for i, shape in enumerate(shapes)
    )


def _make_room(keep: Path, size: int) -> None:
    """What was used longest ago leaves, until the new files are within the cache's limit."""
    limit = settings.cache_limit_bytes().value
    folders = sorted((f for f in keep.parent.iterdir() if f != keep), key=lambda f: f.stat().st_mtime)
    sizes = {f: sum(file.stat().st_size for file in f.glob("*")) for f in folders}
    total = sum(sizes.values()) + sum(file.stat().st_size for file in keep.glob("*"))
    for folder in folders:
        if total + size <= limit:
            return
        total -= sizes[folder]
        shutil.rmtree(folder, ignore_errors=True)


def _free_bytes() -> int:
    if settings.encrypted():
        return free_bytes()
    folder = settings.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free
