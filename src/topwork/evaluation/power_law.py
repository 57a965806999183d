"""The power law of learning curves, fitted to many curves at once.

    error(n) = a + b n^-c      a >= 0, b >= 0, 0.1 <= c <= 1.5

For each c of a grid (a, b) is a weighted least squares line in n^-c, in closed form; the best c wins. Weights grow with
sqrt(n): small samples scatter more.
Figueroa et al., Predicting sample size required for classification performance, 2012.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

POWERS = np.linspace(0.1, 1.5, 29)


def power_law(sizes: Array, errors: Array, noise: float = 0.0, seed: int = 0) -> Array:
    """(R, 3) a, b, c of errors (R, S) measured at `sizes` (S,).

    With `noise`, the variance of one point, c is drawn at random by its likelihood instead of being the likeliest: a
    curve of a few points hardly tells c, and a forecast that pretends it does is too sure.
    """
    size = np.asarray(sizes, float)
    w = np.sqrt(size) / np.sqrt(size).sum()
    fits, losses = zip(*(_line(size**-c, w, errors, c) for c in POWERS), strict=True)
    loss = np.stack(losses)  # (P, R)
    if noise > 0:
        odds = np.exp(-(loss - loss.min(0)) * len(size) / (2 * noise)).cumsum(0)
        drawn = np.random.Generator(np.random.Philox(key=seed)).random(len(errors)) * odds[-1]
        which = (odds < drawn).sum(0)
    else:
        which = loss.argmin(0)
    return np.stack(fits)[which, np.arange(len(errors))]


def _line(g: Array, w: Array, errors: Array, c: float) -> tuple[Array, Array]:
    """Least squares a + b g with a, b >= 0: (R, 3) and its loss (R,)."""
    mean, level = w @ g, errors @ w
    b = (errors @ (w * (g - mean))) / (w @ (g - mean) ** 2)
    a = level - b * mean
    b = np.where(a < 0, errors @ (w * g) / (w @ g**2), b)  # the bound a = 0
    a, b = np.where(b < 0, level, np.maximum(a, 0)), np.maximum(b, 0)  # the bound b = 0: a flat curve
    return np.stack([a, b, np.full(len(a), c)], 1), (errors - a[:, None] - b[:, None] * g) ** 2 @ w
