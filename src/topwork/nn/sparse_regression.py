"""Logistic regressions on sparse features, several models at once, by preconditioned L-BFGS.

    J_k(W) = sum_i m_ki f_ki loss(y_i, W_k^T (x_i - mean) + b_k) + l2/2 ||W_k||^2      k: model (a fold left out)
    loss     softmax: -log softmax(z)_y         sigmoid: sum_c log(1 + exp(-+z_c)), one model per label

x (N, D) csr stays sparse: the mean is taken off the logits and off the gradient instead, so that the bias has nothing
to do with the weights. All models of a group share each product with x: their weights stand side by side. f: what class
weights make of an item.

Preconditioner: 1 / (q (1 - q) variance_j + l2), q the share of the class, because frequent and rare columns differ a
thousandfold in variance. L-BFGS (Liu and Nocedal, 1989) learns the rest. A model is solved when its estimated distance
to the optimum, g^T H^-1 g / 2, is below `tolerance` x J. Products in float32, sums in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32
MEMORY = 5  # pairs of L-BFGS
PASSES = 300  # at most, per strength
SMALL = 0.1  # a J below this is solved when the distance is below tolerance x SMALL: what is held out is not surer
ABSENT = -1e4  # added to the logit of a class that a model has no training item of: it leaves the softmax


@dataclass(frozen=True, eq=False)
class Group:
    """What is regressed on what; `targets` (N, C) bool are independent labels, (N,) class numbers a softmax."""

    x: Any  # (N, D) csr float32
    targets: NDArray[Any]
    weights: Array  # (K, N) m: each model's sum is 1 when unweighted
    factors: Array  # (2, K, C) f where a label is not there, and where it is (softmax: of the item's own class)
    present: NDArray[np.bool_]  # (K, C) whether a model has training items of (softmax) or on both sides of (sigmoid) c
    mean: Array  # (D,)
    variances: Array  # (D,)

    @property
    def sigmoid(self) -> bool:
        """Whether labels are independent."""
        return self.targets.ndim == 2

    def only(self, models: NDArray[Any]) -> Group:
        """The same regression for some of the models."""
        return Group(
            self.x, self.targets, self.weights[models], self.factors[:, models], self.present[models], self.mean,
            self.variances,
        )  # fmt: skip


def moments(x: Any) -> tuple[Array, Array]:
    """Mean and variance (D,) of the columns."""
    N = max(x.shape[0], 1)
    first = np.bincount(x.indices, x.data, x.shape[1]) / N
    second = np.bincount(x.indices, x.data.astype(np.float64) ** 2, x.shape[1]) / N
    return first.astype(np.float32), np.maximum(second - first**2, 0).astype(np.float32)


def logits(x: Any, mean: Array, w: Array) -> Array:
    """(N, K, C) of all models; w (K, D + 1, C), the bias last."""
    K, D, C = w.shape
    side = np.ascontiguousarray(w[:, :-1].transpose(1, 0, 2)).reshape(D - 1, K * C)
    shift = w[:, -1].reshape(K * C) - mean @ side
    return (x @ side + shift).reshape(-1, K, C)


def objective(group: Group, w: Array, l2: float) -> tuple[NDArray[np.float64], Array]:
    """J (K,) and its gradient (K, D + 1, C)."""
    K, D, C = w.shape
    z = logits(group.x, group.mean, w)  # (N, K, C)
    if group.sigmoid:
        y = group.targets[:, None]  # (N, 1, C)
        m = group.weights.T[:, :, None] * np.where(y, group.factors[1], group.factors[0]) * group.present
        small = np.exp(-np.abs(z))
        loss = np.log1p(small) + np.maximum(np.where(y, -z, z), 0)
        r = (np.where(z >= 0, 1, small) / (1 + small)).astype(np.float32) - y
        value = np.einsum("nkc,nkc->k", m, loss, dtype=np.float64)
        r *= m
    else:
        if not group.present.all():
            z += np.where(group.present, 0, ABSENT).astype(np.float32)
        z -= z.max(axis=2, keepdims=True)
        at = np.arange(len(z))
        true = z[at, :, group.targets]  # (N, K)
        r = np.exp(z, out=z)
        total = r.sum(axis=2)
        m = group.weights.T * group.factors[1][:, group.targets].T  # (N, K)
        value = np.einsum("nk,nk->k", m, np.log(total) - true, dtype=np.float64)
        r /= total[:, :, None]
        r[at, :, group.targets] -= 1
        r *= m[:, :, None]
    flat = r.reshape(len(r), K * C)
    sums = flat.sum(axis=0, dtype=np.float64).astype(np.float32)
    side = group.x.T @ flat - group.mean[:, None] * sums  # (D, K C)
    gradient = np.empty_like(w)
    gradient[:, :-1] = side.reshape(D - 1, K, C).transpose(1, 0, 2)
    gradient[:, :-1] += np.float32(l2) * w[:, :-1]
    gradient[:, -1] = sums.reshape(K, C)
    gradient *= group.present[:, None]
    return value + l2 / 2 * _dot(w[:, :-1], w[:, :-1]), gradient


def minimise(group: Group, w: Array, l2: float, tolerance: float, most: int = PASSES) -> tuple[Array, int]:
    """Weights (K, D + 1, C) at the minimum of every model, from a start, and the number of passes over the items."""
    w = w.copy()
    living = np.arange(len(w))  # models that are not solved yet
    part, damping = group, _damping(group, l2)
    value, gradient = objective(part, w, l2)
    pairs: list[tuple[Array, Array, NDArray[np.float64]]] = []
    passes = 1
    while passes < most:
        step = -_direction(gradient, pairs, damping)
        slope = _dot(gradient, step)
        unsolved = -slope / 2 > tolerance * np.maximum(value, SMALL)
        if not unsolved.any():
            break
        if not unsolved.all():
            living, step, slope, gradient = living[unsolved], step[unsolved], slope[unsolved], gradient[unsolved]
            damping = damping[unsolved]
            pairs = [(s[unsolved], y[unsolved], r[unsolved]) for s, y, r in pairs]
            part = group.only(living)
        s, value, new, tries = _search(part, w[living], step, slope, l2)
        y = new - gradient
        bend = _dot(s, y)  # positive, unless all that is left is rounding: such a pair teaches nothing
        real = bend > 1e-6 * np.sqrt(_dot(s, s) * _dot(y, y))
        pairs = [*pairs[-MEMORY + 1 :], (s, y, np.where(real, 1 / np.where(real, bend, 1), 0))]
        w[living] += s
        gradient, passes = new, passes + tries
    return w, passes


def _damping(group: Group, l2: float) -> Array:
    """(K, D + 1, C)."""
    if group.sigmoid:
        m = group.weights * np.float32(1)
        share = m @ group.targets.astype(np.float32) / m.sum(axis=1, keepdims=True)  # (K, C)
    else:
        share = group.weights @ np.eye(group.present.shape[1], dtype=np.float32)[group.targets]
        share = share / share.sum(axis=1, keepdims=True)
    bend = np.maximum(share * (1 - share), 1e-3).astype(np.float32)[:, None]  # (K, 1, C)
    return 1 / np.concatenate([bend * group.variances[:, None] + np.float32(l2), bend], axis=1)


def _search(
    group: Group, start: Array, step: Array, slope: NDArray[np.float64], l2: float
) -> tuple[Array, NDArray[np.float64], Array, int]:
    """Shorten steps that overshoot; J is convex: its slope there tells by how much. Mostly none is."""
    length, tries = np.ones(len(start)), 0
    while True:
        s = length.astype(np.float32)[:, None, None] * step
        value, gradient = objective(group, start + s, l2)
        tries += 1
        there = _dot(gradient, step)
        over = there > -0.5 * slope
        if tries == 10 or not over.any():
            return s, value, gradient, tries
        length = np.where(over, length * slope / (slope - there), length)


def _direction(gradient: Array, pairs: list[tuple[Array, Array, NDArray[np.float64]]], damping: Array) -> Array:
    """Inverse Hessian times gradient: two loops of L-BFGS around the preconditioner."""
    q = gradient.copy()
    alphas = []
    for s, y, r in reversed(pairs):
        alpha = r * _dot(s, q)
        q -= alpha.astype(np.float32)[:, None, None] * y
        alphas.append(alpha)
    q *= damping
    for (s, y, r), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - r * _dot(y, q)).astype(np.float32)[:, None, None] * s
    return q


def _dot(a: Array, b: Array) -> NDArray[np.float64]:
    """Inner product of each model's arrays, (K,)."""
    return np.array([np.vdot(one, other) for one, other in zip(a, b, strict=True)], np.float64)
