"""Figures of texts: frozen MiniLM against scikit-learn on its mean-pooled features, the n-gram step, Chinese.

    python benchmarks/text_probes.py --backbone local:FOLDER_OF_MINILM [--sets sst2 ...] [--crossed] [--chinese]

a. Frozen probe on all labels: `extract` and Topwork's probe ("auto"), against the same encoder's mean-pooled states
   (computed here by the bare module, one text at a time in order of length) and scikit-learn's LogisticRegressionCV
   (five folds, ten strengths, log loss). sst2, trec and banking77 keep their test parts; CR and SUBJ are cut 80/20. The
   figure is reached where ours is at least theirs minus one standard error of the difference, paired item by item.
   --crossed: CR and SUBJ by five folds instead, every item a test item once: a fifth of SUBJ is 2,000 items, and one
   such cut differs from the next by half a point.
d. --chinese: the n-gram step on chnsenticorp_htl and waimai_10k after exact de-duplication, by five folds, against
   scikit-learn's character 1-3-gram TF-IDF and LogisticRegression at C = 10 on the same folds; with the calibration
   error of our probabilities.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _texts import CHINESE, ENGLISH, Task, read
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline

from topwork import backbones
from topwork.adaptation import probe as probes
from topwork.adaptation.probe.sparse_logistic import SparseLogistic
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.calibrate import cross_fitted, measure
from topwork.evaluation.intervals import wilson
from topwork.features.extract import extract
from topwork.nn.heads import logits
from topwork.store.cache import open_cache

UNDIVIDED = ("CR", "SUBJ")  # they have no test part of their own


def pooled(backbone: Any, texts: list[str]) -> np.ndarray:
    """Mean-pooled states as its authors compute them: one text at a time, cut at the window."""
    import torch

    module, x = backbone.module(), []
    with torch.inference_mode():
        for text in texts:
            window = backbone.reader.read([text]).padded(np.array([0]))
            x.append(module(*(torch.from_numpy(part) for part in window))[0].numpy())
    return np.stack(x)


def frozen(name: str, backbone: Any, crossed: bool) -> None:
    """One line of figure a."""
    task = read(name)
    y = task.labels
    begun = time.perf_counter()
    x = extract(task.dataset(), backbone, open_cache()).x
    extracted = time.perf_counter() - begun
    bare = pooled(backbone, task.texts)
    ours, theirs, methods, solved = np.zeros(len(y), bool), np.zeros(len(y), bool), [], 0.0
    tests = [task.is_test]
    if crossed and name in UNDIVIDED:
        parts = make_folds(y, None, 5, seed=0)
        tests = [parts == part for part in range(5)]
    for is_test in tests:
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        folds = make_folds(y[train], None, 5, seed=0)
        begun = time.perf_counter()
        best, _ = probes.choose(x[train], y[train], folds, int(y.max()) + 1)
        solved += time.perf_counter() - begun
        methods.append(best.head.method)
        ours[test] = logits(best.head, x[test]).argmax(1) == y[test]
        reference = LogisticRegressionCV(Cs=10, cv=5, scoring="neg_log_loss", max_iter=2000,
                                         use_legacy_attributes=False, l1_ratios=(0,))  # fmt: skip
        reference.fit(bare[train], y[train])
        theirs[test] = reference.predict(bare[test]) == y[test]
    asked = np.any(tests, axis=0)
    ours, theirs = ours[asked], theirs[asked]
    gap = ours.astype(float) - theirs
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    low, high = wilson(int(ours.sum()), len(ours))
    verdict = "reached" if gap.mean() >= -error else "NOT reached"
    print(
        f"{name:10} ours {100 * ours.mean():5.2f} [{100 * low:.1f}, {100 * high:.1f}]  scikit-learn "
        f"{100 * theirs.mean():5.2f}  difference {100 * gap.mean():+.2f} +- {100 * error:.2f}: {verdict}; "
        f"{', '.join(methods)}; extracted {extracted:.1f} s, solved {solved:.1f} s; "
        f"features apart {np.abs(x - bare).max():.1e}",
        flush=True,
    )


def ngrams(name: str, task: Task, reference: bool) -> None:
    """One line of figure d."""
    y, C = task.labels, int(task.labels.max()) + 1
    folds = make_folds(y, None, 5, seed=0)
    begun = time.perf_counter()
    backbone = backbones.find("bundled:ngrams", "text").fitted(task.texts)  # type: ignore[attr-defined]
    x = extract(task.dataset(), backbone, None).x
    found = SparseLogistic().solve(x, y, folds, C)
    seconds = time.perf_counter() - begun
    right = int((found.held_out.argmax(1) == y).sum())
    low, high = wilson(right, len(y))
    ece = measure(cross_fitted(found.held_out, y, folds), y)["ece"]
    told = ""
    if reference:
        hits = 0
        texts = np.array(task.texts, object)
        for fold in range(5):
            out = folds == fold
            model = make_pipeline(
                TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True),
                LogisticRegression(C=10, max_iter=1000),
            ).fit(texts[~out], y[~out])
            hits += int((model.predict(texts[out]) == y[out]).sum())
        told = f"; plain 1-3-grams {100 * hits / len(y):.2f}"
    print(
        f"{name:18} {len(y):,} texts, {x.shape[1]:,} n-grams: {100 * right / len(y):.2f} [{100 * low:.2f}, "
        f"{100 * high:.2f}] by 5 folds, calibration error {ece:.4f}, {seconds:.1f} s{told}",
        flush=True,
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone")
    parser.add_argument("--sets", nargs="*", default=ENGLISH)
    parser.add_argument("--crossed", action="store_true")
    parser.add_argument("--chinese", action="store_true")
    args = parser.parse_args()
    if args.backbone:
        backbone = backbones.find(args.backbone, "text")
        for name in args.sets:
            frozen(name, backbone, args.crossed)
    if args.chinese:
        for name in CHINESE:
            ngrams(name, read(name), reference=True)


if __name__ == "__main__":
    main()
