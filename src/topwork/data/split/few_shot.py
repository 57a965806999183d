"""A few items of each class to learn from, all others as the test: how far does a handful go?

    for each class: its units in the order of a hash, until it has k items

A unit (twins, groups) that would give a class more than k is passed over while the class can be filled without it. A
class with fewer than k + 1 items is learnt from as a whole and not measured; the history says how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import in_order
from topwork.data.split import (
    SPLITS,
    _label_entries,
    _unit_counts,
    decided,
    hashed,
    item_keys,
    keep_together,
    labelled,
    told,
)
from topwork.errors import BadSetting
from topwork.types import Dataset


@dataclass(frozen=True)
class FewShot:
    """k items of each class are learnt from."""

    k: int = 5  # items of a class, at least 1

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """A new `split` column."""
        if self.k < 1:
            raise BadSetting(f"few_shot: k={self.k}. Expected at least 1")
        if dataset.numeric:
            raise BadSetting(f"few_shot needs classes, but {dataset.name} has numbers. Use stratified or by_time")
        together = keep_together(dataset)
        number = decided(dataset, together)
        free = np.flatnonzero((number <= 0) & labelled(dataset))
        unit = in_order(together[free]) if len(free) else np.empty(0, np.int32)
        hashes = _unit_hashes(unit, item_keys(dataset)[free], seed)
        labels, rows = _label_entries(dataset.targets()[free])
        taken = _take(labels, unit[rows], hashes, np.bincount(unit, minlength=len(hashes)), self.k)
        number[free] = np.where(taken[unit], SPLITS.index("train"), SPLITS.index("test"))
        measured = np.unique(labels[~taken[unit[rows]]])
        unseen = len(np.setdiff1d(labels, measured))
        rule = f"few_shot({self.k}), seed {seed}"
        return told(
            dataset,
            number,
            together,
            rule + (f" ({unseen:,} classes have no item left for the test)" if unseen else ""),
        )


def _take(
    labels: NDArray[np.int64], owner: NDArray[np.int32], hashes: NDArray[np.uint64], size: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """(U,) units to learn from; label labels[i] is set in unit owner[i], size (U,) counts their items."""
    U, C = len(hashes), int(labels.max(initial=-1)) + 1
    taken, held = np.zeros(U, bool), np.zeros(C, np.int64)
    counts, starts, content = _unit_counts(owner, labels, U, C)
    enough = np.minimum(k, np.bincount(labels, minlength=C))
    order = np.argsort(hashes, kind="stable")
    single = (size == 1) & (np.diff(starts) == 1)
    for exact in (True, False):  # then the units that overflow, for classes that cannot be filled without them
        for u in _worth_asking(order, single, content[starts[:-1].clip(max=len(content) - 1)], k) if exact else order:
            has, count = content[starts[u] : starts[u + 1]], counts[starts[u] : starts[u + 1]]
            if taken[u] or not (held[has] < k).any() or (exact and (held[has] + count > k).any()):
                continue
            taken[u] = True
            held[has] += count
        if (held >= enough).all():
            break
    return taken


def _worth_asking(order: NDArray[Any], single: NDArray[np.bool_], label: NDArray[np.int64], k: int) -> NDArray[Any]:
    """Units in their order; of single items of one class the first k, later ones are never needed."""
    alone = order[single[order]]
    alone = alone[np.argsort(label[alone], kind="stable")]  # by class, in order within
    rank = np.arange(len(alone)) - np.searchsorted(label[alone], label[alone])
    late = np.zeros(len(order), bool)
    late[alone[rank >= k]] = True
    return order[~late[order]]


def _unit_hashes(unit: NDArray[np.int32], keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """(U,) of each unit's smallest member and the seed."""
    smallest = np.full(int(unit.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, unit, keys)
    return hashed(smallest, seed)
