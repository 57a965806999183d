"""Labels that are probably wrong: confident learning on probabilities that have not seen their item.

    t_j      = mean of p_j(x) over the items labelled j                        how sure is sure, for class j
    J[i, j]  = items labelled i whose likeliest class with p_j >= t_j is j      the confident joint, (C, C)
    n[i, j]  = J scaled so that row i sums to the items labelled i, in whole numbers
    wrong    = for i != j the n[i, j] items labelled i with the largest margin p_j - p_i; never an item whose label is
               also the likeliest one

Northcutt, Jiang & Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021 (prune by noise
rate). Several labels: each label alone, against its absence. A test compares with the authors' package.

How sure is one of them? By Bayes, with flips to any other class alike and a share `noise` of them in all:

    P(wrong | label y, x) = min(1, a (1 - p_y) / p_y)      a = noise / (C - 1): what a wrong label costs by itself
    noise = max(min(s, 0.05), s^2 / d)      d: share of all items whose likeliest class is not their label,
                                            s: the same of the m surest items, least over m from a tenth of all

s is noise, and what a model is wrong about although it is sure. Where s is near d, disagreement does not fall with
confidence and is noise; where s is far below d, it would fall on, and noise is taken for the usual 0.05 at most.

That is ours: confident learning takes a model's ignorance for noise and calls too many wrong where the features hardly
know the classes. Planted flips (5 %) among what is called wrong, means of 4 draws (2026-11-21): sign digits 0.70,
questions of trec 0.24, ants and bees with MobileNetV2 0.74, with the bundled backbone 0.17, small flowers 0.17, films
(sst2) 0.14. With P (1 - p_y) >= 0.9 they are 0.96, 0.85, 1.00, 0.67, 0.81, 1.00; between 0.5 and 0.9 they are 0.3 to
0.8. Ordered by p_y: its average precision is never below that of the margin (small flowers: 0.47 and 0.40). What
confident learning leaves out is listed, too, where another class is likelier and P >= 0.1: average precision of the
list 0.75 -> 0.90 of the digits, 0.62 -> 0.66 of trec, 0.93 -> 0.96 of ants and bees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEARLY = 1e-6  # a probability so near its threshold has reached it
LISTED = 0.1  # P(wrong) from which an item is listed whose likeliest class is another one
USUAL = 0.05  # share of wrong labels that is believed without being seen
SURE_SHARES, SURE_ITEMS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0), 50  # how many of the surest items are asked about the noise


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What is wrong, and how well every label fits."""

    wrong: NDArray[np.bool_]  # (N,); several labels: (N, C), the label's presence or absence is wrong
    likeliest: NDArray[np.int32]  # (N,) the class that the item most probably has; several labels: (N, C) bool
    quality: NDArray[np.float64]  # (N,) p_y, self-confidence; several labels: of the worst label
    doubt: NDArray[np.float64]  # (N,) P(wrong); several labels: of the worst label
    noise: float  # share of labels that are wrong, estimated
    joint: NDArray[np.int64]  # (C, C) items by given and by true class, estimated; several labels: (C, 2, 2)


def label_errors(probabilities: NDArray[Any], targets: NDArray[Any]) -> LabelErrors:
    """Of p (N, C), out of fold, and targets (N,) int or (N, C) bool: which labels are wrong."""
    p = np.asarray(probabilities, np.float64)
    if targets.ndim == 1:
        wrong, joint = prune(p, targets)
        fits, noise = self_confidence(p, targets), noise_of(p, targets)
        doubts, likeliest = doubt(fits, noise, p.shape[1]), p.argmax(1).astype(np.int32)
        company = np.bincount(targets, minlength=p.shape[1])[targets] > 1
        wrong |= (likeliest != targets) & (doubts >= LISTED) & company
        return LabelErrors(wrong, likeliest, fits, doubts, noise, joint)
    sides = [(np.stack([1 - p[:, c], p[:, c]], 1), targets[:, c].astype(np.int32)) for c in range(p.shape[1])]
    found = [prune(*side) for side in sides]
    fits = np.stack([self_confidence(*side) for side in sides], 1)  # (N, C)
    noise = np.array([noise_of(*side) for side in sides])
    doubts = np.stack([doubt(fits[:, c], noise[c], 2) for c in range(p.shape[1])], 1)
    wrong = np.stack([one for one, _ in found], 1)
    return LabelErrors(
        wrong, np.where(wrong, ~targets, targets), fits.min(1), np.where(wrong, doubts, 0).max(1),
        float(noise.mean()), np.stack([joint for _, joint in found]),
    )  # fmt: skip


def self_confidence(p: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) probability of the label that is there."""
    return p[np.arange(len(y)), y]


def noise_of(p: NDArray[np.float64], y: NDArray[Any]) -> float:
    """Share of wrong labels, as far as the surest items tell; see above."""
    order = np.argsort(-p.max(1), kind="stable")
    other = np.cumsum(p.argmax(1)[order] != y[order])
    sizes = np.unique([min(len(y), max(SURE_ITEMS, int(len(y) * share))) for share in SURE_SHARES])
    shares = (other[sizes - 1] + 1) / (sizes + 1)
    least, all_of_them = float(shares.min()), float(shares[-1])
    return max(min(least, USUAL), least**2 / all_of_them)


def doubt(fits: NDArray[np.float64], noise: float, classes: int) -> NDArray[np.float64]:
    """(N,) P(wrong) of labels that have the probability `fits`."""
    a = noise / max(classes - 1, 1)
    return np.minimum(1.0, a * (1 - fits) / np.maximum(fits, a))


def prune(p: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N,) wrong ones and the estimated joint (C, C) of given and true classes."""
    C = p.shape[1]
    joint = confident_joint(p, y)
    wrong = np.zeros(len(y), bool)
    for i in range(C):
        own = np.flatnonzero(y == i)
        if len(own) < 2:  # the last item of its class is never taken
            continue
        for j in np.flatnonzero(joint[i]):
            if j != i:
                margin = p[own, j] - p[own, i]
                wrong[own[np.argsort(-margin, kind="stable")[: joint[i, j]]]] = True
    return wrong & (p[np.arange(len(y)), y] < p.max(1) - NEARLY), joint


def confident_joint(p: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.int64]:
    """(C, C) items by given class (rows) and true class (columns); every row sums to the items of its class."""
    C = p.shape[1]
    sizes = np.bincount(y, minlength=C)
    sure = np.array([p[y == c, c].mean() if sizes[c] else np.inf for c in range(C)])  # (C,)
    reached = p >= np.maximum(sure, NEARLY) - NEARLY
    guess = np.where(reached.sum(1) > 1, p.argmax(1), reached.argmax(1))  # of several the likeliest of all
    some = reached.any(1)
    counts = np.bincount(y[some] * C + guess[some], minlength=C * C).reshape(C, C).astype(float)
    np.fill_diagonal(counts, np.maximum(np.diagonal(counts), 1))  # at least one of each class is right
    joint = np.stack([_whole(row) for row in counts / counts.sum(1, keepdims=True) * sizes[:, None]])
    for c in np.flatnonzero((np.diagonal(joint) < 1) & (sizes > 0)):
        joint[c, joint[c].argmax()] -= 1
        joint[c, c] += 1
    return joint


def _whole(row: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest whole numbers with the same sum: what is missing goes where rounding took most."""
    whole = np.round(row)
    missing = round(float(row.sum() - whole.sum()))
    order = np.argsort(row - whole, kind="stable")[:: -1 if missing > 0 else 1]
    whole[order[: abs(missing)]] += np.sign(missing)
    return whole.astype(np.int64)
