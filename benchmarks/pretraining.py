"""What every pretraining method is worth after the same time: frozen features against the same network at random.

Each method gets the same photos, the default network and the same seconds, measured by the tool itself (`--time`);
reading the photos, and asking a teacher, happen once beforehand. Then a ridge probe, cross-validated in five folds, is
asked about sets that no method has seen; the difference to the random network, its batch norms settled on the set, is
paired over the items, with its 95 % interval. Passed: every method is above the random network on one set at least,
and below it on neither; a minute is short, and random convolutions see colours well, which is most of what flowers are.

    python benchmarks/pretraining.py [--seconds 60] [--methods simclr mae ...] [--arch NAME] [--images 100] [--size 48]

Methods that learn without labels see the photos alone; multi_source gets the classes as two sets of one half each.
distillation's teacher is the bundled backbone, which was trained on these photos.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _shared import dataset as unpacked
from probes import root_of

from topwork import plugins, verbs
from topwork.adaptation.pretraining import ROOM
from topwork.backbones import find
from topwork.pretraining.material import gather
from topwork.pretraining.network import ARCHITECTURE, Network
from topwork.pretraining.probe import Probe
from topwork.types import Watch

SETS = ("flowers5_small", "sign_language_digits")
VIT = "vit_tiny_patch16_224(patch_size=8, embed_dim=128, depth=4, num_heads=4, class_token=False, global_pool='avg')"
EXTRA = (("mae", VIT),)  # the real masked autoencoder needs a ViT


def main() -> int:
    """Print a line per method and set; exit code 1 if a method misses the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of training, for every method")
    parser.add_argument("--methods", nargs="+", default=plugins.names(ROOM))
    parser.add_argument("--arch", default=ARCHITECTURE, help="of timm (default %(default)s)")
    parser.add_argument("--images", type=int, default=100, help="photos of each of the 100 classes; at most 300")
    parser.add_argument("--size", type=int, default=48, help="px")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    photos = unpacked("pretrain_images") / "train"
    jobs = [(method, asked.arch) for method in asked.methods] + [j for j in EXTRA if j[0] in asked.methods]
    missed = []
    print(f"{asked.images * 100:,} photos, {asked.size} px, {asked.seconds:.0f} s a method, seed {asked.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, *halves = linked(photos, folder, asked.images)
        material, _ = gather((str(whole),), needs_labels=False)
        probes = [shuffled(Probe.of(str(root_of(unpacked(of))), material, asked.size, Watch())) for of in SETS]
        for method, arch in jobs:
            sources = halves if method.startswith("multi_source") else [whole]
            for warm in (True, False):
                card, out = trained(method, arch, sources, folder, asked, warm)
            network, trunk = Network.of(arch, None, asked.size, small_views=False), find(f"local:{out}").module()
            ends = []
            for of, probe in zip(SETS, probes, strict=True):
                ends.append(show(card, method, arch, of, probe.scores(trunk, network, asked.seed, Watch())))
            if max(low for low, _ in ends) <= 0 or min(high for _, high in ends) < 0:
                missed.append(f"{method} ({arch.partition('(')[0]})")
    print(f"pretraining: {f'missed by {missed}' if missed else 'reached by all'}")
    return 1 if missed else 0


def linked(photos: Path, folder: Path, images: int) -> tuple[Path, ...]:
    """The first photos of every class as three folders of links: all classes, and each half of them."""
    classes = sorted(path for path in photos.iterdir() if path.is_dir())
    parts = {"all": classes, "first": classes[: len(classes) // 2], "second": classes[len(classes) // 2 :]}
    for name, of in parts.items():
        for one in of:
            (folder / name / one.name).mkdir(parents=True)
            for file in sorted(one.iterdir())[:images]:
                (folder / name / one.name / file.name).symlink_to(file)
    return tuple(folder / name for name in parts)


def shuffled(probe: Probe) -> Probe:
    """The same items in any order: the random network's batch norms settle on the first ones, not on one class."""
    order = np.random.default_rng(0).permutation(len(probe.targets))
    return dataclasses.replace(probe, frames=probe.frames[order], targets=probe.targets[order])


def trained(
    method: str, arch: str, sources: Sequence[Path], folder: Path, asked: argparse.Namespace, warm: bool
) -> tuple[dict[str, Any], Path]:
    """The card of a training of so many seconds, and its folder; `warm`: two steps, to fill the caches."""
    out = folder / f"{method}-{arch.partition('(')[0]}{'-warm' if warm else ''}"
    length: dict[str, Any] = {"steps": 2} if warm else {"time": asked.seconds}
    card = verbs.pretrain(*sources, method=method, out=out, arch=arch, size=asked.size, seed=asked.seed, **length)
    return card, out


def show(card: dict[str, Any], method: str, arch: str, of: str, scores: dict[str, Any]) -> tuple[float, float]:
    """Print one line; both ends of the difference's interval, in points."""
    random, after = (100 * scores[side]["accuracy"] for side in ("random", "trained"))
    gain = scores["gain over random"]
    steps, seconds = card["method"]["steps"], card["seconds"]
    print(f"{method:13} {arch.partition('(')[0]:20} {steps:6,} steps {seconds:4.0f} s  {of:21}"
          f"{random:5.1f} -> {after:5.1f} %  {gain}", flush=True)  # fmt: skip
    low, _, high = gain.partition("[")[2].partition("]")[0].partition(", ")
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
