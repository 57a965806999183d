"""Whether mirrored images keep their class: measured, not guessed. Letters, digits and hands do not; flowers do.

For every fold a quick ridge is solved on the frozen features of the others, and asked about the fold's images as they
are and mirrored. Where it does worse on the mirrored ones by an exact McNemar test (one-sided, 5 %), or is left with
less than half of what it gains over the largest class, mirroring is switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.paired import compare_hits
from topwork.evaluation.quick_ridge import compress, ridges
from topwork.tasks import is_numeric
from topwork.types import Choice

MOST = 400  # images
AXES = 128
LEVEL = 0.05

Rows = NDArray[np.int64]
Ask = Callable[[Rows, bool], NDArray[np.float32]]
"""ask(rows (B,), mirrored) -> frozen features (B, D)."""


def choose_view(rows: Rows, targets: NDArray[Any], folds: NDArray[np.int32], ask: Ask, seed: int = 0) -> Choice:
    """The recipe of the training views: "crop", or "crop_upright" where mirroring would change the class.

    targets (N,) or (N, C) and folds (N,) of the rows (N,). Of numbers the class is the third in which one lies.
    """
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(rows))[:MOST]
    rows, y, folds = rows[order], targets[order], folds[order]
    kept, upright_only = "crop", "crop_upright"
    if is_numeric(y):
        kept, upright_only = "flip", "plain"  # a crop changes sizes, which may be what is measured
        y = np.searchsorted(np.quantile(y, [1 / 3, 2 / 3]), y, "right")
    several = y.ndim == 2
    n = len(rows)
    z = compress(np.concatenate([ask(rows, False), ask(rows, True)]), AXES, seed)
    upright, mirrored = np.zeros(n, bool), np.zeros(n, bool)
    for fold in np.unique(folds):
        own, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if not len(rest):
            return Choice("views", kept, "too few images to ask whether mirroring changes the class")
        answers = next(ridges(z[:n], y, rest, np.array([len(rest)]), np.concatenate([z[own], z[n + own]])))
        right = (answers == np.concatenate([y[own], y[own]])).reshape(2, len(own), *([-1] if several else []))
        right = right.all(2) if several else right
        upright[own], mirrored[own] = right
    largest = 0.0 if several else np.bincount(y).max() / n
    found = compare_hits(mirrored, upright)
    worse = found.difference > 0 and found.p_value / 2 < LEVEL
    lost = mirrored.mean() - largest < (upright.mean() - largest) / 2
    words = f"{100 * upright.mean():.1f} % right as they are, {100 * mirrored.mean():.1f} % mirrored, of {n:,}"
    if worse or lost:
        return Choice("views", upright_only, f"mirrored images do not keep their class: {words}")
    return Choice("views", kept, f"mirrored images keep their class: {words}")
