"""The network that is trained: an architecture of timm told its input size, and what it begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from topwork import plugins
from topwork.adaptation.feed import HALF, seed_of
from topwork.backbones import find
from topwork.backbones.architecture import Architecture, parse
from topwork.backbones.trunk import TimmTrunk, build, fill
from topwork.errors import BadSetting, BadWeights, UnknownName
from topwork.types import Card, Preprocess

# 2.1 million parameters. After a minute on one core its frozen features are up to 5 points above random ones on digits,
# hand signs and flowers; those of mobilenetv3_small_050 fall up to 28 below.
ARCHITECTURE = "resnet10t(channels=[24,48,128,384],stem_width=16)"
RESIZE = 8 / 7  # shorter side before the centre crop, of the crop


@dataclass(frozen=True, eq=False)
class Network:
    """The architecture, and what it begins with."""

    architecture: Architecture
    options: Mapping[str, Any]  # that training needs beside those of the card: views of several sizes
    preprocess: Preprocess
    start: Card | None
    state: Mapping[str, torch.Tensor] | None  # weights to begin with

    @classmethod
    def of(cls, arch: str | None, begin_with: str | None, size_px: int, small_views: bool) -> Network:
        """From a name of timm, perhaps with options, or from the backbone to begin with."""
        start, state = None, None
        spec = arch or ARCHITECTURE
        preprocess = Preprocess(round(size_px * RESIZE), size_px, HALF, HALF)
        if begin_with:
            backbone = find(begin_with)
            start, module = backbone.card, backbone.module()
            if not isinstance(module, TimmTrunk) or module.grids:
                raise BadSetting(
                    f"--start {begin_with}: only plain timm networks can be trained on, not {start.architecture}"
                )
            state = module.network.state_dict()
            known = parse(_call(start.architecture), begin_with)
            spec = arch or _spec(known)
            p = start.preprocess
            preprocess = dataclasses.replace(preprocess, mean=p.mean, std=p.std, interpolation=p.interpolation)
        name, options = plugins.parse(spec)
        _check_known(name)
        options = {k: v for k, v in options.items() if k not in ("num_classes", "pretrained")}
        found = _fitting(name, options, size_px, small_views)
        return cls(*found, preprocess, start, state)

    @property
    def call(self) -> str:
        """What the card says."""
        options = "".join(f", {k}={v!r}" for k, v in sorted(self.architecture.options.items()))
        return f"timm.create_model('{self.architecture.name}'{options})"

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of the pixels."""
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Of the pixels."""
        return self.preprocess.std

    def trunk(self, seed: int, begun: bool = True) -> nn.Module:
        """The network at its start, or (`begun` False) at random; the same for the same seed."""
        torch.manual_seed(seed_of(seed, "network"))
        options = {**self.architecture.options, **self.options}
        trunk = build(Architecture("timm", self.architecture.name, options), lambda _: None)
        if begun and self.state is not None:
            fill(trunk.network, self.state, f"--start {self.start.spec if self.start else ''}")  # type: ignore[arg-type]
        return trunk


def _check_known(name: str) -> None:
    import timm

    if name not in timm.list_models():
        raise UnknownName.among(name, f"the architectures of timm {timm.__version__}", timm.list_models())


def _fitting(
    name: str, options: Mapping[str, Any], size_px: int, local: bool
) -> tuple[Architecture, Mapping[str, Any]]:
    """The architecture, told its input size where it must be, and what it needs for small views."""
    sides = (size_px, size_px // 2) if local else (size_px,)
    tries = (({}, {}), ({"img_size": size_px}, {}), ({"img_size": size_px}, {"dynamic_img_size": True}))
    reasons = []
    for more, only in tries:
        architecture = Architecture("timm", name, {**options, "num_classes": 0, **more})
        try:
            trunk = build(Architecture("timm", name, {**architecture.options, **only}), lambda _: None)
            with torch.no_grad():
                for side in sides:
                    trunk(torch.zeros(2, 3, side, side))
            return architecture, only
        except (BadWeights, RuntimeError, AssertionError, TypeError, ValueError) as error:
            reasons.append(" ".join(str(error).split())[:200])
    raise BadSetting(
        f"{name} does not take images of {' and '.join(map(str, sides))} px: {reasons[0]}. Choose another --size"
    )


def _call(architecture: str) -> str:
    """timm:NAME(options) of a card as a call."""
    name, _, options = architecture.removeprefix("timm:").partition("(")
    return f"timm.create_model('{name}', {options}" if options and options != ")" else f"timm.create_model('{name}')"


def _spec(architecture: Architecture) -> str:
    return (
        f"{architecture.name}({', '.join(f'{k}={v!r}' for k, v in architecture.options.items() if k != 'num_classes')})"
    )
