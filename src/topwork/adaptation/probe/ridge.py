"""Ridge regression, of numbers or on +1 / -1 for classes, its strength chosen by exact leave-one-out.

    B = argmin  1/(2n) sum_i ||y_i - B p_i - b||^2 + l2/2 ||B||^2        p: standardised features on principal axes
    B_j = sum_i p_ij y_i / (n (v_j + l2)),    b = mean y,                 v_j: variance along axis j

Leaving item i out changes its residual from e_i to e_i / (1 - h_i), exactly, where h_i is its own pull on its
prediction (Allen's PRESS, 1974):

    h_i = 1/n + sum_j p_ij^2 / (n (v_j + l2))

The strength with the smallest mean squared leave-one-out residual wins. The held-out logits come from heads that were
solved, in closed form too, without the whole fold (twins share a fold, leave-one-out would see the other twin). Squared
loss has no scale of probability: the temperature is fitted to the held-out logits. Numbers are solved in
standard deviations from their mean, and the head gives them back as they were. Hoerl and Kennard, 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import BOTH, Given, Goals, check
from topwork.nn.log_loss import fit_temperature, losses
from topwork.nn.principal import Principal, blocks, principal
from topwork.types import Head, Probe

STRENGTHS = tuple(10 ** (e / 2) for e in range(4, -9, -1))  # 100 ... 0.0001


@dataclass(frozen=True)
class Ridge:
    """Ridge regression; `l2` in units of the mean squared error on standardised features."""

    goals: ClassVar[Goals] = BOTH
    l2: float | None = None  # None: chosen by exact leave-one-out; higher = smoother

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Solve in closed form."""
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        basis = principal(given.x, given.weight if given.weighted else None)
        centre, unit = (given.targets.mean(), given.targets.std()) if given.numeric else (0.5, 0.5)
        signs = ((given.one_hot() - centre) / unit).astype(np.float32)  # (N, C)
        moments = (
            (basis.scores * given.weight[:, None].astype(np.float32)).T @ signs
            if given.weighted
            else basis.scores.T @ signs
        )
        moments = moments.astype(np.float64)  # (R + 1, C)
        strengths = STRENGTHS if self.l2 is None else (self.l2,)
        errors = leave_one_out(basis, moments, signs, given.weight, strengths)
        best = int(np.argmin(errors))
        l2 = strengths[best]
        held_out = leave_fold_out(given, basis, moments, signs, l2)
        weight, bias = basis.head((moments / _shrinkage(basis, l2, len(signs))[:, None]).T)
        if given.numeric:
            held_out = (held_out * unit + centre).astype(np.float32)
            weight, bias = (weight * unit).astype(np.float32), (bias * unit + centre).astype(np.float32)
        temperature = fit_temperature(held_out, given.targets)
        loss = float(np.average(losses(held_out / temperature, given.targets), weights=given.weight))
        chosen = f"l2 = {l2:.2g} of {len(strengths)} values by exact leave-one-out (squared error {errors[best]:.3f})"
        return Probe(
            Head("linear", {"weight": weight, "bias": bias}, given.activation, temperature, f"ridge(l2={l2:.2g})"),
            held_out,
            loss,
            f"{chosen if self.l2 is None else f'l2 = {l2:.2g} as told'}; {given.score(loss)}"
            + ("" if given.numeric else f" at temperature {temperature:.2g}"),
        )


def _shrinkage(basis: Principal, l2: float, n: int) -> NDArray[np.float64]:
    """n (v_j + l2) for every axis, and n for the bias."""
    return n * np.append(basis.variances + l2, 1.0)


def leave_one_out(
    basis: Principal,
    moments: NDArray[np.float64],
    signs: NDArray[np.float32],
    weight: NDArray[np.float64],
    strengths: tuple[float, ...],
) -> NDArray[np.float64]:
    """Mean squared leave-one-out residual of every strength (S,)."""
    N, C = signs.shape
    shrinkage = np.stack([_shrinkage(basis, l2, N) for l2 in strengths])  # (S, R + 1)
    coefficients = (moments / shrinkage[:, :, None]).astype(np.float32)  # (S, R + 1, C)
    stacked = coefficients.transpose(1, 0, 2).reshape(len(moments), -1)  # (R + 1, S C)
    total = np.zeros(len(strengths))
    for rows in blocks(N, stacked.shape[0]):
        p, w = basis.scores[rows], weight[rows, None]
        fitted = (p @ stacked).reshape(len(p), -1, C)  # (B, S, C)
        pull = w * ((p * p) @ (1 / shrinkage.T).astype(np.float32))  # (B, S)
        residual = (signs[rows, None] - fitted) / np.maximum(1 - pull, 1e-6)[:, :, None]
        total += (w * (residual**2).mean(axis=2)).sum(axis=0)
    return total / weight.sum()


def leave_fold_out(
    given: Given, basis: Principal, moments: NDArray[np.float64], signs: NDArray[np.float32], l2: float
) -> NDArray[np.float32]:
    """Logits (N, C) of heads solved without the item's fold: its part of the normal equations is taken away."""
    held_out = np.empty_like(signs)
    n = len(signs)
    whole = n * np.append(basis.variances, 1.0)
    for fold in range(given.n_folds):
        matrix, right, left = np.diag(whole), moments.copy(), float(n)
        for rows in given.rows_of(fold):
            p = basis.scores[rows]
            wp = p * given.weight[rows, None].astype(np.float32)
            matrix -= p.T @ wp
            right -= wp.T @ signs[rows]
            left -= given.weight[rows].sum()
        matrix[np.arange(len(whole) - 1), np.arange(len(whole) - 1)] += left * l2
        solution = np.linalg.solve(matrix, right).astype(np.float32)  # (R + 1, C)
        for rows in given.rows_of(fold):
            held_out[rows] = basis.scores[rows] @ solution
    return held_out
