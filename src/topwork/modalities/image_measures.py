"""Is a picture worth looking at? Sharpness, exposure and what a broken transfer has left grey, from 64 x 64 pixels.

    sharpness = top(L g) / top(L g'')       g: 64 x 64 grey, g'': 16 x 16 (means of 4 x 4), L: 4-neighbour Laplacian
                top: root mean square of the strongest 5 %
    dark, light = 1 % and 99 % quantiles of g
    lost      = rows at the bottom, of 64, that are all exactly grey: what a JPEG decoder fills in when the data end

The variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) alone confuses blur with little contrast; divided by that
of a coarser octave, contrast and scale cancel: natural pictures have like energy in every octave (Field, 1987). The
strongest parts count, so that a sharp subject before a blurred background is sharp.

Measured in November 2026 on eight real sets of 100 to 250 images: sharpness is 0.28 (one in a thousand) to 2, but in
one set that was enlarged fourfold (0.15 to 0.3). After a Gaussian blur with sigma 2 % of the shorter side it is 0.15 to
0.20 in the median (95 %: 0.27), with 4 % 0.10 to 0.13 (95 %: 0.21). Below BLURRED lie 85 % of the former, 99 % of the
latter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LOOK_PX = 64
BLURRED = 0.23  # sharpness below which nothing in the picture is sharp
GREY = 128  # what a JPEG decoder writes where nothing came


def sharpness(grey: NDArray[np.uint8], coarse: NDArray[np.uint8]) -> float:
    """About 0.5 for a photo, below BLURRED for a blurred one; grey (64, 64), coarse (16, 16)."""
    return _top(grey, 200) / max(_top(coarse, 10), 1.0)


def exposure(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Grey values below which 1 % and 99 % of the pixels lie; grey (64, 64)."""
    one = grey.size // 100
    ordered = np.partition(grey, (one, grey.size - 1 - one), axis=None)
    return int(ordered[one]), int(ordered[-1 - one])


def lost_rows(colours: NDArray[np.uint8]) -> int:
    """Rows at the bottom that are one grey; colours (64, 64, 3), as the file has them, not turned."""
    if abs(int(colours[-1, 0, 0]) - GREY) > 1:  # nearly always: no further look
        return 0
    grey = np.all(np.abs(colours.astype(np.int16) - GREY) <= 1, axis=(1, 2))  # (64,)
    return LOOK_PX if bool(grey.all()) else int(np.argmin(np.flip(grey)))


def _top(grey: NDArray[np.uint8], count: int) -> float:
    """Root mean square of the strongest of the Laplacian."""
    g = grey.astype(np.int16)
    edges = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
    strength = np.abs(edges, out=edges)
    strongest = np.partition(strength, edges.size - count, axis=None)[-count:].astype(np.float32)
    return math.sqrt(float(strongest @ strongest) / count)
