"""Further columns for a softmax whose others stay: what is said among the old classes is left as it is.

    p(c | x) ~ exp(z_c),  z = [old logits (N, C), x V + b (N, K)]
    min over V, b   sum_i w_i (log sum_c exp z_ic - z_iy) + l2 / 2 |V'|^2        V': for features of unit spread

Convex; L-BFGS. Odds between two old classes are what they were for every x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

L2 = 1.0  # in items


def columns(
    old: NDArray[Any], x: NDArray[np.float32], y: NDArray[Any], weight: NDArray[Any], new: int, l2: float = L2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (D, K) and bias (K,) of `new` classes, from items x (N, D) with old logits (N, C) and classes y (N,)."""
    from scipy.optimize import minimize

    C, D = old.shape[1], x.shape[1]
    mean, spread = np.average(x, 0, weight), x.std(0)
    inverse = np.divide(1, spread, out=np.zeros(D), where=spread > 1e-6 * (np.abs(mean) + 1e-30))
    z = (x - mean) * inverse  # (N, D)
    top = old.max(1)
    rest = top + np.log(np.exp(old - top[:, None]).sum(1))  # (N,) of all old classes together
    goal = np.eye(new + C)[y][:, C:]  # (N, K)

    def cost(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        V, b = flat[:-new].reshape(D, new), flat[-new:]
        s = np.concatenate([rest[:, None], z @ V + b], 1)  # (N, 1 + K)
        high = s.max(1, keepdims=True)
        whole = high[:, 0] + np.log(np.exp(s - high).sum(1))
        said = np.where(y < C, rest, (s[:, 1:] * goal).sum(1))  # an old item costs what is taken from all old ones
        g = (np.exp(s[:, 1:] - whole[:, None]) - goal) * weight[:, None]
        value = float(weight @ (whole - said)) + l2 / 2 * float((V**2).sum())
        return value, np.concatenate([(z.T @ g + l2 * V).ravel(), g.sum(0)])

    found = minimize(cost, np.zeros((D + 1) * new), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    V = found[:-new].reshape(D, new) * inverse[:, None]
    return V.astype(np.float32), (found[-new:] - mean @ V).astype(np.float32)
