"""Cached activations below the boundary against running the frozen part in every epoch: seconds and accuracy.

With q the share of the multiply-adds above the boundary, arithmetic says that an epoch is (1 + 2q) / 3q times shorter.
Both trainings see augmented views of images that were decoded once; the cache holds --views views of every image. The
seconds of filling the cache are printed beside. Passed: 2.2 x at q = 0.25 and 4 x at q = 0.1 per epoch, and test
accuracies that a paired test cannot tell apart by more than half a point.

    python benchmarks/boundary.py [--set flowers5_small] [--shares 0.25 0.1] [--epochs 4] [--views 4]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from _shared import WEIGHTS, dataset
from probes import root_of

from topwork import finetune, ladder, planning, verbs
from topwork.adaptation.graft import techniques
from topwork.backbones.stages import Stages
from topwork.evaluation.paired import compare_hits
from topwork.ground import divide
from topwork.rung import held_out
from topwork.store.cache import open_cache
from topwork.terms import Terms
from topwork.types import Watch

GOALS = {0.25: 2.2, 0.1: 4.0}


def main() -> int:
    """Print a line per share; exit code 1 if a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="flowers5_small")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.1])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--views", type=int, default=4)
    asked = parser.parse_args()
    ground = divide(verbs.inspect(root_of(dataset(asked.set))).dataset, "stratified(test=0.2)")
    backbone = f"local:{WEIGHTS}"
    rung = ladder.climb(
        ground, planning.plan("probe", backbone), open_cache(), deadline=float("inf"), watch=Watch(),
        engine="onnxruntime",
    ).best  # fmt: skip
    start, y = finetune.Start(rung.backbone, rung.x, rung.probe), ground.dataset.targets()
    probe = (held_out(ground, rung).probabilities.argmax(1) == y[ground.held]).mean()
    print(f"{asked.set}: {len(ground.train):,} training images, {len(ground.held):,} test images, probe {probe:.1%}")
    missed = 0
    for share in asked.shares:
        seconds, right = {}, {}
        for views in (asked.views, 0):
            spec = f"last_stages(share={share}, epochs={asked.epochs}, views={views})"
            began = time.perf_counter()
            bench = finetune.Bench.of(ground, spec, techniques(spec), start, Terms(None, float("inf"), Watch()))
            filled = time.perf_counter() - began
            plan = finetune.pace.decide(bench, float("inf"), 1).plan  # type: ignore[union-attr]
            bench.method(ground.train[:: max(1, len(ground.train) // 64)])  # imports are not the training's
            began = time.perf_counter()
            model = bench.train(plan, ground.train, "benchmark").model
            seconds[views] = (time.perf_counter() - began) / asked.epochs
            right[views] = bench.logits(model, ground.held).argmax(1) == y[ground.held]
            if views:
                q = Stages.of(rung.backbone.module(), bench.feed.size_px).above(bench.below)
                print(f"  q = {q:.3f}: cache of {views} views filled in {filled:.0f} s", flush=True)
        ratio = seconds[0] / seconds[asked.views]
        found = compare_hits(right[0], right[asked.views])
        alike = found.difference >= -0.005 or found.p_value > 0.05
        goal = min(GOALS.items(), key=lambda pair: abs(pair[0] - share))[1]
        missed += ratio < goal or not alike
        print(
            f"  q = {q:.3f}: {seconds[0]:.1f} s an epoch without the cache, {seconds[asked.views]:.1f} s with it: "
            f"{ratio:.1f} x (arithmetic {(1 + 2 * q) / (3 * q):.1f} x, goal {goal:g} x); accuracy "
            f"{np.mean(right[0]):.1%} without, {np.mean(right[asked.views]):.1%} with: {found.over()}",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
