"""Many logistic regressions on the same items at once, by preconditioned L-BFGS.

    J_k(W) = sum_i m_ki loss(y_i, W_k p_i) + l2/2 ||W_k||^2        k: model (a fold left out, or none), m: item weights
    loss     softmax: -log softmax(z)_y         sigmoid: sum_c log(1 + exp(-+z_c)), one model per label

All models share each pass over the scores p (N, R): their coefficients (K, C, R) are stacked, so a gradient of all
folds is two matrix products and no row is ever copied. The last score is 1 (the bias) and is not penalised.

Preconditioner: the Hessian sum_i m_i (diag(q_i) - q_i q_i^T) (x) p_i p_i^T, q = softmax(z), is replaced by the
Kronecker product of the two averages, A (x) diag(variances): diagonal in the eigenbasis of A (C x C), so it costs
nothing. It is Bohning's bound (Multinomial logistic regression algorithm, 1992) with the mean curvature in place of its
largest value, and a K-FAC of one layer (Martens and Grosse, 2015). L-BFGS (Liu and Nocedal, 1989) learns the rest.
A model is solved when its estimated distance to the optimum, g^T H^-1 g / 2, is below `tolerance` x J.
Products in float32, sums and coefficients in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MEMORY = 10  # pairs of L-BFGS
PASSES = 200  # at most, per strength
SMALL = 0.01  # a J below this is solved when the distance is below tolerance x SMALL: float32 knows no better
ABSENT = -1e4  # added to the logit of a class that a model has no training item of: it leaves the softmax


@dataclass(frozen=True, eq=False)
class Stack:
    """What is regressed on what: shared scores, targets, and one row of item weights per model."""

    scores: NDArray[np.float32]  # (N, R), last column 1
    targets: NDArray[np.int32] | NDArray[np.bool_]  # (N,) class numbers, or (N, C) bool
    weights: NDArray[np.float32]  # (K, C, N) or (K, 1, N); each model's sum over items is 1 when unweighted
    present: NDArray[np.bool_]  # (K, C) whether a model has training items of (softmax) or on both sides of (sigmoid) c
    variances: Array  # (R - 1,) of the scores

    @property
    def sigmoid(self) -> bool:
        """Whether labels are independent."""
        return self.targets.ndim == 2

    def only(self, models: NDArray[np.intp]) -> Stack:
        """The same regression for some of the models."""
        return Stack(self.scores, self.targets, self.weights[models], self.present[models], self.variances)

    def blocks(self) -> Iterator[slice]:
        """Slices over the items: a block of all models' logits stays in the processor's cache."""
        step = int(np.clip(2**20 // self.present.size, 256, 8192))
        for start in range(0, len(self.scores), step):
            yield slice(start, min(start + step, len(self.scores)))

    def logits(self, w: Array, rows: slice) -> NDArray[np.float32]:
        """Logits (K, C, B) of all models for a block of items."""
        K, C, R = w.shape
        return (w.reshape(K * C, R).astype(np.float32) @ self.scores[rows].T).reshape(K, C, -1)

    def probabilities(self, z: NDArray[np.float32], rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities (K, C, B), in place of the logits, and losses (K, 1 or C, B)."""
        if self.sigmoid:
            y = self.targets[rows].T  # (C, B)
            small = np.exp(-np.abs(z))
            loss = np.log1p(small) + np.maximum(np.where(y, -z, z), 0)
            return (np.where(z >= 0, 1, small) / (1 + small)).astype(np.float32), loss
        if not self.present.all():
            z += np.where(self.present, 0, ABSENT).astype(np.float32)[:, :, None]
        z -= z.max(axis=1, keepdims=True)
        true = z[:, self.targets[rows], np.arange(z.shape[2])]  # (K, B)
        np.exp(z, out=z)
        total = z.sum(axis=1, keepdims=True)
        z /= total
        return z, np.log(total) - true[:, None]


def objective(stack: Stack, w: Array, l2: float) -> tuple[Array, Array]:
    """J (K,) and its gradient (K, C, R)."""
    K, C, R = w.shape
    value = np.zeros(K)
    gradient = np.zeros((K * C, R))
    for rows in stack.blocks():
        p, loss = stack.probabilities(stack.logits(w, rows), rows)
        m = stack.weights[:, :, rows]
        if stack.sigmoid:
            p -= stack.targets[rows].T
            loss = loss * stack.present[:, :, None]
        else:
            p[:, stack.targets[rows], np.arange(p.shape[2])] -= 1
        value += (m * loss).sum(axis=(1, 2), dtype=np.float64)
        p *= m
        gradient += p.reshape(K * C, -1) @ stack.scores[rows]
    gradient = gradient.reshape(K, C, R)
    gradient[:, :, :-1] += l2 * w[:, :, :-1]
    gradient[~stack.present] = 0
    return value + l2 / 2 * (w[:, :, :-1] ** 2).sum(axis=(1, 2)), gradient


