"""What the targets mean: a task turns answers and targets into named statistics.

    classification.py   targets (N,) int, or (N, C) bool     answers: probabilities (N, C)
    regression.py       targets (N,) float                   answers: numbers (N, 1)

The contract of a file here: `checked(answers, targets, multilabel)` refuses what cannot be scored, `statistics(...)`
yields the point metrics, each with the influence of every item on it, so that one interval method serves all of them;
`item_losses(answers, targets)`, `metric_names(labels, multilabel)` and MAIN, the metric that a step must improve.
The functions below ask the task that the targets are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Statistic:
    """A point metric and how much each item moves it (the infinitesimal jackknife: Jaeckel 1972, Efron 1982).

        influence_i = d value / d weight_i      sum_i influence_i = 0      variance of the value ~ sum_i influence_i^2

    kind: "share" of items (0..1), "score" (0..1, not a share), "mean" of a loss (0..upper), "fit" (below 1),
    "correlation" (-1..1).
    """

    value: float
    influence: NDArray[Any]  # (N,) float64
    kind: Literal["share", "score", "mean", "fit", "correlation"]
    effective: float  # items that a share of the same precision would rest on when no item moves the value
    strata: NDArray[Any] | None = None  # (N,) class of each item, where small classes decide the precision
    upper: float = 1.0
    bias: float = 0.0  # expected value minus truth, to second order; centres the interval, not the value
    lower: float = 0.0
    without: NDArray[Any] | None = None  # (N,) of a fit: log(1 - value) when an item is left out


def is_numeric(targets: Any) -> bool:
    """Whether these targets are numbers, not classes."""
    return np.asarray(targets).dtype.kind == "f"


def of(targets: Any) -> Any:
    """The task that these targets are of."""
    from topwork.tasks import classification, regression

    return regression if is_numeric(targets) else classification


def checked(answers: Any, targets: Any, multilabel: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    """Answers (N, C) float64 and targets; anything that cannot be scored is `BadData`."""
    return of(targets).checked(answers, targets, multilabel)


def statistics(answers: Any, targets: Any, multilabel: bool = False) -> dict[str, Statistic]:
    """Every point metric that these answers allow."""
    return of(targets).statistics(answers, targets, multilabel)


def item_losses(answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """(N,) log loss of each item; of numbers: its absolute error."""
    return of(targets).item_losses(answers, targets)


def main_metric(targets: Any) -> str:
    """The metric that a step must improve."""
    return of(targets).MAIN
