"""Groups that leak: items of one recording, person or moment, which a random split puts on both sides.

    candidates(items, labels, taken, cameras)   groupings that names and cameras suggest: IMG_001_a and IMG_001_b;
                                                frames 120 to 129; s07_01.wav; one folder; pictures within half a minute
    closeness(z, grouping, labels)              are members more alike than other items of their label?
    sides(grouping, splits)                     how many groups lie on both sides of a split, and by chance

    closeness = mean z_i . z_j over pairs of one group  -  the same after items change places within their label
    p = (1 + shuffles that reach it) / (1 + shuffles)   permutation test

What is suggested is only a suspicion; closeness makes it likely, and whether the score drops when groups are kept
together (`care/groups.py`) says what it costs. A grouping says something where most classes have several groups and
most items company in theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 199
COVERED = 0.3  # share of the items that have company in their group
LARGEST = 0.5  # share of the items in one group
GROUPS = 5
PER_CLASS = 2.0  # groups in a class, on average
FRAMES = 10  # neighbouring numbers in a block
MOMENT = 30  # seconds between two pictures of one moment
LEVEL = 0.01
DIRECTIONS = 64  # random ones, which keep inner products
_WORD = re.compile(r"[^\W_]+")
_TAIL = re.compile(r"^(.*\d)([A-Za-z])$")
_NUMBER = re.compile(r"^(.*?)(\d+)\D*$")


@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to group the items."""

    rule: str  # in words
    names: tuple[str, ...]  # (G,) of the groups
    codes: NDArray[np.int32]  # (N,) index into names; -1: none

    @property
    def groups(self) -> int:
        """Those with more than one item."""
        return int((np.bincount(self.codes[self.codes >= 0]) > 1).sum())

    def together(self) -> NDArray[np.int32]:
        """(N,) numbers, an own one for each item without group."""
        alone = self.codes < 0
        out = self.codes.copy()
        out[alone] = len(self.names) + np.arange(alone.sum())
        return out


@dataclass(frozen=True)
class Closeness:
    """How much more alike members of a group are than others of their label."""

    excess: float  # of the mean inner product, 0..2
    p_value: float
    chance: float  # mean inner product of shuffled groups


def candidates(
    items: Sequence[str],
    labels: NDArray[Any],
    taken: NDArray[Any] | None = None,
    cameras: Sequence[str] | None = None,
) -> list[Grouping]:
    """Groupings that can matter, each partition once; labels (N,) numbers; taken (N,) seconds, 0: not known."""
    found: list[Grouping] = []
    seen: set[bytes] = set()
    for rule, keys in _suggested(items, taken, cameras):
        names, codes = np.unique(np.array([key or "" for key in keys], object).astype(str), return_inverse=True)
        codes = codes.astype(np.int32)
        if names[0] == "":
            names, codes = names[1:], codes - 1
        mark = _first_seen(codes).tobytes()
        if mark not in seen and _can_matter(codes, labels):
            seen.add(mark)
            found.append(Grouping(rule, tuple(names.tolist()), codes))
    return found


def closeness(z: NDArray[np.float32], grouping: Grouping, labels: NDArray[Any], seed: int = 0) -> Closeness:
    """Of features of length 1 (N, D) (`outliers.unit`), copies left out by the caller."""
    draw = np.random.Generator(np.random.Philox(key=seed))
    if z.shape[1] > DIRECTIONS:
        z = z @ (draw.standard_normal((z.shape[1], DIRECTIONS), np.float32) / DIRECTIONS**0.5)
    has = np.flatnonzero(grouping.codes >= 0)
    z, codes, labels = z[has], grouping.codes[has], labels[has]
    size = np.bincount(codes)
    pairs = float((size * (size - 1)).sum()) / 2
    own = float((z.astype(np.float64) ** 2).sum())
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))

    def mean_product(rows: NDArray[Any]) -> float:
        sums = np.add.reduceat(z[rows[order]], starts, axis=0, dtype=np.float64)  # (G, D)
        return float(((sums**2).sum() - own) / 2 / max(pairs, 1))

    whole = mean_product(np.arange(len(z)))
    by_label = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[by_label])) + 1
    shuffled = []
    for _ in range(SHUFFLES):
        rows = np.arange(len(z))
        for part in np.split(by_label, ends):
            rows[part] = draw.permutation(part)
        shuffled.append(mean_product(rows))
    chance = np.asarray(shuffled)
    return Closeness(whole - float(chance.mean()), (1 + int((chance >= whole).sum())) / (1 + SHUFFLES), chance.mean())


