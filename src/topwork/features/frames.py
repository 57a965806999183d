"""Frames: every distinct image decoded once, for good, into one array in the cache folder.

    contents, P -> frames/KEY.npy  uint8 (U, P, P, 3), memory-mapped      KEY: hash of all content keys, P and the rest

The shorter side is scaled to P and the centre is cut out, or (fit="squash") both sides are scaled to P, antialiased, by
the graph that extraction uses. KEY.npy
appears when it is whole; until then KEY.part.npy and a count of what is in it let the next run go on. Two processes
that build the same frames write the same bytes to the same places. The least recently used make room for new ones.
Where encryption is asked for nothing is written: the array is in memory, and every process makes its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topwork import processes, settings
from topwork.errors import BadData, StoreError
from topwork.features.contents import Contents
from topwork.features.in_memory import allocated
from topwork.features.pixels import Loader
from topwork.store import locks
from topwork.store.atomic import explain, write_file
from topwork.types import Dataset, Preprocess, Progress, Skipped, silent

AT_ONCE = 32  # images per task of a thread
CHUNK = 1024  # images between two notes of how far it is


@dataclass(frozen=True, eq=False)
class Frames:
    """Decoded images: frame `index[i]` belongs to row i of the dataset; -1 where it cannot be read."""

    pixels: NDArray[np.uint8]  # (U, P, P, 3)
    index: NDArray[np.int64]  # (N,)
    skipped: tuple[Skipped, ...]
    key: str  # names contents and geometry

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames of some rows, (B, P, P, 3)."""
        at = self.index[rows]
        order = np.argsort(at, kind="stable")  # the disk likes it
        out = np.empty((len(rows), *self.pixels.shape[1:]), np.uint8)
        out[order] = self.pixels[at[order]]
        return out


def frames(
    dataset: Dataset,
    contents: Contents,
    side_px: int,
    threads: int | None = None,
    progress: Progress = silent,
    like: Preprocess | None = None,
) -> Frames:
    """The frames of a dataset whose distinct contents are known; raises BadData where no image can be read.

    `like`: a backbone's preprocessing, whose interpolation and fit are taken over.
    """
    geometry = Preprocess(side_px, side_px, (0, 0, 0), (1, 1, 1))
    if like is not None:
        geometry = dataclasses.replace(geometry, interpolation=like.interpolation, fit=like.fit)
    target = _folder() / f"{_key(contents, geometry)}.npy"
    if settings.encrypted():
        pixels = allocated((len(contents.keys), side_px, side_px, 3), np.uint8, "The decoded images")
        bad = {}
        for _, more in _decoded(dataset, contents, geometry, pixels, 0, threads or settings.threads().value, progress):
            bad |= more
    else:
        pixels, bad = _mapped(dataset, contents, geometry, target, threads, progress)
    index = contents.index.copy()
    index[np.isin(index, list(bad))] = -1
    items = dataset.table["item"]
    skipped = [Skipped(items[int(row)].as_py(), bad[u]) for u in sorted(bad) for row in contents.rows(u)]
    if not (index >= 0).any():
        first = (*contents.skipped, *skipped)[0]
        raise BadData(
            f"{dataset.name}: none of its {len(dataset):,} images can be read, e.g. {first.item}: {first.reason}"
        )
    return Frames(pixels, index, (*contents.skipped, *skipped), target.stem)


