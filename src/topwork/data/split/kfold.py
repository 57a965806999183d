"""K folds of equal size and class shares: every item is held out once; for small sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.data.split import assign_shares, divide, item_keys, keep_together
from topwork.errors import BadSetting
from topwork.types import Dataset


@dataclass(frozen=True)
class Kfold:
    """Stratified folds; twins and groups are kept together."""

    folds: int = 5  # at least 2

    folded: ClassVar[bool] = True  # every item is held out once

    def numbers(self, dataset: Dataset, seed: int) -> NDArray[np.int32]:
        """(N,) fold of each row."""
        return folds(dataset.targets(), keep_together(dataset), _checked(self.folds), seed, item_keys(dataset))

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """One fold as test, the others as train."""
        share = 1 / _checked(self.folds)
        return assign_shares(dataset, {"train": 1 - share, "test": share}, seed, "group", f"kfold({self.folds})")


def folds(
    targets: NDArray[Any],
    keep_together: NDArray[Any] | None,
    folds: int,
    seed: int,
    keys: NDArray[np.uint64] | None = None,
) -> NDArray[np.int32]:
    """(N,) int32 fold numbers 0 .. folds - 1, classes spread as evenly as can be.

    targets (N,) int (-1: no label) or (N, C) bool; keep_together (N,): equal numbers share a fold; keys (N,) name the
    items, so that adding some moves few of the others. A class with fewer items than folds is in as many as it can be.
    """
    together = np.arange(len(targets)) if keep_together is None else keep_together
    return divide(targets, together, np.full(_checked(folds), 1 / folds), seed, keys)


def _checked(folds: int) -> int:
    if folds < 2:
        raise BadSetting(f"folds={folds}: expected at least 2")
    return folds
