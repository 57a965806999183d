"""The ground of a climb: which rows are learnt from, in which folds, and which rows only measure.

the data have a test or val split       that one measures; everything else is learnt from
a rule was named                        stratified(test=0.2), by_time ...: its test part; kfold, by_domain: folds
2,000 items or more                     a fifth is held out
fewer                                   nothing is held out: cross-validation measures better than a fifth would
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import plugins
from topwork.data.split import item_keys, keep_together
from topwork.data.split.kfold import folds
from topwork.errors import BadData
from topwork.types import Dataset, Predictions

HOLD_OUT_FROM = 2000  # items
HOLD_OUT = "stratified(test=0.2)"
FOLDS = 5

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ground:
    """Training rows come first, so that their features are one block of memory."""

    dataset: Dataset
    train: Rows
    held: Rows  # empty: cross-validation measures
    folds: NDArray[np.int32]  # (N,) of every row of the dataset; what belongs together shares a fold
    kind: str  # "test", "val" or "cross-validation"
    text: str  # what measures, in words
    drawn: bool = True  # whether other folds could be drawn; folds that are domains are what they are

    def predictions(self, rows: Rows, p: NDArray[Any]) -> Predictions:
        """Probabilities (N, C) of some rows beside their truth."""
        items = self.dataset.table["item"].take(rows).to_pylist()
        targets = self.dataset.targets()[rows]
        return Predictions(p.astype(np.float32), targets, self.dataset.labels, items, self.dataset.multilabel)


def divide(dataset: Dataset, rule: str = "auto", seed: int = 0) -> Ground:
    """Lay the ground from the labelled rows of an inspected dataset."""
    dataset = dataset.take(np.flatnonzero(dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)))
    named = None if rule == "auto" else plugins.make("data.split", rule)
    fixed = named is not None and getattr(named, "folded", False) and not hasattr(named, "folds")
    dataset, kind, text, count = _held_out(dataset, rule, seed)
    held = np.zeros(0, np.int64) if kind == "cross-validation" else dataset.rows_of(kind)
    train = np.setdiff1d(np.arange(len(dataset)), held)
    if not len(train):
        raise BadData(f"{dataset.name}: nothing is left to learn from; all {len(held):,} items are in {kind}")
    dataset = dataset.take(np.concatenate([train, held]))
    train, held = np.arange(len(train)), np.arange(len(train), len(dataset))
    if named is not None and fixed:
        return Ground(dataset, train, held, named.numbers(dataset, seed), kind, text, drawn=False)
    fold = folds(dataset.targets(), keep_together(dataset), count, seed, item_keys(dataset))
    return Ground(dataset, train, held, fold, kind, text)


def _held_out(dataset: Dataset, rule: str, seed: int) -> tuple[Dataset, str, str, int]:
    """The dataset with its splits, the one that measures, that in words, and the number of folds."""
    given = [side for side in ("test", "val") if len(dataset.rows_of(side))]
    if rule != "auto":
        named = plugins.make("data.split", rule)
        if not getattr(named, "folded", False):
            return named.assign(dataset, seed), "test", f"the test part of {rule}", FOLDS
        if hasattr(named, "folds"):
            return dataset, "cross-validation", f"repeated {named.folds}-fold cross-validation", named.folds
        count = len(np.unique(named.numbers(dataset, seed)))
        return dataset, "cross-validation", f"{count} parts, each left out in turn ({rule})", count
    if given:
        text = f"the {given[0]} split of the data"
        if len(given) == 2:
            text += "; val joins the training items, because choices are made by cross-validation"
        return dataset, given[0], text, FOLDS
    if len(dataset) < HOLD_OUT_FROM:
        text = f"repeated {FOLDS}-fold cross-validation: {len(dataset):,} items are too few to hold some out"
        return dataset, "cross-validation", text, FOLDS
    text = "a fifth of the items, held out (stratified, copies of one item on one side)"
    return plugins.make("data.split", HOLD_OUT).assign(dataset, seed), "test", text, FOLDS
