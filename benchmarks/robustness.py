"""Adversarial training against plain training: accuracy, and accuracy under attack, of the same test images.

Both fine-tune everything for the same number of epochs from the same solved probe; one learns from images attacked by
PGD. The attack that measures is stronger than the one that trains: PGD with 20 steps, eps 4 / 255 of every channel, on
the model in eval mode (`nn.attack.withstands`); an item counts if it is right before and after. What an attack finds is
a bound: real robustness can be lower. Passed: the robust accuracy gains with an interval above 0.

    python benchmarks/robustness.py [--set sign_language_digits] [--backbone bundled] [--epochs 15] [--eps 4]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from _shared import dataset
from budget import share
from probes import root_of

from topwork import finetune, ladder, planning, verbs
from topwork.adaptation.graft import Grafted, techniques
from topwork.evaluation.paired import compare_hits
from topwork.finetune.start import BATCH
from topwork.ground import divide
from topwork.nn.attack import withstands
from topwork.store.cache import open_cache
from topwork.terms import Terms
from topwork.types import Watch

STEPS = 20


def main() -> int:
    """Print a line per training; exit code 1 if nothing is gained under attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--set", default="sign_language_digits")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--eps", type=float, default=4.0)
    parser.add_argument("--most", type=int, default=300, help="test images that are attacked")
    asked = parser.parse_args()
    ground = divide(verbs.inspect(root_of(dataset(asked.set))).dataset, "stratified(test=0.2)")
    rung = ladder.climb(
        ground, planning.plan("probe", asked.backbone), open_cache(), deadline=float("inf"), watch=Watch(),
        engine="onnxruntime",
    ).best  # fmt: skip
    start, y = finetune.Start(rung.backbone, rung.x, rung.probe), ground.dataset.targets()
    rows = np.random.default_rng(0).permutation(ground.held)[: asked.most]
    print(f"{asked.set}, {asked.backbone}: {len(ground.train):,} training images, {len(rows):,} attacked, eps "
          f"{asked.eps:g} / 255, PGD-{STEPS}")  # fmt: skip
    robust = []
    plain = f"lp_ft(epochs={asked.epochs})"
    for spec in (plain, f"{plain} + adversarial(eps={asked.eps})"):
        terms = Terms(None, float("inf"), Watch(), extraction={"engine": "onnxruntime"})
        bench = finetune.Bench.of(ground, spec, techniques(spec), start, terms)
        began = time.perf_counter()
        plan = finetune.pace.decide(bench, float("inf"), 1).plan  # type: ignore[union-attr]
        model = bench.train(plan, ground.train, "benchmark").model.eval()
        seconds = time.perf_counter() - began
        right = bench.logits(model, rows).argmax(1) == y[rows]
        held = np.concatenate(
            [
                held_against(bench, model, some, y[some], asked.eps)
                for some in np.split(rows, range(BATCH, len(rows), BATCH))
            ]
        )
        robust.append(held)
        print(f"  {spec}: accuracy {share(right)}, under attack {share(held)}; trained in {seconds:.0f} s", flush=True)
    found = compare_hits(*robust)
    print(f"  under attack: {found.over()}")
    return int(found.low <= 0)


def held_against(
    bench: finetune.Bench, model: Grafted, rows: np.ndarray, targets: np.ndarray, eps: float
) -> np.ndarray:
    """(len(rows),) bool: right before and after the attack."""
    images, truth = bench.plain(rows)[0], torch.from_numpy(targets.astype(np.int64))
    asked = withstands(
        lambda x: model(x).logits, images, truth, bench.feed.mean, bench.feed.std, torch.Generator().manual_seed(0),
        eps, STEPS,
    )  # fmt: skip
    return asked.numpy()


if __name__ == "__main__":
    sys.exit(main())
