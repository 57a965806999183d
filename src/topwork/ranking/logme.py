"""LogME: log marginal evidence of a Bayesian linear model from the features to each label.

    LogME = mean_c 1/N max_{a, b} log p(y_c | F, a, b)        y_c (N,): 1 for the items of class c, 0 for the others
    log p = N/2 log b + D/2 log a - N/2 log 2 pi - b/2 |F m - y|^2 - a/2 |m|^2 - 1/2 log |A|
            A = a I + b F^T F        m = b A^-1 F^T y          a: precision of the weights, b: of the noise
    F = U diag(s) V^T;  g = sum_r b s_r^2 / (a + b s_r^2);  repeat  a = g / |m|^2,  b = (N - g) / |F m - y|^2

The fixed point is iterated in the basis of the singular vectors, where each round costs O(R) per class.
Cost: one decomposition, O(N D min(N, D)). You et al., LogME: Practical Assessment of Pre-trained Models for Transfer
Learning, ICML 2021; convergence of the fixed point: You et al., Ranking and Tuning Pre-trained Models, JMLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.ranking import NOTHING, Given
from topwork.ranking._items import Array, checked, spectrum


@dataclass(frozen=True)
class Logme:
    """Maximised evidence per item, averaged over classes."""

    needs_source: ClassVar[bool] = False

    rounds: int = 100  # of the fixed point, at most
    tolerance: float = 1e-6  # relative change of a / b at which it has arrived

    def score(self, features: NDArray[np.float32], targets: NDArray[Any], given: Given = NOTHING) -> float:  # noqa: ARG002
        """Mean over classes."""
        x, y = checked(features, targets)
        N, D = x.shape
        squares, left = spectrum(x)
        evidence = []
        for label in range(y.max() + 1):
            goal = (y == label).astype(float)
            seen = (left.T @ goal) ** 2  # (R,) what each axis says of the labels
            evidence.append(self._evidence(squares, seen, float(goal.sum()), N, D))
        return float(np.mean(evidence)) / N

    def _evidence(self, squares: Array, seen: Array, total: float, N: int, D: int) -> float:
        """Maximised log evidence of one label; total = |y|^2."""
        a, b = 1.0, 1.0
        for _ in range(self.rounds):
            ratio = a / b
            length, rest = self._fit(squares, seen, total, ratio)
            used = float((squares / (squares + ratio)).sum())
            a, b = used / max(length, 1e-12), (N - used) / max(rest, 1e-12)
            if abs(a / b - ratio) <= self.tolerance * ratio:
                break
        length, rest = self._fit(squares, seen, total, a / b)
        determinant = float(np.log(a + b * squares).sum()) + (D - len(squares)) * np.log(a)
        return N / 2 * np.log(b / (2 * np.pi)) + D / 2 * np.log(a) - b / 2 * rest - a / 2 * length - determinant / 2

    def _fit(self, squares: Array, seen: Array, total: float, ratio: float) -> tuple[float, float]:
        """|m|^2 and |F m - y|^2 at a / b = ratio."""
        length = float((squares * seen / (squares + ratio) ** 2).sum())
        rest = float((seen * (ratio / (squares + ratio)) ** 2).sum()) + max(total - float(seen.sum()), 0.0)
        return length, rest
