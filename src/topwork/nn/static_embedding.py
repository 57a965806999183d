"""Static token embeddings: a text is read off one row per piece, and nothing runs but a look-up.

    x = [u(m), early u(b), highest u(h)]       u(v) = v / ||v||; e (V, D): a row per piece; i(t): the pieces of the text
    m   = sum_t e_{i(t)}                       (D)  what the text is about: the mean, its length apart
    b_j = sum_t decay^t e_{i(t) j}             (K)  how it begins (questions, commands), on the K first axes
    h_j = max_t e_{i(t) j}                     (K)  whether a thing is named at all, however long the text is

How the rows come from a teacher f that reads whole sentences (Model2Vec's recipe, then one step in closed form):

    v_i = f([CLS] piece_i [SEP])                          what the teacher thinks of a piece alone
    e_i = a / (a + p_i) . axes_D^T (v_i - mean)           D main axes, frequent pieces count less  `principal`, `sif`
    E   = argmin_E  ||A E - F||^2 + penalty ||E - e||^2   A (N, V): share of each piece in each of N free sentences,
                                                          F (N, D): the teacher on the whole sentences    `regress`
    q_ij = round(E_ij / (unit_i axis_j)), -7 .. 7         four bits a number: unit a row, size an axis        `pack`

van Dongen and Tulkens, Model2Vec, 2024; Arora, Liang and Ma, A Simple but Tough-to-Beat Baseline for Sentence
Embeddings, ICLR 2017 (SIF). The regression stands where Model2Vec has Tokenlearn (gradient descent): the mean of rows
is linear in the rows, so its optimum needs no learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
LEVELS = 7  # four bits: -7 .. 7
GATHERED = 16_384  # pieces whose rows are in memory at once, about 12 MB


def counts(numbers: NDArray[np.int32], ends: NDArray[np.int64], pieces: int) -> Any:
    """Each occurrence of a piece as a one in its text's row: a scipy CSR matrix (N, V), ones not yet added up.

    numbers (T,): the pieces of all texts one after the other; text n has those from ends[n] to ends[n + 1].
    """
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(numbers), np.float32), numbers, ends), shape=(len(ends) - 1, pieces))


def pool(rows: Array, numbers: NDArray[np.int32], ends: NDArray[np.int64]) -> Array:
    """Mean row of each text (N, D); a text without pieces is at the origin."""
    lengths = np.maximum(np.diff(ends), 1).astype(np.float32)
    return (counts(numbers, ends, len(rows)) @ rows) / lengths[:, None]


@dataclass(frozen=True)
class Reading:
    """What of the rows becomes features."""

    axes: int = 0  # K, of the first axes; 0: the mean alone
    decay: float = 0.8  # weight of a piece over the one before it
    early: float = 0.5  # length of the part about the beginning; that of the mean is 1
    highest: float = 0.35  # length of the part with the largest values

    def width(self, features: int) -> int:
        """Features of a text, from those of a row."""
        return features + 2 * self.axes


def read(rows: Array, numbers: NDArray[np.int32], ends: NDArray[np.int64], how: Reading) -> Array:
    """The features of each text (N, D + 2 K); a text without pieces is at the origin."""
    mean = unit_length(pool(rows, numbers, ends))
    if not how.axes:
        return mean
    first = np.ascontiguousarray(rows[:, : how.axes])
    begins = counts(numbers, ends, len(rows))
    begins.data = how.decay ** (np.arange(len(numbers)) - np.repeat(ends[:-1], np.diff(ends))).astype(np.float32)
    parts = (mean, how.early * unit_length(begins @ first), how.highest * unit_length(_highest(first, numbers, ends)))
    return np.concatenate(parts, axis=1)


def _highest(rows: Array, numbers: NDArray[np.int32], ends: NDArray[np.int64]) -> Array:
    """The largest value of each column over the pieces of each text (N, K), 0 without pieces."""
    x = np.zeros((len(ends) - 1, rows.shape[1]), np.float32)
    there = np.flatnonzero(np.diff(ends))
    starts, stops = ends[there], ends[there + 1]
    first = 0
    while first < len(there):  # as many texts as GATHERED pieces hold, and at least one
        last = max(first + 1, int(np.searchsorted(stops, starts[first] + GATHERED, "right")))
        mine = numbers[starts[first] : stops[last - 1]]
        if last == first + 1:
            x[there[first]] = rows[np.unique(mine)].max(axis=0)
        else:
            x[there[first:last]] = np.maximum.reduceat(rows[mine], starts[first:last] - starts[first], axis=0)
        first = last
    return x


def unit_length(x: Array) -> Array:
    """Each row at length 1; the origin stays."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(length > 0, length, 1)).astype(np.float32, copy=False)


