"""The same share of every class in each part; one picture, or one group, stays on one side."""

from __future__ import annotations

from dataclasses import dataclass

from topwork.data.split import assign_shares
from topwork.errors import BadSetting
from topwork.types import Dataset


@dataclass(frozen=True)
class Stratified:
    """Stratified by label; twins and the `group` column (where there is one) are kept together."""

    test: float = 0.2  # share of the items, 0 to below 1
    val: float = 0.0

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """A new `split` column."""
        return assign_shares(
            dataset, shares(self.test, self.val), seed, "group", f"stratified({self.test}, {self.val})"
        )


def shares(test: float, val: float) -> dict[str, float]:
    """Shares of train, val and test that sum to 1."""
    if not (test >= 0 and val >= 0 and test + val < 1):
        raise BadSetting(f"test={test}, val={val}: expected shares of at least 0 whose sum is below 1")
    return {"train": 1 - test - val, **({"val": val} if val else {}), **({"test": test} if test else {})}
