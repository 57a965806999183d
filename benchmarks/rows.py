"""Rows of feature columns with holes: Topwork against scikit-learn, and against leaving incomplete rows out.

Share of the cells that are made missing: 0, 10 and 30 % at random; "told" loses 30 % of one class's cells and 10 % of
the others', so that a hole says something. Topwork reads the rows as `fit` does and chooses its probe;
scikit-learn is SimpleImputer(median, add_indicator), StandardScaler, LogisticRegressionCV (five folds, log loss);
"complete rows" is the same learnt from rows without holes alone, where ten a class are left. Five draws of holes and of
a stratified 70/30 split each.

    python benchmarks/rows.py [--sets wine breast_cancer digits] [--draws 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe import choose
from topwork.backbones.columns import Columns
from topwork.data.split.kfold import folds as make_folds
from topwork.modalities.rows import written
from topwork.nn.heads import probabilities

HOLES = ("0 %", "10 %", "30 %", "told")
Array = NDArray[Any]


def main() -> None:
    """Print a line per set and kind of holes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["wine", "breast_cancer", "digits"])
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(
        f"{'set':14} {'holes':6} {'Topwork':>8} {'sklearn':>8} {'complete rows':>14} {'difference (SE)':>18} {'s':>6}"
    )
    for name in args.sets:
        for holes in HOLES:
            draws = [draw(name, holes, seed) for seed in range(args.draws)]
            ours, theirs, complete, seconds = zip(*draws, strict=True)
            apart = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            error = statistics.stdev(apart) / len(apart) ** 0.5
            left = [c for c in complete if c is not None]
            rest = f"{100 * statistics.mean(left):14.1f}" if left else f"{'too few':>14}"
            print(
                f"{name:14} {holes:6} {100 * statistics.mean(ours):8.1f} {100 * statistics.mean(theirs):8.1f} {rest} "
                f"{statistics.mean(apart):+10.2f} ({error:.2f}) {statistics.mean(seconds):6.2f}"
            )


def draw(name: str, holes: str, seed: int) -> tuple[float, float, float | None, float]:
    """Accuracies on the test rows, the last one None where too few rows are complete, and our seconds."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    found = getattr(datasets, f"load_{name}")()
    x, y = np.asarray(found.data, float).copy(), np.asarray(found.target).astype(np.int32)
    rng = np.random.default_rng(seed)
    share = {"0 %": 0.0, "10 %": 0.1, "30 %": 0.3}.get(holes)
    x[rng.random(x.shape) < (np.where(y == 0, 0.3, 0.1)[:, None] if share is None else share)] = np.nan
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed)
    began = time.perf_counter()
    ours = _ours(x[train], y[train], x[test])
    seconds = time.perf_counter() - began
    whole = train[~np.isnan(x[train]).any(1)]
    enough = len(np.unique(y[whole])) == y.max() + 1 and np.bincount(y[whole]).min() >= 10
    theirs = _theirs(x[train], y[train], x[test])
    complete = (_theirs(x[whole], y[whole], x[test]) == y[test]).mean() if enough else None
    return float((ours == y[test]).mean()), float((theirs == y[test]).mean()), complete, seconds


def _ours(x: Array, y: Array, asked: Array) -> Array:
    rows, new = _rows(x), _rows(asked)
    backbone = Columns().fitted(rows)
    features, more = _dense(backbone, rows), _dense(backbone, new)
    folds = make_folds(y, np.arange(len(y)), 5, 0)
    best, _ = choose(features, y, folds, int(y.max()) + 1)
    return probabilities(best.head, more).argmax(1)


def _rows(x: Array) -> list[str]:
    return [written({f"c{i}": None if np.isnan(v) else float(v) for i, v in enumerate(row)}) for row in x]


def _dense(backbone: Columns, rows: list[str]) -> Array:
    from scipy.sparse import csr_array

    assert backbone.reader is not None
    tokens = backbone.reader.read(rows)
    shape = (len(rows), len(backbone.reader.features))
    return csr_array((tokens.weights, tokens.ids, tokens.ends), shape=shape).toarray()


def _theirs(x: Array, y: Array, asked: Array) -> Array:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    solver = LogisticRegressionCV(Cs=10, cv=5, scoring="neg_log_loss", max_iter=1000)
    return (
        make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler(), solver)
        .fit(x, y)
        .predict(asked)
    )


if __name__ == "__main__":
    main()
