"""Figure e: Topwork's chosen probe against scikit-learn's LogisticRegressionCV, same features, same test items.

LogisticRegressionCV gets standardised features, the same folds and 10 values of C, chosen by log loss. Passed: on every
set the accuracy is at least that of LogisticRegressionCV minus one standard error. Seconds are for solving only, one
thread for both, best of two runs of ours and one of theirs.

    python benchmarks/probes.py [--weights FOLDER] [--sets hymenoptera ...] [--markdown]

hymenoptera (train -> val), cats_dogs_small (training_set -> test_set), the others by a stratified 80/20 split, seed 0,
duplicates on one side.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shared import WEIGHTS
from _shared import dataset as unpacked

from topwork import sources
from topwork.adaptation.probe import choose
from topwork.backbones import find
from topwork.data.inspect import inspect
from topwork.data.split import item_keys, keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.data.split.stratified import Stratified
from topwork.evaluation.intervals import wilson
from topwork.features.extract import extract
from topwork.nn.heads import probabilities
from topwork.nn.log_loss import losses
from topwork.store.cache import open_cache
from topwork.types import Dataset, Head

SETS = ("hymenoptera", "cats_dogs_small", "flowers5_small", "trashnet_small", "sign_language_digits")


@dataclass(frozen=True)
class Result:
    """How one solver did on the test items."""

    right: int
    n: int
    log_loss: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of test items that are right."""
        return self.right / self.n

    def __str__(self) -> str:
        low, high = wilson(self.right, self.n)
        return f"{self.accuracy:.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    """Print the table; exit code 1 if a set misses the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = [compare(name, unpacked(name), f"local:{arguments.weights}") for name in arguments.sets]
    show(rows, arguments.markdown)
    missed = [row["set"] for row in rows if not row["passed"]]
    print(f"figure e: {f'missed on {missed}' if missed else 'reached on all sets'}")
    return 1 if missed else 0


def compare(name: str, folder: Path, backbone: str) -> dict[str, Any]:
    """Extract once, solve twice."""
    cache = open_cache()
    dataset = divided(inspect(sources.read(root_of(folder)), cache).dataset)
    features = extract(dataset, find(backbone), cache)
    place = {int(row): i for i, row in enumerate(features.rows)}
    held = "val" if "test" not in splits(dataset) else "test"
    train, test = ([row for row in dataset.rows_of(split).tolist() if row in place] for split in ("train", held))
    x, xt = (np.ascontiguousarray(features.x[[place[row] for row in rows]]) for rows in (train, test))
    y, yt = dataset.targets()[train], dataset.targets()[test]
    folds = make_folds(y, keep_together(dataset)[train], 5, 0, item_keys(dataset)[train])
    ours, method = solve_ours(x, y, folds, len(dataset.labels), xt, yt)
    theirs = solve_theirs(x, y, folds, xt, yt)
    error = math.sqrt(theirs.accuracy * (1 - theirs.accuracy) / theirs.n)
    passed = ours.accuracy >= theirs.accuracy - error
    return {"set": name, "train": len(y), "ours": ours, "method": method, "theirs": theirs, "passed": passed}


def root_of(folder: Path) -> str:
    """The folder that holds the class or split folders: archives often wrap them in one more."""
    while len(inside := [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]) == 1:
        folder = inside[0]
    return str(folder)


def splits(dataset: Dataset) -> set[str]:
    """Names of the splits that the data came with."""
    return set(dataset.table["split"].cast("string").drop_null().unique().to_pylist())


def divided(dataset: Dataset) -> Dataset:
    """Keep a split that came with the data; otherwise a stratified fifth is the test."""
    return dataset if splits(dataset) & {"test", "val"} else Stratified(test=0.2).assign(dataset, 0)


def solve_ours(x: Any, y: Any, folds: Any, classes: int, xt: Any, yt: Any) -> tuple[Result, str]:
    """Every probe of "auto" and the choice."""

    def once() -> tuple[float, Head]:
        began = time.perf_counter()
        best, _ = choose(x, y, folds, classes)
        return time.perf_counter() - began, best.head

    (first, head), (second, _) = once(), once()
    return scored(probabilities(head, xt), yt, min(first, second)), head.method


def solve_theirs(x: Any, y: Any, folds: Any, xt: Any, yt: Any) -> Result:
    """LogisticRegressionCV on standardised features."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import PredefinedSplit
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    began = time.perf_counter()
    scaler: Any = StandardScaler().fit(x)
    solver: Any = LogisticRegressionCV(Cs=10, cv=PredefinedSplit(folds), scoring="neg_log_loss", max_iter=1000)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # deprecations of attributes that are not used here
        solver.fit(scaler.transform(x), y)
    seconds = time.perf_counter() - began
    p = np.zeros((len(xt), int(y.max()) + 1), np.float32)
    p[:, solver.classes_] = solver.predict_proba(scaler.transform(xt))
    return scored(p, yt, seconds)


def scored(p: Any, y: Any, seconds: float) -> Result:
    """Accuracy and log loss of probabilities."""
    loss = float(losses(np.log(np.maximum(p, 1e-12)), y).mean())
    return Result(int((p.argmax(axis=1) == y).sum()), len(y), loss, seconds)


def show(rows: list[dict[str, Any]], markdown: bool) -> None:
    """One line per set."""
    head = ["set", "train", "test", "Topwork", "log loss", "s", "LogisticRegressionCV", "log loss", "s", "chosen", ""]
    lines = [
        [
            row["set"],
            f"{row['train']:,}",
            f"{row['ours'].n:,}",
            *(cell for r in (row["ours"], row["theirs"]) for cell in (str(r), f"{r.log_loss:.3f}", f"{r.seconds:.2f}")),
            row["method"],
            "reached" if row["passed"] else "missed",
        ]
        for row in rows
    ]
    if markdown:
        lines.insert(0, ["---"] * len(head))
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
