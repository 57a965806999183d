"""Whole groups on one side: patients, cameras, shops; the score then says how well new groups will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topwork.data.split import assign_shares
from topwork.data.split.stratified import shares
from topwork.errors import BadSetting
from topwork.types import Dataset


@dataclass(frozen=True)
class Grouped:
    """Groups are kept whole, classes as even as that allows."""

    column: str = "group"
    test: float = 0.2  # share of the items, 0 to below 1
    val: float = 0.0

    carries: ClassVar[str] = "group"  # what a source calls the column

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """A new `split` column; every labelled item must have a group."""
        name = self.column
        if name not in dataset.columns:
            raise BadSetting(f"{dataset.name} has no column '{self.column}'. Its columns: {', '.join(dataset.columns)}")
        groups = dataset.table[name]
        if groups.null_count:
            row = groups.is_null().index(True).as_py()
            raise BadSetting(
                f"{groups.null_count:,} items have no '{name}', e.g. {dataset.path(row)}. Expected one each"
            )
        if len(groups.unique()) < 2:
            raise BadSetting(f"column '{name}' holds one group only. Expected at least two")
        return assign_shares(dataset, shares(self.test, self.val), seed, name, f"grouped({self.column})")
