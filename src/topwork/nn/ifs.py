"""Iterated function systems: sample contracting ones and walk their attractors, many at once.

    z' = a z + conj(b z) + c         an affine map of the plane, z = x + iy; singular values |a| + |b| and ||a| - |b||
    z_t+1 = map_k(z_t), k drawn with probability |det_k| / sum |det|,  det = |a|^2 - |b|^2      (the chaos game)

A map M = R(t) diag(s1, s2) R(p) diag(d1, d2), R rotations, 1 > s1 >= s2 > 0, d = +-1, always contracts. How wide a
system of N maps reaches is held in a band that Anderson and Farrell found to give well-filled pictures:

    sum_k s_k1 + 2 s_k2 = alpha,     (5 + N) / 2 <= alpha <= (6 + N) / 2

Anderson & Farrell, Improving Fractal Pre-training, WACV 2022. Barnsley, Fractals Everywhere, 1988 (the chaos game).
Ours: complex coefficients (three numbers to look up in a step, not six), singular values in the order in which they are
drawn without their second shuffling, walks that begin at a fixed point of one of the maps, which lies on the attractor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONGEST = 0.98  # largest singular value: nearer to 1 a walk needs too long to spread
BURN = 8  # steps that are not shown: until then walkers are at the images of few points
LOTS = 256  # a map is drawn by a byte

Systems = NDArray[np.complex128]  # (F, M, 3): a, b, c of every map; maps that a system lacks have probability 0


def sample(rng: np.random.Generator, maps: int) -> Systems:
    """One system of `maps` maps: (maps, 3)."""
    s = singular_values(rng, maps)  # (M, 2)
    turn, spin = rng.uniform(-np.pi, np.pi, (2, maps))
    mirrored = rng.random(maps) < 0.5
    wide, narrow = s.sum(1) / 2, (s[:, 0] - s[:, 1]) / 2
    a = np.where(mirrored, narrow, wide) * np.exp(1j * (turn + spin))
    b = np.where(mirrored, wide, narrow) * np.exp(1j * (turn - spin))
    x, y = rng.uniform(-1, 1, (2, maps))
    return np.stack([a, b, x + 1j * y], 1)


def singular_values(rng: np.random.Generator, maps: int) -> NDArray[np.float64]:
    """(maps, 2), larger first, their weighted sum alpha in the band: each pair leaves a sum that the rest can reach."""
    alpha = rng.uniform((5 + maps) / 2, (6 + maps) / 2)
    values = np.empty((maps, 2))
    for k in range(maps):
        least = max(0.0, alpha - 3 * LONGEST * (maps - k - 1))  # of s1 + 2 s2
        first = rng.uniform(least / 3, min(LONGEST, alpha))
        low, high = max(0.0, (least - first) / 2), min(first, (alpha - first) / 2)
        second = rng.uniform(low, high) if k < maps - 1 else high
        values[k] = first, second
        alpha -= first + 2 * second
    return values


def stretch(systems: Systems) -> NDArray[np.float64]:
    """Singular values of every map, larger first: (..., M, 2)."""
    a, b = np.abs(systems[..., 0]), np.abs(systems[..., 1])
    return np.stack([a + b, np.abs(a - b)], -1)


def contracted(systems: Systems) -> Systems:
    """The same systems, maps that would stretch shrunk to LONGEST."""
    shrink = np.minimum(1, LONGEST / np.maximum(stretch(systems)[..., 0], 1e-12))
    return systems * np.stack([shrink, shrink, np.ones_like(shrink)], -1)


def real(systems: Systems) -> NDArray[np.float64]:
    """As matrices [[a11, a12, b1], [a21, a22, b2]]: (..., M, 2, 3)."""
    a, b, c = np.moveaxis(systems, -1, 0)
    rows = [[a.real + b.real, -a.imag - b.imag, c.real], [a.imag - b.imag, a.real - b.real, c.imag]]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def from_real(matrices: NDArray[np.float64]) -> Systems:
    """The inverse of `real`."""
    (a11, a12, b1), (a21, a22, b2) = (np.moveaxis(matrices[..., i, :], -1, 0) for i in (0, 1))
    a, b = (a11 + a22 + 1j * (a21 - a12)) / 2, (a11 - a22 - 1j * (a12 + a21)) / 2
    return np.stack([a, b, b1 + 1j * b2], -1)


def lots(systems: Systems, sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Which map each of 256 equally likely bytes stands for: (F, 256); every map of the first `sizes` gets one."""
    M = systems.shape[1]
    area = np.abs(stretch(systems).prod(-1)) + 1e-3  # (F, M)
    area[np.arange(M) >= sizes[:, None]] = 0
    ends = np.round(np.cumsum(area, 1) / area.sum(1, keepdims=True) * LOTS)  # (F, M)
    return (np.arange(LOTS)[None, :, None] >= ends[:, None]).sum(2).astype(np.uint8)


def fixed_points(systems: Systems) -> Systems:
    """Where each map stays: (F, M). z = a z + conj(b z) + c, solved with its conjugate."""
    a, b, c = np.moveaxis(systems, -1, 0)
    free = 1 - a
    return (free.conj() * c + (b * c).conj()) / (np.abs(free) ** 2 - np.abs(b) ** 2)


def walk(
    systems: Systems, sizes: NDArray[np.int64], draws: NDArray[np.uint8]
) -> tuple[NDArray[np.complex64], NDArray[np.uint8]]:
    """Points (T, F, P) of P walkers on every attractor and the map that led to each; bytes (BURN + T, F or 1, P)."""
    (F, M), (steps, _, P) = systems.shape[:2], draws.shape
    which = lots(systems, sizes)
    a, b, c = (systems[..., i].astype(np.complex64).ravel() for i in range(3))  # (F M,)
    b = b.conj()
    offset = (np.arange(F, dtype=np.intp) * LOTS)[:, None]
    base = (np.arange(F, dtype=np.intp) * M)[:, None]
    maps = which.ravel()[offset + draws[:1]]  # (1, F, P)
    z = fixed_points(systems).astype(np.complex64).ravel()[base + maps[0]]  # (F, P)
    points, led = np.empty((steps - BURN, F, P), np.complex64), np.empty((steps - BURN, F, P), np.uint8)
    for t in range(1, steps):
        last = which.ravel().take(offset + draws[t])
        at = base + last
        z = a.take(at) * z + b.take(at) * z.conj() + c.take(at)
        if t >= BURN:
            points[t - BURN], led[t - BURN] = z, last
    return points, led
