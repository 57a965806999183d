"""An inspected dataset as a backbone sees it: what every look is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import words_of
from topwork.data.write import SEPARATOR
from topwork.modalities.image import Facts
from topwork.types import Dataset, Watch


@dataclass(frozen=True, eq=False)
class Sight:
    """The inspected items: only rows that have features."""

    dataset: Dataset
    rows: NDArray[np.int64]  # (N,) of the inspected dataset
    x: Any  # (N, D)
    z: NDArray[np.float32]  # (N, D) about the mean, of length 1
    backbone: str
    facts: list[Facts] | None  # of images: what the inspection has seen of each file
    seed: int
    watch: Watch
    not_done: list[str] = field(default_factory=list)  # what does not apply, and why

    @property
    def twins(self) -> NDArray[Any]:
        """(N,) same number: same picture or text."""
        return self.dataset.table["twin"].to_numpy()

    @property
    def splits(self) -> NDArray[Any]:
        """(N,) names, "" where there is none."""
        return self.dataset.table["split"].cast("string").fill_null("").to_numpy(zero_copy_only=False).astype(str)

    @property
    def many(self) -> str:
        """What the items are called."""
        return words_of(self.dataset).many

    def labelled(self) -> NDArray[np.int64]:
        """Those with a class."""
        y = self.dataset.targets()
        return np.flatnonzero(y.any(1) if y.ndim == 2 else np.isfinite(y) if self.dataset.numeric else y >= 0)

    def item(self, at: Any) -> str:
        """Its name."""
        return self.dataset.table["item"][int(at)].as_py()


def named(target: Any, names: Sequence[str]) -> str:
    """A label, or several, as a table writes them."""
    if np.ndim(target) == 0:
        return str(names[int(target)])
    return SEPARATOR.join(names[int(c)] for c in np.flatnonzero(target))
