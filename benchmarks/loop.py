"""What the training loop costs on top of the bare forward and backward passes of the same batches.

    overhead = seconds of loop.train / seconds of (model(batch), backward) - 1

The loop draws the views, steps the optimiser, clips, logs and keeps the order of items; the bare passes get finished
batches and do nothing else. Rounds of both alternate, the median of the ratios counts. Passed: at most 5 %.

    python benchmarks/loop.py [--backbone local:...] [--spec lp_ft] [--steps 12] [--rounds 5] [--batch 32]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time

import numpy as np
import torch
from _shared import WEIGHTS, dataset
from probes import root_of

from topwork import finetune, ladder, planning, verbs
from topwork.adaptation import Method, loop
from topwork.adaptation.feed import Feed, Setup
from topwork.adaptation.graft import techniques
from topwork.adaptation.plan import Plan
from topwork.adaptation.together import Together
from topwork.ground import divide
from topwork.store.cache import open_cache
from topwork.terms import Terms
from topwork.types import Watch

GOAL = 0.05


def main() -> int:
    """Print the overhead; exit code 1 if it is more than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=f"local:{WEIGHTS}")
    parser.add_argument("--spec", default="lp_ft + view('crop')")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    asked = parser.parse_args()
    ground = divide(verbs.inspect(root_of(dataset("hymenoptera"))).dataset)
    rung = ladder.climb(
        ground, planning.plan("probe", asked.backbone), open_cache(), deadline=float("inf"), watch=Watch()
    ).best
    start = finetune.Start(rung.backbone, rung.x, rung.probe)
    terms = Terms(None, float("inf"), Watch())
    bench = finetune.Bench.of(ground, asked.spec, techniques(asked.spec), start, terms)
    plan = finetune.pace.decide(bench, float("inf"), 1).plan  # type: ignore[union-attr]
    plan = dataclasses.replace(plan, steps=asked.steps, batch=asked.batch)
    method, feed = bench.method(ground.train), bench.feed_of(ground.train)
    batches = [parts for _, parts in feed.batches([method], 0, Setup(plan.steps, plan.batch))]
    ratios = []
    for _ in range(asked.rounds):
        ends = timed(bench.trunk(), method, feed, plan)
        whole = Together(bench.trunk(), [method], feed, plan).to(memory_format=torch.channels_last).train()
        bare = []
        for parts in batches:
            for batch in parts:
                sum(whole(batch).values()).backward()
            whole.zero_grad()
            bare.append(time.perf_counter())
        ratios.append((ends[-1] - ends[2]) / (bare[-1] - bare[2]))  # the first steps warm up
        print(f"  loop {np.diff(ends).mean():.3f} s a step, bare {np.diff(bare).mean():.3f} s", flush=True)
    overhead = statistics.median(ratios) - 1
    print(f"{asked.spec}, batches of {asked.batch}: {overhead:+.1%} over the bare passes (at most {GOAL:.0%})")
    return int(overhead > GOAL)


def timed(trunk: torch.nn.Module, method: Method, feed: Feed, plan: Plan) -> list[float]:
    """The moments at which the steps of a training ended."""
    ends: list[float] = []
    loop.train(trunk, [method], feed, plan, watch=Watch(progress=lambda *_: ends.append(time.perf_counter())))
    return ends


if __name__ == "__main__":
    sys.exit(main())
