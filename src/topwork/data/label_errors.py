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

What is acted on needs more: P(wrong) at the noise that is proven,

    proven = min(noise, least over m of the lower end of Wilson's 95 % interval of the m surest items' disagreement)

where no noise is seen among the surest, what looks wrong may be what the model is wrong about. Eleven pairs of set and
backbone, 8 draws each (2026-11-21): with 5 % flips 252 of 266 labels with proven P >= 0.9 were flipped, where P >= 0.9
alone takes 398 of 431; of labels as they came it takes 6 instead of 58. Accuracy after acting on them, of a probe whose
strength is fixed: +0.15 points +- 0.13 and -0.03 +- 0.05; with P alone +0.22 +- 0.17 and -0.08 +- 0.12 (the truth:
+1.13 +- 0.34).

How much can be found? As much as p tells: were p exact and e of the labels wrong, an item would have the label j with
weight (1 - e) p_j if it is right and e (1 - p_j) / (C - 1) if it is wrong, and the order of p_j has the average
precision that `power` gives. Foretold from flipped labels -> measured, means of 8 draws: ants and bees 0.33 -> 0.27,
with MobileNetV2 0.84 -> 0.93, cats and dogs 0.48 -> 0.50, waste 0.43 -> 0.45, small flowers 0.49 -> 0.49, sst2 0.25 ->
0.27, trec 0.68 -> 0.73, sign digits 0.88 -> 0.98; from labels as they came it is up to 0.14 too high. So nearly all
that such probabilities can find is found; more takes features that know more.

That is ours: confident learning takes a model's ignorance for noise and calls too many wrong where the features hardly
know the classes. Planted flips (5 %) among what is called wrong, means of 4 draws (2026-11-21): sign digits 0.70,
questions of trec 0.24, ants and bees with MobileNetV2 0.74, with the bundled backbone 0.17, small flowers 0.17, films
(sst2) 0.14. With P (1 - p_y) >= 0.9 they are 0.96, 0.85, 1.00, 0.67, 0.81, 1.00; between 0.5 and 0.9 they are 0.3 to
0.8. Ordered by p_y: its average precision is seldom below that of the margin (small flowers: 0.47 and 0.40). What
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
Z = 1.96  # of the interval: 95 %
SURE_SHARES, SURE_ITEMS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0), 50  # how many of the surest items are asked about the noise


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """What is wrong, and how well every label fits."""

    wrong: NDArray[np.bool_]  # (N,); several labels: (N, C), the label's presence or absence is wrong
    likeliest: NDArray[np.int32]  # (N,) the class that the item most probably has; several labels: (N, C) bool
    quality: NDArray[np.float64]  # (N,) p_y, self-confidence; several labels: of the worst label
    doubt: NDArray[np.float64]  # (N,) P(wrong); several labels: of the worst label
    proven: NDArray[np.float64]  # (N,) P(wrong) at the noise that is proven, never above doubt
    noise: float  # share of labels that are wrong, estimated
    joint: NDArray[np.int64]  # (C, C) items by given and by true class, estimated; several labels: (C, 2, 2)


def label_errors(probabilities: NDArray[Any], targets: NDArray[Any]) -> LabelErrors:
    """Of p (N, C), out of fold, and targets (N,) int or (N, C) bool: which labels are wrong."""
    p = np.asarray(probabilities, np.float64)
    if targets.ndim == 1:
        wrong, joint = prune(p, targets)
        fits, noise = self_confidence(p, targets), noise_of(p, targets)
        doubts, likeliest = doubt(fits, noise, p.shape[1]), p.argmax(1).astype(np.int32)
        proven = doubt(fits, proven_noise(p, targets), p.shape[1])
        company = np.bincount(targets, minlength=p.shape[1])[targets] > 1
        wrong |= (likeliest != targets) & (doubts >= LISTED) & company
        return LabelErrors(wrong, likeliest, fits, doubts, proven, noise, joint)
    sides = [(np.stack([1 - p[:, c], p[:, c]], 1), targets[:, c].astype(np.int32)) for c in range(p.shape[1])]
    found = [prune(*side) for side in sides]
    fits = np.stack([self_confidence(*side) for side in sides], 1)  # (N, C)
    noise = np.array([noise_of(*side) for side in sides])
    doubts = np.stack([doubt(fits[:, c], noise[c], 2) for c in range(p.shape[1])], 1)
    least = np.array([proven_noise(*side) for side in sides])
    proven = np.stack([doubt(fits[:, c], least[c], 2) for c in range(p.shape[1])], 1)
    wrong = np.stack([one for one, _ in found], 1)
    return LabelErrors(
        wrong, np.where(wrong, ~targets, targets), fits.min(1), np.where(wrong, doubts, 0).max(1),
        np.where(wrong, proven, 1).min(1), float(noise.mean()), np.stack([joint for _, joint in found]),
    )  # fmt: skip


def power(probabilities: NDArray[Any], there: float, several: bool = False, share: float = USUAL) -> float:
    """Average precision with which labels would be found of which a `share` is wrong, were p (N, C) exact.

    p was learnt from labels of which `there` are wrong; that is taken out: p = (1 - there) p* + there (1 - p*) / (C-1).
    """
    p = np.asarray(probabilities, np.float64)
    p, others = (np.stack([p, 1 - p]), 1) if several else (p, p.shape[1] - 1)
    a = there / others
    q = np.sort(((p - a) / max(1 - there - a, 1e-9)).clip(0, 1).reshape(-1))
    wrong, right = share * (1 - q) / others, (1 - share) * q
    found, seen = np.cumsum(wrong), np.cumsum(wrong + right)
    return float((wrong * found / np.maximum(seen, 1e-300)).sum() / max(found[-1], 1e-300))


def self_confidence(p: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) probability of the label that is there."""
    return p[np.arange(len(y)), y]


def noise_of(p: NDArray[np.float64], y: NDArray[Any]) -> float:
    """Share of wrong labels, as far as the surest items tell; see above."""
    others, sizes = _surest(p, y)
    shares = (others + 1) / (sizes + 1)
    least, all_of_them = float(shares.min()), float(shares[-1])
    return max(min(least, USUAL), least**2 / all_of_them)


def proven_noise(p: NDArray[np.float64], y: NDArray[Any]) -> float:
    """The least share of wrong labels that what is seen allows for; see above."""
    others, sizes = _surest(p, y)
    middle, half = others + Z**2 / 2, Z * np.sqrt(others * (1 - others / sizes) + Z**2 / 4)
    return min(max(float(((middle - half) / (sizes + Z**2)).min()), 0.0), noise_of(p, y))


def _surest(p: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the m surest items have another likeliest class than their label, and m, for several m."""
    order = np.argsort(-p.max(1), kind="stable")
    others = np.cumsum(p.argmax(1)[order] != y[order])
    sizes = np.unique([min(len(y), max(SURE_ITEMS, int(len(y) * share))) for share in SURE_SHARES])
    return others[sizes - 1], sizes


def doubt(fits: NDArray[np.float64], noise: float, classes: int) -> NDArray[np.float64]:
    """(N,) P(wrong) of labels that have the probability `fits`."""
    a = noise / max(classes - 1, 1)
    return np.minimum(1.0, a * (1 - fits) / np.maximum(np.maximum(fits, a), 1e-300))


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