def curvature(stack: Stack, w: Array) -> tuple[Array, Array]:
    """Eigenvalues (K, C) and eigenvectors (K, C, C) of the mean curvature of the loss in the logits."""
    K, C, _ = w.shape
    mean = np.zeros((K, C, C))
    for rows in stack.blocks():
        p, _ = stack.probabilities(stack.logits(w, rows), rows)
        m = stack.weights[:, :, rows]
        if stack.sigmoid:
            mean += np.eye(C) * (m * p * (1 - p)).sum(axis=2)[:, :, None]
        else:
            mp = m * p
            mean += np.eye(C) * mp.sum(axis=2)[:, :, None] - mp @ p.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(mean)
    return np.maximum(values, 1e-3 * values[:, -1:] + 1e-12), vectors


def minimise(stack: Stack, w: Array, l2: float, tolerance: float) -> tuple[Array, int]:
    """Coefficients (K, C, R) at the minimum of every model, from a start, and the number of passes over the items."""
    w = w.copy()
    living = np.arange(len(w))  # models that are not solved yet
    values, vectors = curvature(stack, w)
    penalty = np.append(np.full(len(stack.variances), l2), 0.0)
    damping = 1 / (values[:, :, None] * np.append(stack.variances, 1.0) + penalty)  # (K, C, R)
    part = stack
    value, gradient = objective(part, w, l2)
    pairs: list[tuple[Array, Array, Array]] = []
    passes = 2
    while passes < PASSES:
        step = -_direction(gradient, pairs, damping, vectors)
        slope = _dot(gradient, step)
        unsolved = -slope / 2 > tolerance * np.maximum(value, SMALL)
        if not unsolved.any():
            break
        if not unsolved.all():
            living, step, slope, gradient = living[unsolved], step[unsolved], slope[unsolved], gradient[unsolved]
            damping, vectors = damping[unsolved], vectors[unsolved]
            pairs = [(s[unsolved], y[unsolved], r[unsolved]) for s, y, r in pairs]
            part = stack.only(living)
        s, value, new_gradient, tries = _search(part, w[living], step, slope, l2)
        y = new_gradient - gradient
        bend = _dot(s, y)  # positive, unless all that is left is rounding: such a pair teaches nothing
        real = bend > 1e-6 * np.sqrt(_dot(s, s) * _dot(y, y))
        pairs = [*pairs[-MEMORY + 1 :], (s, y, np.where(real, 1 / np.where(real, bend, 1), 0))]
        w[living] += s
        gradient, passes = new_gradient, passes + tries
    return w, passes


def _search(stack: Stack, start: Array, step: Array, slope: Array, l2: float) -> tuple[Array, Array, Array, int]:
    """Shorten steps that overshoot; J is convex: its slope there tells by how much. Mostly none is."""
    length, tries = np.ones(len(start)), 0
    while True:
        s = length[:, None, None] * step
        value, gradient = objective(stack, start + s, l2)
        tries += 1
        there = _dot(gradient, step)
        over = there > -0.5 * slope
        if tries == 10 or not over.any():
            return s, value, gradient, tries
        length = np.where(over, length * slope / (slope - there), length)


def _direction(gradient: Array, pairs: list[tuple[Array, Array, Array]], damping: Array, vectors: Array) -> Array:
    """Inverse Hessian times gradient: two loops of L-BFGS around the preconditioner."""
    q = gradient.copy()
    alphas = []
    for s, y, r in reversed(pairs):
        alpha = r * _dot(s, q)
        q -= alpha[:, None, None] * y
        alphas.append(alpha)
    q = vectors @ (damping * (vectors.transpose(0, 2, 1) @ q))
    for (s, y, r), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - r * _dot(y, q))[:, None, None] * s
    return q


def _dot(a: Array, b: Array) -> Array:
    """Inner product of each model's arrays, (K,)."""
    return np.einsum("kcr,kcr->k", a, b)
