"""What the targets mean: a task turns probabilities and targets into named statistics.

The contract of a file here: `checked(...)` refuses what cannot be scored, `statistics(...)` yields the point metrics,
each with the influence of every item on it, so that one interval method serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Statistic:
    """A point metric and how much each item moves it (the infinitesimal jackknife: Jaeckel 1972, Efron 1982).

        influence_i = d value / d weight_i      sum_i influence_i = 0      variance of the value ~ sum_i influence_i^2

    kind: "share" of items (0..1), "score" (0..1, not a share), "mean" of a loss (0..upper).
    """

    value: float
    influence: NDArray[Any]  # (N,) float64
    kind: Literal["share", "score", "mean"]
    effective: float  # items that a share of the same precision would rest on when no item moves the value
    strata: NDArray[Any] | None = None  # (N,) class of each item, where small classes decide the precision
    upper: float = 1.0
    bias: float = 0.0  # expected value minus truth, to second order; centres the interval, not the value
