"""Probe: accuracy of a logistic head, cross-validated: the thing itself, only with fewer strengths to choose from.

    z: scores on the first `axes` principal axes (`nn.principal`);   for l2 = 1, 0.1, 0.01, 0.001, 0.0001
    W_k = argmin mean_{i not in fold k} -log softmax(W z_i)_{y_i} + l2/2 |W|^2          for every fold k at once
    logits of i: W_{fold(i)} z_i       taken at the l2 whose held-out log loss is lowest

The strength is chosen on the items that the accuracy is read from: one of five values for all folds, the same favour
for every backbone. Cost: one decomposition, O(N D min(N, D)), and some hundred products N x axes x C.
Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadSetting
from topwork.nn.log_loss import doubt_of, log_priors, losses
from topwork.nn.principal import principal
from topwork.nn.softmax_regression import Stack, minimise
from topwork.ranking import NOTHING, Given
from topwork.ranking._items import checked

STRENGTHS = (1.0, 0.1, 0.01, 0.001, 0.0001)
RISEN = 1.02  # the walk ends where the held-out log loss is 2 % above its lowest value
TOLERANCE = 1e-3  # relative distance to the optimum
PARTS = 5


@dataclass(frozen=True)
class Probe:
    """Cross-validated accuracy of logistic regression on principal axes."""

    needs_source: ClassVar[bool] = False

    axes: int = 256  # more = nearer to the full probe, slower

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:
        """Reads `given.folds`; without them item i is in fold i mod 5 of its class."""
        _, y = checked(features, targets)
        return float((self.held_out(features, y, given.folds).argmax(axis=1) == y).mean())

    def held_out(
        self, features: NDArray[np.float32], targets: NDArray[Any], folds: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Logits (N, C): row i comes from a head that never saw row i's fold. targets (N,) from 0, without gaps."""
        if self.axes < 1:
            raise BadSetting(f"axes={self.axes}: expected 1 or more")
        y = np.asarray(targets, np.int32)
        part = _in_turn(y) if folds is None else np.unique(folds, return_inverse=True)[1]
        if part.max() < 1:
            raise BadSetting("All items are in one fold: expected at least two")
        stack, start = self._stack(features, y, part)
        best, lowest, w = np.zeros((len(y), start.shape[1]), np.float32), np.inf, start
        for l2 in STRENGTHS:
            w, _ = minimise(stack, w, l2, TOLERANCE)
            z = _own(stack, w, part)
            loss = float(losses(z, y, doubt_of(len(y))).mean())
            if loss < lowest:
                best, lowest = z, loss
            elif loss > RISEN * lowest:
                break
        return best

    def _stack(
        self, features: NDArray[np.float32], y: NDArray[np.int32], part: NDArray[Any]
    ) -> tuple[Stack, NDArray[np.float64]]:
        """One regression per fold left out, and the coefficients to start from: the frequencies of the labels."""
        basis = principal(np.asarray(features, np.float32))
        R = min(self.axes, len(basis.variances))
        scores = np.ascontiguousarray(np.delete(basis.scores, np.s_[R:-1], axis=1))  # (N, R + 1)
        training = part != np.arange(part.max() + 1)[:, None]  # (K, N)
        counts = training.astype(float) @ np.eye(int(y.max()) + 1)[y]  # (K, C)
        totals = training.sum(axis=1)
        weights = (training / totals[:, None]).astype(np.float32)[:, None]  # (K, 1, N)
        start = np.zeros((*counts.shape, R + 1))
        start[:, :, -1] = log_priors(counts, totals, False)
        return Stack(scores, y, weights, counts > 0, basis.variances[:R]), start


def _own(stack: Stack, w: NDArray[np.float64], part: NDArray[Any]) -> NDArray[np.float32]:
    """Logits (N, C) of each item from the head of its own fold; a class that the head has never met is the last."""
    z = np.empty((len(part), w.shape[1]), np.float32)
    for rows in stack.blocks():
        z[rows] = stack.logits(w, rows)[part[rows], :, np.arange(rows.stop - rows.start)]
    unknown = ~stack.present[part]
    return np.where(unknown, z.min(axis=1, keepdims=True, where=~unknown, initial=np.inf) - 10, z)


def _in_turn(y: NDArray[np.int32]) -> NDArray[np.intp]:
    """Items of each class to the folds in turn."""
    part = np.empty(len(y), np.intp)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        part[own] = np.arange(len(own)) % PARTS
    return part