def _mapped(
    dataset: Dataset, contents: Contents, geometry: Preprocess, target: Path, threads: int | None, progress: Progress
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The array in its file, which is made where it is not there yet."""
    with processes.first():
        bad = _known(target)
        if bad is None:
            with locks.held(f"frames {target.stem}") as waited:
                bad = _known(target) if waited else None
                if bad is None:  # the others wait, so all threads of the machine are ours
                    workers = threads or settings.threads().value * processes.beside()
                    bad = _build(dataset, contents, geometry, target, workers, progress)
    os.utime(target)
    return np.load(target, mmap_mode="r"), bad


def _folder() -> Path:
    return settings.cache_folder() / "frames"


def _key(contents: Contents, geometry: Preprocess) -> str:
    hashed = hashlib.blake2b(f"frames 2 {geometry.key} ".encode(), digest_size=16)
    for key in contents.keys:
        hashed.update(key)
    return hashed.hexdigest()


def _known(target: Path) -> dict[int, str] | None:
    """Contents that cannot be read, with the reason; None where the frames are not there yet."""
    try:
        if target.exists():
            return {int(u): why for u, why in json.loads(target.with_suffix(".json").read_bytes()).items()}
    except (OSError, ValueError):
        target.unlink(missing_ok=True)
    return None


def _build(
    dataset: Dataset, contents: Contents, geometry: Preprocess, target: Path, threads: int, progress: Progress
) -> dict[int, str]:
    """Decode everything, from where an earlier run was stopped."""
    side_px = geometry.crop_px
    U, part = len(contents.keys), target.with_suffix(".part.npy")
    shape, bad = (U, side_px, side_px, 3), {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _make_room(target.parent, int(np.prod(shape)), part)
        done, bad = _noted(part, shape)
        pixels = np.lib.format.open_memmap(part, "r+" if done else "w+", np.uint8, shape)
        for end, more in _decoded(dataset, contents, geometry, pixels, done, threads, progress):
            bad |= more
            pixels.flush()
            write_file(part.with_suffix(".json"), json.dumps({"done": end, "bad": bad}).encode())
        write_file(target.with_suffix(".json"), json.dumps(bad).encode())
        os.replace(part, target)
        part.with_suffix(".json").unlink(missing_ok=True)
    except FileNotFoundError:
        if not target.exists():  # else another process was as fast
            raise
    except OSError as error:
        raise error if isinstance(error, StoreError) else explain(error, target) from error
    return bad


def _decoded(
    dataset: Dataset,
    contents: Contents,
    geometry: Preprocess,
    pixels: NDArray[np.uint8],
    done: int,
    threads: int,
    progress: Progress,
) -> Iterator[tuple[int, dict[int, str]]]:
    """Fill `pixels` from `done` on; after every CHUNK how far it is, and which contents of it could not be read."""
    U, loader = len(contents.keys), Loader(dataset, contents, geometry)

    def work(start: int) -> tuple[int, NDArray[np.uint8], list[int], dict[int, str]]:
        wanted = list(range(start, min(start + AT_ONCE, U)))
        batch = loader.load(wanted, len(wanted))
        return start, batch.crops, batch.contents, batch.reasons

    with _stopping(loader), loader.ahead(range(done, U)), ThreadPoolExecutor(threads, "frames") as pool:
        for begin in range(done, U, CHUNK):
            end, bad = min(begin + CHUNK, U), dict[int, str]()
            for start, crops, good, reasons in pool.map(work, range(begin, end, AT_ONCE)):
                pixels[good] = crops[: len(good)]
                bad |= reasons
                progress("decode", min(start + AT_ONCE, U), U)
            yield end, bad


def _noted(part: Path, shape: tuple[int, ...]) -> tuple[int, dict[int, str]]:
    """How much of the unfinished file is good, and which contents could not be read."""
    try:
        note = json.loads(part.with_suffix(".json").read_bytes())
        if np.load(part, mmap_mode="r").shape == shape:
            return int(note["done"]), {int(u): why for u, why in note["bad"].items()}
    except (OSError, ValueError, KeyError):
        pass
    return 0, {}


def _make_room(folder: Path, size: int, keep: Path) -> None:
    """Frames that were not used for longest leave, until the new ones are within the cache's limit."""
    limit = settings.cache_limit_bytes()
    if size > limit.value:
        raise StoreError(
            f"The decoded images take {size / 1e9:,.1f} GB; the cache may take {limit.value / 1e9:,.1f} GB "
            f"({limit.reason}). Raise TOPWORK_CACHE_GB, or take a smaller --size"
        )
    old = sorted((file for file in folder.glob("*.npy") if file != keep), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in old)
    for file in old:
        if total + size <= limit.value:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)


class _stopping:
    """Threads stop at their next file when something goes wrong."""

    def __init__(self, loader: Loader) -> None:
        self._stop: Callable[[], None] = loader.stop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._stop()
