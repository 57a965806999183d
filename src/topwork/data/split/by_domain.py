"""Whole domains kept back: hospitals, cities, styles that the model has never seen.

    by_domain(test="sketch")            the named domains are the test, all others are learnt from
    by_domain(test="sketch,cartoon")
    by_domain                           each domain in turn is left out: as many folds as there are domains

Twins and groups that are in a test domain and in another one go to the test as a whole; the history says how many items
that moves. Gulrajani & Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021 (leave one domain out).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.data.split import SPLITS, decided, hashed, item_keys, keep_together, labelled, told
from topwork.errors import BadSetting, UnknownName
from topwork.types import Dataset


@dataclass(frozen=True)
class ByDomain:
    """Domains are never on both sides."""

    test: str | Sequence[str] = ""  # domains that are the test, "a,b" or a list; "": each in turn
    val: str | Sequence[str] = ""
    column: str = "domain"

    carries: ClassVar[str] = "domain"  # what a source calls the column

    @property
    def folded(self) -> bool:
        """Whether each domain is left out in turn."""
        return not _listed(self.test)

    def numbers(self, dataset: Dataset, seed: int) -> NDArray[np.int32]:  # noqa: ARG002 there is nothing to draw
        """(N,) fold of each row: its domain, in the order of their names; a unit over several is in the first."""
        code, _ = self._codes(dataset, np.arange(len(dataset)))
        together = keep_together(dataset)
        least = np.full(int(together.max(initial=-1)) + 1, np.iinfo(np.int32).max, np.int32)
        np.minimum.at(least, together, code)
        return np.unique(least[together], return_inverse=True)[1].astype(np.int32)

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """A new `split` column; every labelled item must have a domain. Without `test` the seed draws one domain."""
        together = keep_together(dataset)
        number = decided(dataset, together)
        free = np.flatnonzero((number <= 0) & labelled(dataset))
        code, names = self._codes(dataset, free)
        test = _listed(self.test) or [names[int(np.argmin(hashed(_keys(names), seed)))]]
        number[free], moved = SPLITS.index("train"), 0
        for split, asked in (("val", _listed(self.val)), ("test", test)):  # test last: it wins
            for name in asked:
                if name not in names:
                    raise UnknownName.among(name, f"column '{self.column}' of {dataset.name}", names)
            inside = np.isin(code, [names.index(name) for name in asked])
            follows = np.isin(together[free], together[free[inside]])
            number[free[follows]] = SPLITS.index(split)
            moved += int((follows & ~inside).sum())
        if not (number[free] == SPLITS.index("train")).any():
            raise BadSetting(f"by_domain: nothing is left to learn from. Domains of {dataset.name}: {', '.join(names)}")
        rule = f"by_domain({', '.join(test)})"
        return told(
            dataset, number, together, rule + (f" ({moved:,} twins or items of a group follow)" if moved else "")
        )

    def _codes(self, dataset: Dataset, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        """Domain number of these rows, and the domains in order of their names."""
        import pyarrow as pa

        name = self.column
        if name not in dataset.columns:
            raise BadSetting(
                f"{dataset.name} has no column '{self.column}'. Its columns: {', '.join(dataset.columns)}. "
                "Name the one that holds domains with --domain-column"
            )
        column = dataset.table[name].take(pa.array(rows)).combine_chunks().cast(pa.string()).dictionary_encode()
        if column.null_count:
            row = int(rows[int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])])
            raise BadSetting(f"{column.null_count:,} items have no '{name}', e.g. {dataset.table['item'][row]}")
        found = column.dictionary.to_pylist()
        if len(found) < 2:
            raise BadSetting(f"column '{name}' holds one domain only. Expected at least two")
        names = sorted(found)
        rank = np.array([names.index(one) for one in found], np.int32)
        return rank[column.indices.to_numpy()], names


def _listed(asked: str | Sequence[str]) -> list[str]:
    parts = asked.split(",") if isinstance(asked, str) else list(asked)
    return [part.strip() for part in parts if part.strip()]


def _keys(names: list[str]) -> NDArray[np.uint64]:
    import pyarrow as pa

    return item_keys(Dataset(pa.table({"item": names}), "", ()))
