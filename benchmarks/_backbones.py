"""Eleven backbones to choose from: real weights, cut networks, other input sizes, random weights, raw pixels.

    bundled, pixels                                  in the package
    mobilenetv2_100, squeezenet1_0, mobilenetv1_025  ImageNet classifiers of ../shared/weights
    mobilefacenet                                    face embedding, ONNX
    mobilenetv2 at 128                               the same weights on fewer pixels
    mobilenetv2 + grids                              and means over cells of two earlier stages
    mobilenetv2 to stage 2, to stage 4               its first blocks alone, means of their maps
    random mobilenetv3                               no pretraining at all

The four at 224 px that share their weights share one pass: a candidate is a backbone and what is read from its columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from _shared import SHARED
from numpy.typing import NDArray

from topwork.backbones import find
from topwork.backbones.torch_backbone import TorchBackbone
from topwork.shortlist import PERCENT_PER_DECADE, TYPICAL
from topwork.types import Backbone, Card, Preprocess

if TYPE_CHECKING:
    from torch import nn

POOLED, EARLY, MIDDLE, LAST = 1280, 32, 96, 320  # channels of MobileNetV2: pooled, stages 2, 3 and 4
GRIDS = {2: 4, 3: 2, 4: 1}  # cells a side
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A backbone, the columns that are its features here, and what people would choose it by."""

    backbone: Backbone
    columns: Callable[[Array], Array] = lambda x: x
    parameters: int = 0
    imagenet: float | None = None  # top-1 on a sample of 1,000 images (../shared/weights/*/card.json)
    source: int = 0  # the first so many columns of the backbone's features are what its own classifier reads
    classifier: Backbone | None = None  # whose classifier that is, where it is not the backbone's own
    share: float = 1.0  # of the pass that it needs, where a pass serves several
    prior: float | None = None  # what would be guessed of its ImageNet top-1


def candidates() -> dict[str, Candidate]:
    """Name -> candidate."""
    v2, v1, squeeze = (
        find(f"local:{SHARED}/weights/{name}") for name in ("mobilenetv2_100", "mobilenetv1_025", "squeezenet1_0")
    )
    family = _with_grids(v2)
    grids = POOLED + EARLY * GRIDS[2] ** 2 + MIDDLE * GRIDS[3] ** 2
    return {
        "bundled": Candidate(find("bundled"), parameters=1_517_856),
        "pixels": Candidate(find("bundled:pixels")),
        "mobilenetv1_025": Candidate(v1, parameters=470_072, imagenet=52.0, source=256),
        "squeezenet1_0": Candidate(squeeze, parameters=1_248_424, imagenet=61.2),
        "mobilefacenet": Candidate(_faces(), parameters=999_936),
        "mobilenetv2 at 128": Candidate(_smaller(v2, 128), parameters=3_504_872, source=POOLED, classifier=v2),
        "mobilenetv2_100": Candidate(
            family, lambda x: x[:, :POOLED], 3_504_872, 89.4, source=POOLED, classifier=v2, prior=_prior(300e6)
        ),
        "mobilenetv2 + grids": Candidate(family, lambda x: x[:, :grids], 3_504_872, prior=_prior(300e6)),
        "mobilenetv2 to stage 2": Candidate(family, _mean_of_cells, 20_000, share=0.4, prior=_prior(100e6)),
        "mobilenetv2 to stage 4": Candidate(family, lambda x: x[:, -LAST:], 1_800_000, share=0.9, prior=_prior(270e6)),
        "random mobilenetv3": Candidate(_random("mobilenetv3_small_100"), parameters=1_517_856),
    }


def _prior(adds: float) -> float:
    return TYPICAL[0] + PERCENT_PER_DECADE * math.log10(adds / TYPICAL[1])


def _mean_of_cells(x: Array) -> Array:
    cells = GRIDS[2] ** 2
    return x[:, POOLED : POOLED + EARLY * cells].reshape(len(x), EARLY, cells).mean(axis=2)


def _smaller(whole: Backbone, side_px: int) -> Backbone:
    preprocess = dataclasses.replace(whole.card.preprocess, resize_px=round(side_px / 0.875), crop_px=side_px)
    name = f"{whole.card.name} at {side_px}"
    return TorchBackbone(dataclasses.replace(whole.card, spec=name, name=name, preprocess=preprocess), whole.module)


def _with_grids(whole: Backbone) -> Backbone:
    name = f"{whole.card.name} with grids {GRIDS}"
    card = dataclasses.replace(
        whole.card, spec=name, name=name, architecture=f"{whole.card.architecture} grids {GRIDS}", features=None
    )

    def build() -> nn.Module:
        trunk: Any = whole.module()
        trunk.grids = GRIDS
        return trunk

    return TorchBackbone(card, build)


def _random(name: str) -> Backbone:
    preprocess = Preprocess(146, 128, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    card = Card(f"random {name}", f"random {name}", f"random {name}", preprocess, weights="seed 0")

    def build() -> nn.Module:
        import timm
        import torch

        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, num_classes=0)

    return TorchBackbone(card, build)


def _faces() -> Backbone:
    file = SHARED / "weights" / "mobilefacenet" / "mobilefacenet.onnx"
    return find(f"onnx:{file}(output='embedding', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=112)")
