"""What every probe is given, checked once, and how it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadSetting
from topwork.nn.principal import blocks
from topwork.types import Activation

Goals = tuple[Literal["classes", "numbers"], ...]
CLASSES: Goals = ("classes",)
NUMBERS: Goals = ("numbers",)
BOTH: Goals = ("classes", "numbers")


@dataclass(frozen=True, eq=False)
class Given:
    """Features, targets, folds 0..F-1 and item weights of mean 1."""

    x: NDArray[np.float32]  # (N, D)
    targets: NDArray[Any]  # (N,) int, (N, C) bool, or (N,) float: numbers
    folds: NDArray[np.intp]  # (N,)
    classes: int
    weight: NDArray[np.float64]  # (N,)
    weighted: bool

    @property
    def multilabel(self) -> bool:
        """Whether an item may have several labels."""
        return self.targets.ndim == 2

    @property
    def numeric(self) -> bool:
        """Whether targets are numbers."""
        return self.targets.dtype.kind == "f"

    @property
    def activation(self) -> Activation:
        """Logits -> probabilities."""
        return "identity" if self.numeric else "sigmoid" if self.multilabel else "softmax"

    def score(self, loss: float) -> str:
        """A held-out loss in words."""
        return f"{self.n_folds}-fold R² {1 - loss:.3f}" if self.numeric else f"{self.n_folds}-fold log loss {loss:.3f}"

    @property
    def n_folds(self) -> int:
        """Number of folds F."""
        return int(self.folds.max()) + 1

    def one_hot(self, rows: Any = slice(None)) -> NDArray[np.float64]:
        """Targets as (B, C) zeros and ones; numbers as (B, 1)."""
        part = self.targets[rows]
        if self.numeric:
            return part[:, None]
        return part.astype(float) if self.multilabel else np.eye(self.classes)[part]

    def training(self) -> NDArray[np.float64]:
        """Item weights (F + 1, N) of every model: one per fold left out, and the last on everything."""
        used = np.ones((self.n_folds + 1, len(self.x)))
        used[self.folds, np.arange(len(self.x))] = 0
        return used * self.weight

    def counts(self) -> NDArray[np.float64]:
        """Weighted number of training items of every class (F + 1, C) for every model."""
        return self.training() @ self.one_hot()

    def rows_of(self, fold: int) -> Iterator[NDArray[np.intp]]:
        """Row numbers of one fold, in blocks."""
        rows = np.flatnonzero(self.folds == fold)
        for part in blocks(len(rows), self.x.shape[1]):
            yield rows[part]


def check(x: Any, targets: Any, folds: Any, classes: int, sample_weight: Any = None, goals: Goals = CLASSES) -> Given:
    """Refuse what no probe can learn from; `goals`: kinds of targets that this one can."""
    x = np.asarray(x)
    x = x if x.dtype == np.float32 else x.astype(np.float32)
    targets, folds = np.asarray(targets), np.asarray(folds)
    if x.ndim != 2 or not len(x) == len(targets) == len(folds):
        raise BadData(
            f"Features {x.shape}, targets {targets.shape} and folds {folds.shape} do not fit. "
            "Expected (N, D), (N,) or (N, C), and (N,)"
        )
    refuse(targets, goals)
    _check_targets(targets, classes)
    values, folds = np.unique(folds, return_inverse=True)
    if len(values) < 2:
        raise BadSetting("All items are in one fold, so none can be held out. Expected at least two folds")
    weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weight.shape != (len(x),) or not np.isfinite(weight).all() or (weight < 0).any():
        raise BadData(f"Sample weights {weight.shape} must be {len(x)} finite numbers, none below zero")
    left = np.array([weight[folds != f].sum() for f in range(len(values))])
    if not (left > 0).all():
        raise BadData(
            f"Without fold {values[left.argmin()]} no item has a weight. Expected some in every training part"
        )
    return Given(x, targets, folds, classes, weight / weight.mean(), sample_weight is not None)


def refuse(targets: NDArray[Any], goals: Goals) -> None:
    """BadSetting where the targets are of another kind."""
    kind = "numbers" if targets.dtype.kind == "f" else "classes"
    if kind not in goals:
        others = {"numbers": "mean, ridge or knn", "classes": "logistic, ridge or knn"}
        raise BadSetting(f"The targets are {kind}, and this probe is for {' and '.join(goals)}. Use {others[kind]}")


def _check_targets(targets: NDArray[Any], classes: int) -> None:
    if targets.dtype.kind == "f":
        if targets.ndim != 1 or classes != 1 or not np.isfinite(targets).all():
            raise BadData(f"Targets are {targets.dtype} {targets.shape}. Expected finite numbers (N,)")
        if targets.min() == targets.max():
            raise BadData(f"All items have the same number, {targets[0]:g}. Expected at least two different ones")
        return
    if targets.ndim == 2:
        if targets.shape[1] != classes or targets.dtype != bool:
            raise BadData(
                f"Targets are {targets.dtype} {targets.shape}. Expected bool (N, {classes}) for {classes} labels"
            )
        return
    outside = np.flatnonzero((targets < 0) | (targets >= classes))
    if len(outside):
        raise BadData(
            f"Row {outside[0]} has target {targets[outside[0]]}. Expected 0 to {classes - 1}: label it or leave it out"
        )
    if len(np.unique(targets)) < 2:
        raise BadData("All items have the same label. Expected at least two classes; add items of another one")
