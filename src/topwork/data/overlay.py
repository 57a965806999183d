"""Do two files show the same picture, one of them cropped, resized, saved again or mirrored? Lay one over the other.

    lay      b shrunk to 23 ... 17 of 24 cells, along both axes or one, plain and mirrored, moved over a; a over b: the
             best correlation
    settle   scales and shifts by Gauss-Newton, at 48 and 96 px, over the common part: smallest
                 sum_{u, v} (a(sx u + tx, sy v + ty) - gain b(u, v) - offset)^2
    same  <=>  correlation of what is finer than about 3 px of 96 >= SAME, and >= OVERLAP of one lies in the other

Both pictures are looked at as squares of 96 px, grey: a crop is then a scale and a shift per axis, whatever the shapes.
Two photos with the same layout agree in what is coarse; in what is fine only the same shot does.

Measured in November 2026 on five real sets, 600 crops of 0.9 of each side at random places, 600 of 0.75 and 600 of 0.9
and mirrored, saved as JPEG of quality 90: correlation is 0.974 or more for all. Of 3,217 pairs of different pictures,
each with those that its embedding is nearest to, one is above 0.84: 0.92, of two like tissues on white. Frames of a
moment may well be the same: among 400 faces of ten shots each, pairs with another gaze reach 0.956, those that differ
by a fraction of a second 0.99.

Lewis, Fast Normalized Cross-Correlation, 1995 (laying); Evangelidis & Psarakis, Parametric Image Alignment Using
Enhanced Correlation Coefficient Maximization, TPAMI 2008 (settling, there by the correlation itself).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.types import Progress, silent

SIDE = 96
CELLS = 24
SMALLEST = 17  # cells of a shrunk picture: crops down to 0.7 of each side
LAID = 0.84  # coarse correlation from which settling begins
SAME = 0.965  # fine correlation
HOPE = 0.75  # fine correlation at 48 px below which it is given up
OVERLAP = 0.6
_SMALL = range(CELLS - 1, SMALLEST - 1, -1)
SHAPES = ((CELLS, CELLS), *((m, m) for m in _SMALL), *((m, CELLS) for m in _SMALL), *((CELLS, m) for m in _SMALL))
"""Height and width, in cells, of what is cut from both axes alike, or from one."""
_KEPT, _GREYS = 768, 20_000  # pictures in memory: 400 KB each as they are laid, 9 KB as they are


@dataclass(frozen=True)
class Overlay:
    """How b lies on a."""

    score: float  # correlation of the fine parts, -1..1
    overlap: float  # share of b that lies in a
    mirrored: bool = False

    @property
    def same(self) -> bool:
        """Whether both show the same picture."""
        return self.score >= SAME and self.overlap >= OVERLAP


NOTHING = Overlay(0.0, 0.0)


def same_picture(a: str | os.PathLike[str] | bytes, b: str | os.PathLike[str] | bytes) -> Overlay:
    """Lay one image file over another; `.same` decides."""
    return _overlay(Laid.of(_squared(a)), Laid.of(_squared(b)))


def same_pictures(paths: Sequence[str], pairs: NDArray[np.int64], progress: Progress = silent) -> list[Overlay]:
    """Of each pair of rows; files that cannot be read are like nothing."""
    greys: OrderedDict[int, NDArray[np.uint8] | None] = OrderedDict()
    kept: OrderedDict[int, Laid | None] = OrderedDict()

    def grey(row: int) -> NDArray[np.uint8] | None:
        if row not in greys:
            try:
                greys[row] = _squared(paths[row])
            except BadData:
                greys[row] = None
            if len(greys) > _GREYS:
                greys.popitem(last=False)
        return greys[row]

    def laid(row: int) -> Laid | None:
        if row not in kept:
            kept[row] = None if (picture := grey(row)) is None else Laid.of(picture)
            if len(kept) > _KEPT:
                kept.popitem(last=False)
        kept.move_to_end(row)
        return kept[row]

    out = []
    for number, (i, j) in enumerate(pairs.tolist()):
        a, b = laid(i), laid(j)
        out.append(NOTHING if a is None or b is None else _overlay(a, b))
        if number % 64 == 0:
            progress("crops", number, len(pairs))
    progress("crops", len(pairs), len(pairs))
    return out


@dataclass(frozen=True, eq=False)
class Laid:
    """A picture with what laying needs."""

    grey: NDArray[np.float32]  # (96, 96)
    windows: tuple[NDArray[np.float32], ...]  # of each of SHAPES: (places, cells), centred, of length 1
    shrunk: tuple[NDArray[np.float32], ...]  # of each of SHAPES: (2, cells), plain and mirrored, centred, of length 1

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Laid:
        """Everything from (96, 96) grey values."""
        from PIL import Image

        grey = pixels.astype(np.float32)
        cells = grey.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS).mean((1, 3))
        image = Image.fromarray(grey)
        windows, shrunk = [], []
        for h, w in SHAPES:
            small = np.asarray(image.resize((w, h), Image.Resampling.BOX))
            shrunk.append(_centred(np.stack([small, small[:, ::-1]]).reshape(2, h * w)))
            seen = np.lib.stride_tricks.sliding_window_view(cells, (h, w))
            windows.append(_centred(seen.reshape(-1, h * w)))
        return cls(grey, tuple(windows), tuple(shrunk))


def _squared(source: str | os.PathLike[str] | bytes) -> NDArray[np.uint8]:
    """(96, 96) grey values of the whole picture."""
    from PIL import Image

    from topwork.modalities.image import decode

    image = Image.fromarray(decode(source, min_px=SIDE)).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _centred(rows: NDArray[Any]) -> NDArray[np.float32]:
    rows = (rows - rows.mean(1, keepdims=True)).astype(np.float32)
    return rows / np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), 1.0)[:, None]


def _overlay(a: Laid, b: Laid) -> Overlay:
    """The better of b on a and a on b."""
    best, one, other, start, mirrored = -1.0, a, b, (1.0, 1.0, 0.0, 0.0), False
    for first, second in ((a, b), (b, a)):
        for (h, w), windows, shrunk in zip(SHAPES, first.windows, second.shrunk, strict=True):
            near = windows @ shrunk.T  # (places, 2)
            if near.max() > best:
                best = float(near.max())
                place, turned = np.unravel_index(int(near.argmax()), near.shape)
                top, left = divmod(int(place), CELLS - w + 1)
                one, other, mirrored = first, second, bool(turned)
                start = (w / CELLS, h / CELLS, left / CELLS, top / CELLS)
    if best < LAID:
        return Overlay(0.0, 0.0, mirrored)
    below = other.grey[:, ::-1] if mirrored else other.grey
    score, overlap = _settled(one.grey, below, np.array(start))
    return Overlay(score, overlap, mirrored)


def _settled(a: NDArray[np.float32], b: NDArray[np.float32], p: NDArray[np.float64]) -> tuple[float, float]:
    """Fine correlation and common share after the best scales and shifts: b(u, v) = a(sx u + tx, sy v + ty)."""
    score = share = 0.0
    for side, rounds in ((SIDE // 2, 8), (SIDE, 4)):
        k = SIDE // side
        one, other = (x.reshape(side, k, side, k).mean((1, 3)) for x in (a, b))
        p = _closer(one, other, p, rounds)
        if not (0.5 < p[0] < 1.3 and 0.5 < p[1] < 1.3):
            return 0.0, 0.0
        score, share = _agreement(one, other, p)
        if score < HOPE:
            break
    return score, share


def _closer(a: NDArray[Any], b: NDArray[Any], p: NDArray[np.float64], rounds: int) -> NDArray[np.float64]:
    """Scales and shifts after some steps of Gauss-Newton; gain and offset are solved along."""
    side = len(a)
    slope_y, slope_x = np.gradient(a * np.float32(side))
    places = (np.arange(side) + 0.5) / side
    for _ in range(rounds):
        across, right = _weights(side, p[0], p[2])
        down, low = _weights(side, p[1], p[3])
        if right.sum() * low.sum() < 0.3 * side * side:
            break
        value, gx, gy = (down @ image @ across.T for image in (a, slope_x, slope_y))
        u, v = places[right][None, :], places[low][:, None]
        target = b[np.ix_(low, right)]
        rows = [gx * u, gy * v, gx, gy, -target, -np.ones_like(target)]
        system = np.stack([row.ravel() for row in rows]).astype(
            np.float64
        )  # (6, n): value + J dp = gain target + offset
        step = np.linalg.lstsq(system @ system.T, -system @ value.ravel(), rcond=1e-8)[0][:4]
        p = p + np.clip(step, -0.05, 0.05)
        if np.abs(step).max() < 2e-4:
            break
    return p


def _agreement(a: NDArray[Any], b: NDArray[Any], p: NDArray[np.float64]) -> tuple[float, float]:
    """Correlation of the fine parts where b lies on a, and how much of b does."""
    side = len(a)
    across, right = _weights(side, p[0], p[2])
    down, low = _weights(side, p[1], p[3])
    share = right.sum() * low.sum() / (side * side)
    if share < 0.3:
        return 0.0, 0.0
    one, other = _fine(down @ a @ across.T), _fine(b[np.ix_(low, right)])
    length = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / max(length, 1e-6)), float(share)


def _weights(side: int, scale: float, shift: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(n, side) weights that read one axis at scale u + shift between its pixels, and which of u (side,) lie inside."""
    at = scale * (np.arange(side) + 0.5) / side + shift
    inside = (at >= 0) & (at <= 1)
    at = np.clip(at[inside] * side - 0.5, 0, side - 1.001)
    left = at.astype(np.intp)
    out = np.zeros((len(at), side), np.float32)
    out[np.arange(len(at)), left] = 1 - (at - left)
    out[np.arange(len(at)), left + 1] = at - left
    return out, inside


def _fine(grey: NDArray[Any]) -> NDArray[np.float64]:
    """What is finer than a Gaussian of 3 px, about its mean."""
    from scipy.ndimage import gaussian_filter

    grey = grey.astype(np.float64)
    fine = gaussian_filter(grey, 0.8) - gaussian_filter(grey, 3.0)
    return (fine - fine.mean()).ravel()
