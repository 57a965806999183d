"""Few labels: regularised fine-tuning against plain fine-tuning of everything, on the same items with the same views.

A share of the training images (15 %) is learnt from, drawn anew per draw; the test images stay. Plain is `full` from a
fresh head; every other line adds to it. The method that counts as the best on a set is the one with the best mean on
the *other* sets, so that no test image chooses what it measures. The frozen probe of the same images is printed beside.
Intervals pair item by item over all draws of a set, as if a test image gave the same answer in every draw (the variance
is multiplied by the number of draws). Passed: the best gains with an interval above 0 on three sets.

    python benchmarks/regularization.py [--backbone local:FOLDER] [--sets ...] [--share 0.15] [--draws 2] [--epochs 10]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

import numpy as np
from _shared import WEIGHTS, dataset
from probes import root_of

from topwork import finetune, ladder, planning, verbs
from topwork.adaptation.graft import techniques
from topwork.backbones import find
from topwork.backbones.source_head import source_head
from topwork.data.split.kfold import folds
from topwork.evaluation.paired import compare_hits
from topwork.ground import Ground, divide
from topwork.rung import held_out
from topwork.store.cache import open_cache
from topwork.terms import Terms
from topwork.types import Watch

SETS = ("hymenoptera", "cats_dogs_small", "trashnet_small")
PLAIN = "full(epochs={})"
MORE = ("l2_sp", "delta", "bss", "stochnorm", "co_tuning", "dropout")


def main() -> int:
    """Print a line per set and method; exit code 1 if fewer than three sets gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=f"local:{WEIGHTS}")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--methods", nargs="+", default=MORE)
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    card = find(asked.backbone).card
    plain = PLAIN.format(asked.epochs)
    methods = [m for m in asked.methods if m != "co_tuning" or source_head(find(asked.backbone), card.features or 0)]
    right: dict[str, dict[str, list[np.ndarray]]] = {}
    for name in asked.sets:
        whole = divide(verbs.inspect(root_of(dataset(name))).dataset, "stratified(test=0.2)")
        for draw in range(asked.draws):
            ground, began = few(whole, asked.share, draw), time.perf_counter()
            found = hits_of(ground, asked.backbone, [plain, *(f"{plain} + {m}" for m in methods)], draw)
            for method, hit in zip(("probe", "plain", *methods), found, strict=True):
                right.setdefault(name, {}).setdefault(method, []).append(hit)
            said = ", ".join(
                f"{m} {hit.mean():.1%}" for m, hit in zip(("probe", "plain", *methods), found, strict=True)
            )
            print(f"{name}, draw {draw}, {len(ground.train)} images: {said}; {time.perf_counter() - began:.0f} s",
                  flush=True)  # fmt: skip
    return int(tell(right, methods) < 3)


def tell(right: dict[str, dict[str, list[np.ndarray]]], methods: list[str]) -> int:
    """A line per set and method; on how many sets the one chosen elsewhere gains."""
    means = {name: {m: float(np.mean(hits)) for m, hits in found.items()} for name, found in right.items()}
    gains = 0
    for name, found in right.items():
        others = [other for other in right if other != name] or [name]
        best = max(methods, key=lambda m: np.mean([means[o][m] - means[o]["plain"] for o in others]))
        draws = len(found["plain"])
        for method in ("probe", *methods):
            gain = compare_hits(np.concatenate(found["plain"]), np.concatenate(found[method]), draws)
            gains += method == best and gain.low > 0
            mark = "  <- best on the other sets" if method == best else ""
            print(
                f"  {name}: {method} {means[name][method]:.1%}, plain {means[name]['plain']:.1%}: {gain.over()}{mark}"
            )
    return gains


def few(whole: Ground, share: float, draw: int) -> Ground:
    """A share of the training rows, every class at least twice, and all held-out rows."""
    y, rng = whole.dataset.targets(), np.random.default_rng(draw)
    chosen = [
        rng.permutation(rows)[: max(2, round(share * len(rows)))]
        for label in range(len(whole.dataset.labels))
        for rows in [whole.train[y[whole.train] == label]]
    ]
    rows = np.sort(np.concatenate(chosen))
    drawn = whole.dataset.take(np.concatenate([rows, whole.held]))
    train, held = np.arange(len(rows)), np.arange(len(rows), len(drawn))
    return dataclasses.replace(
        whole, dataset=drawn, train=train, held=held, folds=folds(drawn.targets(), np.arange(len(drawn)), 5, draw)
    )


def hits_of(ground: Ground, backbone: str, specs: list[str], seed: int) -> list[np.ndarray]:
    """Right or wrong of every held-out item: the frozen probe, then every spec."""
    rung = ladder.climb(
        ground, planning.plan("probe", backbone), open_cache(), deadline=float("inf"), watch=Watch(),
        engine="onnxruntime",
    ).best  # fmt: skip
    start, y = finetune.Start(rung.backbone, rung.x, rung.probe), ground.dataset.targets()[ground.held]
    found = [held_out(ground, rung).probabilities.argmax(1) == y]
    for spec in specs:
        terms = Terms(None, float("inf"), Watch(), None, seed, {"engine": "onnxruntime"})
        bench = finetune.Bench.of(ground, spec, techniques(spec), start, terms)
        plan = finetune.pace.decide(bench, float("inf"), 1).plan  # type: ignore[union-attr]
        model = bench.train(plan, ground.train, "benchmark").model
        found.append(bench.logits(model, ground.held).argmax(1) == y)
    return found


if __name__ == "__main__":
    sys.exit(main())
