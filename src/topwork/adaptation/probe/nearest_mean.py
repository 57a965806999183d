"""Nearest class mean: one Gaussian per class around its mean, all of the same width.

    z_c = -||(x - m_c) / d||^2 / (2 s) + log prior_c            d_j: spread of feature j within the classes
        = x . w_c + b_c      with w_c = m_c / (s d^2)           (the part common to all classes is left out)

Multi-label: the same between the items that have the label and those that do not, z = z_with - z_without.
Features repeat each other, so D of them count as fewer: the width s is fitted to the held-out log loss (one number).
Diagonal linear discriminant analysis: Fisher, 1936; Dudoit et al., 2002. The prototypes of few-shot learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import CLASSES, Given, Goals, check
from topwork.nn.log_loss import fit_temperature, log_priors, losses
from topwork.nn.principal import blocks, moments
from topwork.types import Head, Probe

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NearestMean:
    """Nearest class mean; no options."""

    goals: ClassVar[Goals] = CLASSES

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Average every class of every fold in one pass."""
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        mean, scale = moments(given.x, given.weight)
        weights, biases = _discriminants(given, mean, scale)  # (F + 1, D, C), (F + 1, C)
        distances = np.empty((len(given.x), classes), np.float32)
        for fold in range(given.n_folds):
            for rows in given.rows_of(fold):
                distances[rows] = (given.x[rows] - mean.astype(np.float32)) @ weights[fold] + biases[fold]
        priors = log_priors(given.counts(), given.training().sum(axis=1), given.multilabel)  # (F + 1, C)
        width = fit_temperature(distances, given.targets, priors[given.folds])
        held_out = (distances / width + priors[given.folds]).astype(np.float32)
        loss = float(np.average(losses(held_out, given.targets), weights=given.weight))
        arrays = {
            "weight": (weights[-1] / width).astype(np.float32),
            "bias": ((biases[-1] - mean @ weights[-1]) / width + priors[-1]).astype(np.float32),
        }
        return Probe(
            Head("linear", arrays, given.activation, method="nearest_mean"),
            held_out,
            loss,
            f"class means: {given.n_folds}-fold log loss {loss:.3f} with the width of the classes fitted to it",
        )


def _discriminants(given: Given, mean: Array, scale: Array) -> tuple[NDArray[np.float32], Array]:
    """Weights (F + 1, D, C) and biases (F + 1, C) for s = 1 and no priors, on features minus `mean`."""
    F, C, (N, D) = given.n_folds, given.classes, given.x.shape
    sums, squares = np.zeros((F * C, D)), np.zeros((F, D))  # per fold
    totals = np.zeros((F, D))
    for rows in blocks(N, D):
        x = given.x[rows] - mean.astype(np.float32)
        inside = np.eye(F, dtype=np.float32)[given.folds[rows]] * given.weight[rows, None].astype(np.float32)  # (B, F)
        member = (inside[:, :, None] * given.one_hot(rows)[:, None]).reshape(len(x), F * C).astype(np.float32)
        sums += member.T @ x
        squares += inside.T @ (x * x)
        totals += inside.T @ x
    sums = _without(sums.reshape(F, C, D))  # (F + 1, C, D)
    squares, totals = _without(squares), _without(totals)
    counts = given.counts()[:, :, None]  # (F + 1, C, 1)
    size = given.training().sum(axis=1)[:, None]  # (F + 1, 1)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    if not given.multilabel:
        within = (squares - (counts * means**2).sum(axis=1)) / size  # (F + 1, D)
        inverse = _inverse(within, size, scale)[:, None]
        return (means * inverse).transpose(0, 2, 1).astype(np.float32), -(means**2 * inverse).sum(axis=2) / 2
    rest = np.maximum(size[:, :, None] - counts, 0)  # items without the label
    others = np.divide(totals[:, None] - sums, rest, out=np.zeros_like(sums), where=rest > 0)
    means, others = np.where(counts > 0, means, others), np.where(rest > 0, others, means)
    inverse = _inverse(squares / size - (totals / size) ** 2, size, scale)[:, None]
    return (
        ((means - others) * inverse).transpose(0, 2, 1).astype(np.float32),
        -((means**2 - others**2) * inverse).sum(axis=2) / 2,
    )


def _without(parts: Array) -> Array:
    """Sums of the folds (F, ...) -> sums without each fold, and of everything (F + 1, ...)."""
    whole = parts.sum(axis=0)
    return np.concatenate([whole - parts, whole[None]])


def _inverse(variance: Array, size: Array, scale: Array) -> Array:
    """1 / d^2 (F + 1, D): half way to the mean variance, and one more item that has the overall scale."""
    shrunk = (np.maximum(variance, 0) + variance.mean(axis=-1, keepdims=True)) / 2
    return np.where(np.isfinite(scale), (size + 1) / (size * np.maximum(shrunk, 0) + scale**2), 0)
