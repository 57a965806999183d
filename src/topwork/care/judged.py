"""Out-of-fold probabilities of the labelled items: what the others say of an item.

    p = (p_line + p_kernel) / 2      a linear probe without the item's fold; a Gaussian kernel without the item
                                     (`nn.kernel_ridge`), each at the temperature that suits the other folds

Average precision of 5 % flipped labels by p_y, the probe -> the mean, 5 draws (2026-11-21), bundled backbones: ants and
bees 0.25 -> 0.32, cats and dogs 0.52 -> 0.56, waste 0.40 -> 0.50, small flowers 0.44 -> 0.50, sst2 0.25 -> 0.26, trec
0.72 -> 0.74 (all 5,941, 2 draws: 0.77 -> 0.79); with MobileNetV2 ants and bees 0.92 -> 0.93, waste 0.69 -> 0.75. What
did not help: more folds (+0.006), three repeats of the folds (+0.01), stronger penalties (-0.01 to -0.03), learning
anew with suspects left out or weighted down (0.00 to +0.01), nearest neighbours or means in the vote (from -0.04 to
+0.06), the margin or entropy instead of p_y (-0.07 to +0.01).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import probe as probes
from topwork.care.sight import Sight
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.calibrate import cross_fitted
from topwork.nn.kernel_ridge import left_out
from topwork.tasks.classification import hits

FOLDS = 5
LEAST = 20  # labelled items
KERNEL_ITEMS = 20_000  # from which a line knows as much, and the kernel takes its time
LARGE = 1e8  # items x features x classes from which the probe is ridge regression: a fiftieth of the time


@dataclass(frozen=True, eq=False)
class Judged:
    """Out-of-fold probabilities of the labelled items."""

    at: NDArray[np.int64]  # (M,) of the sight
    y: NDArray[Any]  # (M,) or (M, C)
    folds: NDArray[np.int32]
    p: NDArray[np.float64]  # (M, C)
    accuracy: float


def judge(sight: Sight) -> Judged | None:
    """Mean of the probe's and the kernel's probabilities for every labelled item; None where there are no classes."""
    dataset = sight.dataset
    at = sight.labelled()
    if dataset.numeric:
        sight.not_done.append(f"label errors and groups: '{dataset.labels[0]}' is a number, not a class")
        return None
    y = dataset.targets()[at]
    classes = np.flatnonzero(y.any(0)) if y.ndim == 2 else np.unique(y)
    if len(at) < LEAST or len(classes) < 2:
        few = f"{len(at):,} labelled {sight.many} of {len(classes)} classes, at least {LEAST} of 2 are needed"
        sight.not_done.append(f"label errors and groups: {few}")
        return None
    together = keep_together(dataset)[at]
    folds = make_folds(y, together, FOLDS, sight.seed)
    large = len(at) * sight.x.shape[1] * len(dataset.labels) > LARGE
    line = probe(sight, at, y, folds, "ridge" if large else "logistic")
    if len(at) > KERNEL_ITEMS:
        return line
    bent = left_out(sight.x[at], y, together, len(dataset.labels), sight.seed).astype(np.float32)
    p = (line.p + cross_fitted(bent, y, folds, dataset.activation)) / 2
    return Judged(at, y, folds, p, float(hits(p, y).mean()))


def probe(sight: Sight, at: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int32], method: str) -> Judged:
    """What a linear head says that was learnt without the item's fold."""
    best, _ = probes.choose(
        sight.x[at], y, folds, len(sight.dataset.labels), methods=(method,), progress=sight.watch.progress
    )
    p = cross_fitted(best.held_out, y, folds, sight.dataset.activation)
    return Judged(at, y, folds, p, float(hits(p, y).mean()))