def sides(grouping: Grouping, splits: NDArray[Any], seed: int = 0) -> tuple[int, float] | None:
    """Groups that lie in more than one split, and as many by chance; None where there is one split only."""
    has = (grouping.codes >= 0) & (splits != "")
    if len(np.unique(splits[has])) < 2:
        return None
    codes, where = grouping.codes[has], np.unique(splits[has], return_inverse=True)[1]

    def crossing(side: NDArray[Any]) -> int:
        met = np.unique(codes.astype(np.int64) * (side.max() + 1) + side) // (side.max() + 1)
        return int((np.bincount(met) > 1).sum())

    draw = np.random.Generator(np.random.Philox(key=seed))
    return crossing(where), float(np.mean([crossing(draw.permutation(where)) for _ in range(49)]))


def _suggested(
    items: Sequence[str], taken: NDArray[Any] | None, cameras: Sequence[str] | None
) -> Iterator[tuple[str, list[str | None]]]:
    paths = [item.replace("\\", "/").rpartition("/") for item in items]
    folders = [folder for folder, _, _ in paths]
    stems = [re.sub(r"\.\w{1,5}$", "", name) for _, _, name in paths]
    yield "in the same folder", [folder or None for folder in folders]
    last = [folder.rpartition("/")[2] for folder in folders]
    if len(set(last)) < len(set(folders)):
        yield "in folders of the same name", [name or None for name in last]
    words = [[(m.start(), m.end()) for m in _WORD.finditer(stem)] for stem in stems]
    for dropped in (1, 2, 3):
        yield (
            f"with the same name up to its last {'word' if dropped == 1 else f'{dropped} words'}",
            [stem[: w[-dropped - 1][1]] if len(w) > dropped else None for stem, w in zip(stems, words, strict=True)],
        )
    for kept in (1, 2):
        yield (
            f"with the same first {'word' if kept == 1 else f'{kept} words'} in the name",
            [stem[: w[kept - 1][1]] if len(w) > kept else None for stem, w in zip(stems, words, strict=True)],
        )
    tails = [_TAIL.match(stem) for stem in stems]
    yield "with the same number in the name", [tail[1] if tail else None for tail in tails]
    numbers = [_NUMBER.match(stem) for stem in stems]
    yield "with the same letters before the number", [(n[1].rstrip("_-. ") or None) if n else None for n in numbers]
    yield (
        f"with neighbouring numbers (blocks of {FRAMES})",
        [
            f"{folder}/{n[1]}{int(n[2]) // FRAMES * FRAMES}+" if n and len(n[2]) < 16 else None
            for folder, n in zip(folders, numbers, strict=True)
        ],
    )
    if cameras is not None:
        yield "of the same camera", [camera or None for camera in cameras]
    if taken is not None:
        yield f"taken within {MOMENT} seconds", _moments(np.asarray(taken), cameras)


def _moments(taken: NDArray[Any], cameras: Sequence[str] | None) -> list[str | None]:
    """One name for pictures of one camera that follow each other without a pause."""
    names: list[str | None] = [None] * len(taken)
    camera = np.asarray(cameras if cameras is not None else [""] * len(taken))
    for one in np.unique(camera):
        own = np.flatnonzero((camera == one) & (taken > 0))
        own = own[np.argsort(taken[own], kind="stable")]
        number = np.cumsum(np.diff(taken[own], prepend=taken[own[:1]]) > MOMENT)
        for row, at in zip(own.tolist(), number.tolist(), strict=True):
            names[row] = f"{one} moment {at}".strip()
    return names


def _can_matter(codes: NDArray[np.int32], labels: NDArray[Any]) -> bool:
    known = codes >= 0
    if not known.any():
        return False
    size = np.bincount(codes[known])
    company = int((size[codes[known]] > 1).sum())
    if (size > 1).sum() < GROUPS or size.max() > LARGEST * len(codes) or company < COVERED * len(codes):
        return False
    pairs = np.unique(np.stack([labels[known].astype(np.int64), codes[known].astype(np.int64)], 1), axis=0)
    return len(pairs) >= PER_CLASS * len(np.unique(pairs[:, 0]))


def _first_seen(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """The same partition has the same numbers; one without company is none."""
    size = np.bincount(np.maximum(codes, 0), weights=codes >= 0)
    alone = (codes < 0) | (size[np.maximum(codes, 0)] < 2)
    _, first, number = np.unique(np.where(alone, -1, codes), return_index=True, return_inverse=True)
    return np.where(alone, -1, first[number])