def shares(numbers: NDArray[np.int32], ends: NDArray[np.int64], pieces: int) -> Any:
    """The share of each piece in each text: A (N, V) of the formula, with A @ rows = pool(rows)."""
    matrix = counts(
        numbers, ends, pieces
    ).copy()  # what follows sorts in place, and `counts` shares the caller's memory
    lengths = np.diff(ends)
    matrix.data /= np.repeat(lengths, lengths).astype(np.float32)
    matrix.sum_duplicates()
    return matrix


def principal(vectors: Array, features: int) -> tuple[Array, Array]:
    """The main axes (D_teacher, features) of vectors (N, D_teacher), largest variance first, and their mean."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :features]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]  # its sign is free: the same everywhere
    return (axes * np.sign(largest)).astype(np.float32), mean.astype(np.float32)


def sif(seen: NDArray[np.int64], a: float) -> Array:
    """Smooth inverse frequency a / (a + p) of each piece, from how often it was seen (V,)."""
    p = seen / max(int(seen.sum()), 1)
    return (a / (a + p)).astype(np.float32)


def regress(
    matrix: Any,
    targets: Array,
    prior: Array,
    penalty: float,
    steps: int,
    say: Callable[[int, float], None] | None = None,
) -> Array:
    """The rows (V, D) whose means come closest to the targets, held to a prior.

        argmin_E  ||A E - F||^2 + penalty ||E - prior||^2      A = matrix (N, V) sparse, F = targets (N, D)

    Conjugate gradients on the change, scaled by the diagonal, all D columns side by side; at most `steps` of them.
    A piece that no sentence holds stays at its prior. `say(step, left)` hears the relative size of the residual.
    """
    transposed = matrix.T.tocsr()
    diagonal = np.asarray(matrix.power(2).sum(axis=0)).ravel() + penalty  # (V,)
    scale = (1 / diagonal).astype(np.float32)[:, None]
    change = np.zeros_like(prior)
    residual = transposed @ (targets - matrix @ prior)  # (V, D)
    z = direction = residual * scale
    energy = first = np.maximum(_dots(residual, z), 1e-30)  # (D,)
    for step in range(steps):
        image = transposed @ (matrix @ direction) + np.float32(penalty) * direction
        length = (energy / np.maximum(_dots(direction, image), 1e-30)).astype(np.float32)
        change += length * direction
        residual -= length * image
        z = residual * scale
        before, energy = energy, np.maximum(_dots(residual, z), 1e-30)
        direction = z + (energy / before).astype(np.float32) * direction
        left = float(np.sqrt((energy / first).max()))
        if say is not None:
            say(step + 1, left)
        if left < 1e-6:
            break
    return prior + change


def _dots(a: Array, b: Array) -> NDArray[np.float64]:
    """Inner products of columns, (D,)."""
    return np.einsum("vd,vd->d", a, b, dtype=np.float64)


def pack(rows: Array) -> dict[str, NDArray[Any]]:
    """Rows (V, D even) in four bits a number: packed (V, D / 2) uint8, unit (V,) float16, axis (D,) float32.

    Axes are brought to one size first, or the small ones would be rounded to nothing; low half byte: even columns.
    """
    axis = np.sqrt(np.square(rows, dtype=np.float64).mean(axis=0)).astype(np.float32)
    axis[axis == 0] = 1
    even = rows / axis
    unit = np.maximum(_best_unit(even), 1e-7).astype(np.float16)  # (V,)
    q = np.rint(even / unit.astype(np.float32)[:, None]).clip(-LEVELS, LEVELS).astype(np.int8) + (LEVELS + 1)
    q = q.astype(np.uint8)
    return {"packed": q[:, 0::2] | (q[:, 1::2] << 4), "unit": unit, "axis": axis}


def _best_unit(rows: Array) -> Array:
    """The unit (V,) that loses least, of those between 0.6 and 1 of what holds the largest number."""
    whole = np.abs(rows).max(axis=1) / LEVELS
    best, lost = whole, np.full(len(rows), np.inf, np.float32)
    for share in (1.0, 0.9, 0.8, 0.7, 0.6):
        unit = np.maximum(whole * share, 1e-7)[:, None]
        error = np.square(np.rint(rows / unit).clip(-LEVELS, LEVELS) * unit - rows).sum(axis=1)
        best, lost = np.where(error < lost, whole * share, best), np.minimum(error, lost)
    return best


def unpack(packed: NDArray[np.uint8], unit: NDArray[np.float16], axis: Array) -> Array:
    """The rows (V, D) that `pack` kept."""
    rows = np.empty((len(packed), 2 * packed.shape[1]), np.float32)
    rows[:, 0::2], rows[:, 1::2] = packed & 15, packed >> 4
    rows -= LEVELS + 1
    rows *= unit.astype(np.float32)[:, None]
    rows *= axis
    return rows
