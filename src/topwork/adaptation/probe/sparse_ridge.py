"""Ridge regression of numbers on sparse features such as n-grams; its strength by cross-validation.

    min_w,b  sum_i (w^T x_i + b - y_i)^2 + alpha ||w||^2         x: raw features, rows of about length 1; b is free

The sparse conjugate gradients of scikit-learn solve it. `alpha` is in items: as many as would pull a weight half way to
0. Every fold is left out in turn, at every strength; the one with the least squared error out of fold wins. On dense
features it is `ridge` itself, which standardises them: l2 = alpha / n.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork import plugins
from topwork.adaptation.probe._given import NUMBERS, Goals, check, refuse
from topwork.adaptation.probe.ridge import Ridge
from topwork.errors import BadData, BadSetting
from topwork.nn.log_loss import losses
from topwork.types import Head, Probe

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1)
RISEN = 1.005  # the walk ends where the held-out error is half a percent above its lowest value
TOLERANCE, PASSES = 1e-4, 300  # of conjugate gradients


@dataclass(frozen=True)
class SparseRidge:
    """Ridge regression on sparse features as they are."""

    goals: ClassVar[Goals] = NUMBERS
    alpha: float | None = None  # None: chosen by held-out squared error; higher = smoother

    def solve(
        self,
        x: Any,
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Walk from strong to weak, every fold left out in turn."""
        if self.alpha is not None and not (np.isfinite(self.alpha) and self.alpha > 0):
            raise BadSetting(f"alpha={self.alpha} must be a number above zero")
        refuse(np.asarray(targets), self.goals)
        if not hasattr(x, "tocsr"):
            return self._dense(x, targets, folds, classes, sample_weight)
        x = x.tocsr().astype(np.float32, copy=False)
        if not np.isfinite(x.data).all():
            raise BadData("The features hold NaN or infinity. Expected finite numbers; leave such items out")
        given = check(np.zeros((x.shape[0], 1), np.float32), targets, folds, classes, sample_weight, self.goals)
        best: tuple[float, float, NDArray[np.float32]] | None = None
        strengths = STRENGTHS if self.alpha is None else (self.alpha,)
        for alpha in strengths:
            z = np.empty((len(given.targets), 1), np.float32)
            for fold in range(given.n_folds):
                own = given.folds == fold
                slope, bias = _solved(x[~own], given.targets[~own], given.weight[~own], alpha)
                z[own, 0] = x[own] @ slope + bias
            loss = float(np.average(losses(z, given.targets), weights=given.weight))
            if best is None or loss < best[0]:
                best = loss, alpha, z
            if loss > RISEN * best[0]:
                break
        assert best is not None
        loss, alpha, held_out = best
        slope, bias = _solved(x, given.targets, given.weight, alpha)
        arrays = {"weight": slope[:, None].astype(np.float32), "bias": np.array([bias], np.float32)}
        how = f"alpha = {alpha:g}" + (f" of {len(strengths)} values by" if self.alpha is None else " as told,")
        head = Head("linear", arrays, "identity", method=f"sparse_ridge(alpha={alpha:g})")
        return Probe(head, held_out, loss, f"{how} {given.score(loss)}")

    def _dense(self, x: Any, targets: Any, folds: Any, classes: int, sample_weight: Any) -> Probe:
        """`ridge` in the units of this file."""
        found = Ridge(None if self.alpha is None else self.alpha / len(x)).solve(
            x, targets, folds, classes, sample_weight
        )
        l2 = plugins.parse(found.head.method)[1]["l2"]
        head = dataclasses.replace(found.head, method=f"sparse_ridge(alpha={l2 * len(x):.3g})")
        return dataclasses.replace(found, head=head)


def _solved(x: Any, y: NDArray[Any], weight: NDArray[np.float64], alpha: float) -> tuple[NDArray[Any], float]:
    """Weight (D,) and bias, solved in standard deviations from the mean: float32 keeps what is small beside it."""
    from sklearn.linear_model import Ridge as Solver

    mean, unit = float(np.average(y, weights=weight)), float(y.std()) or 1.0
    solver = Solver(alpha, solver="sparse_cg", tol=TOLERANCE, max_iter=PASSES)
    found = solver.fit(x, ((y - mean) / unit).astype(np.float32), weight.astype(np.float32))
    return found.coef_ * unit, float(found.intercept_) * unit + mean
