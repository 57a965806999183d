"""What a pretraining learns from: one or several sources as one list of items, with what names its content.

    gather(("photos/", "fractals:classes=100"), needs_labels) -> Material
    material.frames(side_px) -> the readable part of it, and draw(rows, visits) -> uint8 (B, P, P, 3)

Files are taken from folders and tables; without labels every image of a folder counts, at any depth. What the data
call val or test is left alone. Sources that draw their own images have no files: they are drawn when they are asked
for, anew at every visit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.features.contents import Contents, distinct
from topwork.modalities.image import describe, read_bytes
from topwork.settings import threads
from topwork.store import remote
from topwork.types import Dataset, Progress, Skipped, silent

DRAWN = "fractals:"
SAMPLE = 32  # images whose size is looked at
Rows = NDArray[np.int64]
Draw = Callable[[Rows, Rows], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Part:
    """One source."""

    uri: str
    dataset: Dataset
    contents: Contents | None  # None: it draws its own images

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def classes(self) -> int:
        """C; 0 without labels."""
        return len(self.dataset.labels)

    def fact(self) -> dict[str, Any]:
        """Plain JSON for a card."""
        return {"name": self.dataset.name, "items": len(self), "classes": self.classes, "source": self.uri}


@dataclass(frozen=True, eq=False)
class Material:
    """All items, source after source."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def classes(self) -> tuple[int, ...]:
        """C of every source; () where one has no labels."""
        found = tuple(part.classes for part in self.parts)
        return found if all(found) else ()

    @property
    def targets(self) -> Rows:
        """(N,) class within the source; -1: not labelled."""
        return np.concatenate([part.dataset.targets().astype(np.int64) for part in self.parts])

    @property
    def source(self) -> Rows:
        """(N,) number of the source."""
        return np.repeat(np.arange(len(self.parts)), [len(part) for part in self.parts])

    @property
    def drawn(self) -> tuple[str, ...]:
        """Sources without files."""
        return tuple(part.uri for part in self.parts if part.contents is None)

    def contents(self) -> set[bytes]:
        """Keys of all files."""
        return {key for part in self.parts if part.contents for key in part.contents.keys}

    def hash(self) -> str:
        """Names these contents with these labels in this order: a training depends on all three."""
        hashed = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            hashed.update(repr((part.dataset.labels, len(part))).encode() + part.dataset.targets().tobytes())
            if part.contents is None:
                hashed.update(part.uri.encode())
            else:
                hashed.update(b"".join(part.contents.keys) + part.contents.index.tobytes())
        return hashed.hexdigest()

    def short_side_px(self) -> int:
        """Side that nine in ten of the images do not exceed, from a sample of files; a large number without files."""
        found = []
        for part in self.parts:
            rows = np.linspace(0, len(part) - 1, min(SAMPLE, len(part))).astype(int) if part.contents else ()
            for row in rows:
                try:
                    facts = describe(read_bytes(part.dataset.path(int(row))))
                except BadData:
                    continue
                found.append(min(facts.width, facts.height))
        return int(np.quantile(found, 0.9)) if found else 1 << 30

    def frames(
        self, side_px: int, seed: int, progress: Progress = silent
    ) -> tuple[Material, Draw, tuple[Skipped, ...]]:
        """What can be read of it, how to get at the pixels of its rows, and what was skipped."""
        from topwork.features.frames import frames

        parts, draws, skipped = [], [], []
        for part in self.parts:
            if part.contents is None:
                parts.append(part)
                draws.append(_drawing(part.dataset, side_px, seed))
                continue
            found = frames(part.dataset, part.contents, side_px, threads().value, progress)
            rows = np.flatnonzero(found.index >= 0)
            skipped += found.skipped
            parts.append(_take(part, rows))
            draws.append(lambda asked, _, found=found, rows=rows: found(rows[asked]))
        material = Material(tuple(parts))
        return material, _joined(draws, material, side_px), tuple(skipped)

    def files(self) -> Dataset:
        """All items as one dataset of absolute paths with their contents; raises BadSetting where some have no file."""
        import pyarrow as pa

        if self.drawn:
            raise BadSetting(
                f"{self.drawn[0]} draws its images anew at every visit, so nothing can be computed of them beforehand. "
                "A teacher needs files"
            )
        tables = []
        for part in self.parts:
            assert part.contents is not None
            keys = [part.contents.keys[u] if u >= 0 else None for u in part.contents.index]
            paths = [remote.absolute(path) for path in part.dataset.paths()]
            tables.append(pa.table({"item": pa.array(paths), "content": pa.array(keys, pa.binary(16))}))
        return Dataset(pa.concat_tables(tables), "", (), name=" + ".join(part.dataset.name for part in self.parts))


