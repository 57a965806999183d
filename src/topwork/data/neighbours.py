"""Pairs of embeddings that are all but the same, without comparing all with all: random-projection trees.

    cos(a, b) >= least,   rows centred by the caller where the mean says nothing

Every tree halves the rows again and again at the median of their projection on a random direction, until about LEAF are
left together; in a leaf all are compared by one matrix product, and each row names its nearest. Two rows at an angle
theta are torn apart by a split with probability about theta / pi, so

    P(found) = 1 - (1 - (1 - theta / pi)^depth)^trees        theta = arccos(least), depth = log2(N / LEAF)

and there are as many trees as bring this to RECALL for a pair that is just near enough; those that are nearer are found
more surely. Directions are differences of two random rows, which tear near ones apart less often where the data are
flat. Medians make all leaves equal: a tree costs N log N for any data, no bucket grows. Up to ALL rows are compared
outright. The number of trees grows as a power of N, 0.2 for a cosine of 0.9.

Measured in November 2026 (benchmarks/scale.py), 128 dimensions, cosine 0.9, one processor: 10,000, 100,000 and a
million rows take 0.3, 3.5 and 68 s, 2.2 and 2.4 times as much per doubling. Of planted pairs 98.8, 99.6 and 99.5 % were
found; in clusters 99.4, 99.5 and 98.9 %.

Dasgupta & Freund, Random projection trees and low dimensional manifolds, STOC 2008; the angle: Charikar, STOC 2002;
directions from the data: Spotify's Annoy, 2013.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from topwork.types import Progress, silent

ALL = 4096  # rows that are compared with each other outright
LEAF = 192
RECALL = 0.995
TREES = 128  # at most
NAMED = 4  # nearest ones that a row names in a leaf
_BLOCK = 1 << 22  # similarities looked at together: 16 MB


def near_neighbours(
    x: NDArray[np.float32], least: float, seed: int = 0, named: int = NAMED, progress: Progress = silent
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(P, 2) pairs i < j with cosine >= least, and their cosines (P,); in order of i and j.

    x (N, D); a row of zeros is near to none. Each row names its `named` nearest (of each leaf), so of many that
    are all near each other not every pair comes.
    """
    N = len(x)
    unit = _unit(np.ascontiguousarray(x, np.float32))
    rows = np.flatnonzero(np.einsum("nd,nd->n", unit, unit) > 0.5)
    codes = [np.empty(0, np.int64)]
    if len(rows) <= ALL:
        for at in range(0, len(rows), 256):
            part = rows[at : at + 256]
            codes.append(_named(unit[part] @ unit[rows[at:]].T, part, rows[at:], least, N, named))
    else:
        trees, depth = plan(len(rows), least)
        for tree in range(trees):
            order = _leaves(unit, rows, depth, seed, tree)  # (2^depth, m)
            step = max(1, _BLOCK // order.shape[1] ** 2)
            for at in range(0, len(order), step):
                codes.append(_in_leaves(unit, order[at : at + step], least, N, named))
            codes = [np.unique(np.concatenate(codes))]
            progress("near duplicates", tree + 1, trees)
    pairs = np.stack(np.divmod(np.unique(np.concatenate(codes)), max(N, 1)), 1)
    near = cosines(unit, pairs)
    keep = near >= least
    return pairs[keep], near[keep]


def plan(N: int, least: float) -> tuple[int, int]:
    """Trees, and splits from a root to a leaf."""
    depth = max(1, math.ceil(math.log2(N / LEAF)))
    together = (1 - math.acos(min(max(least, -1.0), 1.0)) / math.pi) ** depth
    if together >= 1:
        return 1, depth
    return min(TREES, max(1, math.ceil(math.log(1 - RECALL) / math.log(1 - together)))), depth


def cosines(unit: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """(P,) products of rows of length 1."""
    out = np.empty(len(pairs), np.float32)
    for at in range(0, len(pairs), 1 << 14):
        i, j = pairs[at : at + (1 << 14)].T
        out[at : at + (1 << 14)] = np.einsum("pd,pd->p", unit[i], unit[j])
    return out


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.sqrt(np.einsum("nd,nd->n", x, x))[:, None]
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def _leaves(unit: NDArray[np.float32], rows: NDArray[np.int64], depth: int, seed: int, tree: int) -> NDArray[np.int64]:
    """(2^depth, m) rows of each leaf of one tree; some come twice so that all leaves are equal."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, tree + 1]))
    ends = draw.choice(rows, (depth, 2))
    directions = unit[ends[:, 0]] - unit[ends[:, 1]]  # (depth, d)
    more = -len(rows) % (1 << depth)
    order = np.concatenate([rows, draw.choice(rows, more)])
    heights = unit @ directions.T  # (N, depth)
    order = order[None]
    for level in range(depth):
        nodes, m = order.shape
        halves = np.argpartition(heights[order, level], m // 2 - 1, axis=1)
        order = np.take_along_axis(order, halves, 1).reshape(2 * nodes, m // 2)
    return order


def _in_leaves(
    unit: NDArray[np.float32], order: NDArray[np.int64], least: float, N: int, named: int
) -> NDArray[np.int64]:
    """Codes i * N + j of the pairs that the rows of each leaf name."""
    block = unit[order]  # (L, m, d)
    near = block @ block.transpose(0, 2, 1)  # (L, m, m)
    near[order[:, :, None] == order[:, None, :]] = -2.0  # itself, also where it comes twice
    enough = near >= least
    if np.count_nonzero(enough) > 2 * named * order.size:  # crowded: only the nearest are looked at
        best = np.argpartition(near, -named, axis=2)[:, :, -named:]  # (L, m, named)
        leaf, i, at = np.nonzero(np.take_along_axis(near, best, 2) >= least)
        j = best[leaf, i, at]
    else:
        leaf, i, j = np.nonzero(enough)
    one, other = order[leaf, i], order[leaf, j]
    return _best(np.minimum(one, other), np.maximum(one, other), near[leaf, i, j], N, named)


def _named(
    near: NDArray[np.float32], part: NDArray[np.int64], rows: NDArray[np.int64], least: float, N: int, named: int
) -> NDArray[np.int64]:
    """Codes of the pairs among near (n, M) whose second row comes after the first."""
    i, j = np.nonzero(near >= least)
    after = part[i] < rows[j]
    i, j = i[after], j[after]
    return _best(part[i], rows[j], near[i, j], N, named)


def _best(
    one: NDArray[np.int64], other: NDArray[np.int64], near: NDArray[np.float32], N: int, named: int
) -> NDArray[np.int64]:
    """Codes of pairs that are among the nearest of their first, or of their second row."""
    codes, first = np.unique(one * N + other, return_index=True)
    one, other, near = one[first], other[first], near[first]
    stay = np.zeros(len(one), bool)
    for side in (one, other):
        order = np.lexsort((codes, -near, side))
        starts = np.flatnonzero(np.diff(side[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        stay[order[rank < named]] = True
    return codes[stay]
