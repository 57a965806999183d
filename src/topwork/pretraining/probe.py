"""What pretraining was good for: a probe on labelled images that were not learnt from, trained against random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from topwork import plugins, settings
from topwork.data.split.kfold import folds
from topwork.errors import BadData, BadSetting
from topwork.evaluation.intervals import wilson
from topwork.evaluation.paired import compare_hits
from topwork.features.frames import frames
from topwork.pretraining.material import Material, gather
from topwork.pretraining.network import RESIZE, Network
from topwork.types import Watch

DIGITS = "digits of scikit-learn (1,797 grey pictures of 8 x 8 px)"


@dataclass(frozen=True, eq=False)
class Probe:
    """A labelled set that is not learnt from, to ask what pretraining was good for."""

    name: str
    frames: NDArray[np.uint8]  # (N, S, S, 3)
    targets: NDArray[np.int32]

    @classmethod
    def of(cls, uri: str | None, material: Material, size_px: int, watch: Watch) -> Probe:
        """The set of --probe, or the digits that scikit-learn brings along."""
        if uri is None:
            from sklearn.datasets import load_digits

            images, targets = load_digits(return_X_y=True)
            grey = torch.from_numpy(images).float().view(-1, 1, 8, 8) * (255 / 16)
            big = F.interpolate(grey, size=(size_px, size_px), mode="bilinear").round().byte()
            return cls(DIGITS, big.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy(), np.asarray(targets, np.int32))
        labelled, _ = gather((uri,), needs_labels=True)
        part = labelled.parts[0]
        if part.contents is None:
            raise BadSetting(f"--probe {uri} draws its images; a probe needs files")
        if both := len(labelled.contents() & material.contents()):
            raise BadSetting(
                f"--probe {uri} shares {both:,} images with what is learnt from, so it would flatter. Choose another"
            )
        resize_px = round(size_px * RESIZE)
        found = frames(part.dataset, part.contents, resize_px, settings.threads().value, watch.progress)
        rows = np.flatnonzero(found.index >= 0)
        edge = (resize_px - size_px) // 2
        pixels = found(rows)[:, edge : edge + size_px, edge : edge + size_px]
        targets = np.unique(part.dataset.targets()[rows], return_inverse=True)[1].astype(np.int32)
        if len(targets) < 10 or np.bincount(targets).min() < 2:
            raise BadData(f"--probe {uri}: expected at least ten readable items, and two of every label")
        return cls(part.dataset.name, pixels, targets)

    def scores(self, trunk: nn.Module, network: Network, seed: int, watch: Watch) -> dict[str, Any]:
        """Accuracy of a cross-validated ridge probe on frozen features, after, before and at random, with intervals."""
        sides = {"random": network.trunk(seed, begun=False), "trained": trunk}
        if network.state is not None:
            sides["start"] = network.trunk(seed)
        _settle(sides["random"], self._images(slice(0, 256), network))
        right = {}
        for done, (name, side) in enumerate(sides.items()):
            watch.progress("probe", done, len(sides))
            right[name] = self._right(side, network)
        watch.progress("probe", len(sides), len(sides))
        told: dict[str, Any] = {"probe": f"ridge, 5-fold cross-validated, on {self.name}", "n": len(self.targets)}
        for name, hits in right.items():
            low, high = wilson(int(hits.sum()), len(hits))
            told[name] = {"accuracy": float(hits.mean()), "low": float(low), "high": float(high)}
        for name in right.keys() - {"trained"}:
            told[f"gain over {name}"] = compare_hits(right[name], right["trained"]).over(name)
        watch.say(f"probe on {self.name}: {right['trained'].mean():.1%}, {told['gain over random']}")
        return told

    def _right(self, trunk: nn.Module, network: Network) -> NDArray[np.bool_]:
        """(N,) whether each item was named rightly by a probe that had not seen it."""
        with torch.no_grad():
            x = [trunk.eval()(self._images(slice(at, at + 64), network)) for at in range(0, len(self.targets), 64)]
        classes = int(self.targets.max()) + 1
        of = folds(self.targets, None, 5, 0)
        solved = plugins.make("adaptation.probe", "ridge").solve(torch.cat(x).numpy(), self.targets, of, classes)
        return solved.held_out.argmax(1) == self.targets

    def _images(self, rows: slice, network: Network) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self.frames[rows])).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.mean, network.std))
        return (pixels - mean) / std


def _settle(trunk: nn.Module, images: torch.Tensor) -> None:
    """Let batch norms see images: a random network with statistics of nothing would be worse than it need be."""
    with torch.no_grad():
        for _ in range(20):
            trunk.train()(images[:64])
