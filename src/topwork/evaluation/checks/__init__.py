"""Questions asked of a model's predictions. A check is a file here: a frozen dataclass of options with

    run(context) -> yields (name, value)        value: plain JSON, at key `name` of report.json

and yields nothing where its question makes no sense (a confusion matrix of several labels, a curve without features).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from topwork import plugins
from topwork.types import Predictions

ROOM = __name__.removeprefix("topwork.")

Predict = Callable[[NDArray[Any]], NDArray[Any]]
"""features (M, D) -> labels (M,) int, or (M, C) bool."""

Solve = Callable[[NDArray[Any], NDArray[Any]], Predict]
"""solve(features (N, D), targets) -> predict."""


@dataclass(frozen=True, eq=False)
class Context:
    """What a check may look at. Only `predictions` must be there."""

    predictions: Predictions  # as the model gives them, on items it has not seen: a test set, or out of fold
    rows: NDArray[Any] | None = None  # (N,) dataset row of each predicted item
    logits: NDArray[Any] | None = None  # (N, C) before the temperature
    band: Mapping[str, float] | None = None  # of a model of numbers: {"low": ..., "high": ...} about what it says
    temperature: float | None = None  # of the model; fitted on other items unless `folds` is given
    folds: NDArray[Any] | None = None  # (N,) of the predicted items, when they were predicted out of fold
    train_x: NDArray[Any] | None = None  # (M, D) features of the training items
    train_targets: NDArray[Any] | None = None  # (M,) int, (M, C) bool or (M,) float
    train_folds: NDArray[Any] | None = None  # (M,) items that belong together share a fold
    solve: Solve | None = None  # how the label curve trains; without one: its own ridge
    seed: int = 0


class Check(Protocol):
    """One question."""

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield (name, value)."""
        ...


def run(context: Context, specs: Sequence[str] | None = None) -> dict[str, Any]:
    """Answers of these checks, or of every check of the room."""
    checks: list[Check] = [plugins.make(ROOM, spec) for spec in (plugins.names(ROOM) if specs is None else specs)]
    return {name: value for check in checks for name, value in check.run(context)}
