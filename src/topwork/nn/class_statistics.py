"""What is left of a class when its items are gone: how many, their mean, and one covariance for all classes.

    x | c ~ Normal(m_c, S)        S = A^T A + diag(r)        A (R, D): the strongest R directions within the classes,
                                                             r (D,): variance of every feature that A does not have

Sums of old and new items: with n_c + k_c items of means m_c and u_c the scatter grows by that of the new items and by
n_c k_c / (n_c + k_c) (m_c - u_c)(m_c - u_c)^T (Chan, Golub & LeVeque, 1979). Drawn items depend on seed, class and turn
alone. Features that are rectified are no Gaussians; how far this carries is measured where it is used (`extending`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Of C classes and D features."""

    counts: NDArray[np.int64]  # (C,) items; 0: a class of which nothing is known
    means: Array  # (C, D)
    axes: Array  # (R, D) A
    rest: Array  # (D,) r

    def sample(self, label: int, items: int, seed: int, turn: int = 0) -> Array:
        """(items, D) as they may have been."""
        name = hashlib.blake2b(repr(("class", seed, label, turn)).encode(), digest_size=8).digest()
        draw = np.random.Generator(np.random.Philox(key=int.from_bytes(name, "big")))
        along = draw.standard_normal((items, len(self.axes)), np.float32)
        beside = draw.standard_normal((items, self.means.shape[1]), np.float32)
        return self.means[label] + along @ self.axes + beside * np.sqrt(self.rest)


def nothing(classes: int, width: int) -> ClassStatistics:
    """No items yet."""
    zeros = np.zeros((classes, width), np.float32)
    return ClassStatistics(np.zeros(classes, np.int64), zeros, zeros[:0], np.zeros(width, np.float32))


def collect(x: Array, y: NDArray[Any], classes: int, rank: int) -> ClassStatistics:
    """Of items x (N, D) and their classes y (N,)."""
    return more(nothing(classes, x.shape[1]), x, y, rank)


def more(known: ClassStatistics, x: Array, y: NDArray[Any], rank: int) -> ClassStatistics:
    """With further items; classes beyond the known ones are new. `rank`: of A, at most."""
    (N, D), C = x.shape, max(len(known.counts), int(y.max(initial=-1)) + 1)
    old = np.zeros(C, np.int64)
    old[: len(known.counts)] = known.counts
    before = np.zeros((C, D))
    before[: len(known.means)] = known.means
    new = np.bincount(y, minlength=C)
    sums = np.zeros((C, D))
    np.add.at(sums, y, x.astype(np.float64))
    own = sums / np.maximum(new, 1)[:, None]  # (C, D) means of the new items
    total = np.maximum(old + new, 1)[:, None]
    means = (old[:, None] * before + sums) / total
    both = np.flatnonzero((old > 0) & (new > 0))
    shifts = np.sqrt(old * new / total[:, 0])[both, None] * (before - own)[both]
    rows = np.concatenate([np.sqrt(old.sum()) * known.axes, x - own[y], shifts]).astype(np.float32)
    size = old.sum() + N
    axes = _strongest(rows, min(rank, len(rows), D)) / np.sqrt(size)
    whole = (np.square(rows, dtype=np.float64).sum(0) + old.sum() * known.rest) / size
    rest = np.maximum(whole - np.square(axes, dtype=np.float64).sum(0), 0)
    return ClassStatistics(old + new, means.astype(np.float32), axes.astype(np.float32), rest.astype(np.float32))


def _strongest(rows: Array, rank: int) -> NDArray[Any]:
    """(rank, D) B with B^T B near to rows^T rows: a random projection and two rounds of power iteration.

    Halko, Martinsson & Tropp, Finding Structure with Randomness, SIAM Review 2011.
    """
    M, D = rows.shape
    width = min(rank + 16, M, D)
    draw = np.random.Generator(np.random.Philox(key=0))
    basis = draw.standard_normal((D, width)).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(rows.T @ (rows @ basis))[0]  # (D, width)
    _, size, turn = np.linalg.svd((rows @ basis).astype(np.float64), full_matrices=False)
    return (size[:rank, None] * turn[:rank]) @ basis.T