def gather(uris: Sequence[str], needs_labels: bool) -> tuple[Material, tuple[str, ...]]:
    """The items of all sources, and what was left out; raises BadData where labels are needed and missing."""
    parts, notes = [], []
    for uri in (uri if uri.startswith(DRAWN) else remote.welcome(uri) for uri in uris):
        dataset = sources.read(uri) if needs_labels or uri.startswith(DRAWN) else _unlabelled(uri)
        notes += dataset.notes
        if dataset.skipped:
            first = dataset.skipped[0]
            notes.append(f"{dataset.name}: {len(dataset.skipped):,} skipped, e.g. {first.item}: {first.reason}")
        if needs_labels:
            dataset = _to_learn_from(dataset, notes)
        if uri.startswith(DRAWN):
            parts.append(Part(uri, dataset, None))
            continue
        contents = distinct(dataset)
        part = Part(remote.absolute(uri), dataset, contents)
        notes += [f"{s.item}: {s.reason}" for s in contents.skipped[:3]]
        parts.append(_take(part, np.flatnonzero(contents.index >= 0)))
    return Material(tuple(parts)), tuple(notes)


def _to_learn_from(dataset: Dataset, notes: list[str]) -> Dataset:
    """Labelled rows that are not kept back."""
    if dataset.multilabel:
        raise BadData(f"{dataset.name} has lists of labels. Methods that learn from labels expect one label an item")
    held = np.union1d(dataset.rows_of("val"), dataset.rows_of("test")) if "split" in dataset.columns else np.zeros(0)
    rows = np.setdiff1d(np.flatnonzero(dataset.targets() >= 0), held)
    if len(held):
        notes.append(f"{dataset.name}: {len(held):,} items of val and test are left alone")
    if not len(rows) or len(np.unique(dataset.targets()[rows])) < 2:
        raise BadData(
            f"{dataset.name} has fewer than two labels to learn from. Methods without labels, such as simclr, need none"
        )
    return dataset.take(rows)


def _unlabelled(uri: str) -> Dataset:
    """Every image, whatever its label, but for what is called val or test."""
    import pyarrow as pa

    try:
        known = sources.read(uri)
        held = {remote.absolute(known.path(int(row))) for side in ("val", "test") for row in known.rows_of(side)}
    except BadData:
        known, held = None, set()
    if not remote.isdir(uri):
        if known is None:
            raise BadData(f"{uri}: expected a folder of images, or a table with a column of paths")
        paths = [remote.absolute(path) for path in known.paths()]
    else:
        paths = [remote.absolute(path) for path in sources.items(uri)]
    root = remote.absolute(uri) if remote.isdir(uri) else ""
    items = [os.path.relpath(path, root) if root else path for path in paths if path not in held]
    if not items:
        raise BadData(f"{uri}: all {len(paths):,} images are in val or test, so nothing is left to learn from")
    columns = {"item": pa.array(items), "target": pa.nulls(len(items), pa.int32())}
    notes = (f"{uri}: {len(paths) - len(items):,} items of val and test are left alone",) if held else ()
    return Dataset(pa.table(columns), root, (), name=remote.title(uri), notes=notes)


def _take(part: Part, rows: Rows) -> Part:
    """Some rows of a part, all of them with known contents."""
    if part.contents is None or len(rows) == len(part):
        return part
    used, index = np.unique(part.contents.index[rows], return_inverse=True)
    contents = Contents([part.contents.keys[u] for u in used], index, part.contents.skipped)
    return dataclasses.replace(part, dataset=part.dataset.take(rows), contents=contents)


def _drawing(dataset: Dataset, side_px: int, seed: int) -> Draw:
    """Images that are drawn when they are asked for; a visit is a seed."""

    def draw(rows: Rows, visits: Rows) -> NDArray[np.uint8]:
        from topwork.sources.fractals import frames  # type: ignore[import-not-found]

        out = np.empty((len(rows), side_px, side_px, 3), np.uint8)
        for visit in np.unique(visits):
            of = visits == visit
            out[of] = frames(dataset, rows[of], side_px, seed=seed * 1_000_003 + int(visit))
        return out

    return draw


def _joined(draws: list[Draw], material: Material, side_px: int) -> Draw:
    """One draw over all parts."""
    if len(draws) == 1:
        return draws[0]
    first = np.cumsum([0, *map(len, material.parts)])

    def draw(rows: Rows, visits: Rows) -> NDArray[np.uint8]:
        out = np.empty((len(rows), side_px, side_px, 3), np.uint8)
        part = np.searchsorted(first, rows, side="right") - 1
        for i in np.unique(part):
            of = part == i
            out[of] = draws[i](rows[of] - first[i], visits[of])
        return out

    return draw
