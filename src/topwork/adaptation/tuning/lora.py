"""Every weight stays, and a matrix of low rank is learnt beside it; at the end it is added to the weight.

    W' = W + alpha / r  B A          W (O, I'): the kernel, flattened behind its outputs      A (r, I'), B (O, r)

A is drawn, B begins at zero, so that the network begins as it was. For a convolution I' = I/g kh kw: A is a
convolution to r channels, B one of 1 x 1; so no gradient of a whole kernel is ever computed. `finish` adds the product
to W in place: what is shipped has the layers, the names and the speed of the original.

Depthwise convolutions are left out: their flattened kernel has but kh kw columns, and a matrix of rank 8 beside 9
columns is no smaller than the kernel itself. Norms, biases and batch statistics stay as they are. Hu et al., LoRA:
Low-Rank Adaptation of Large Language Models, ICLR 2022. The matrices want about ten times the rate of full tuning:
Schulman, LoRA Without Regret, 2025.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted, Scope
from topwork.adaptation.layers import drawing
from topwork.errors import BadSetting, UnknownName


class LowRank(nn.Module):
    """A frozen Linear or Conv2d with a learnt matrix of low rank beside its weight."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float, draw: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = layer.weight.flatten(1).shape  # O, I'
        rank = min(rank, outputs, inputs)
        self.layer, self.scale = layer, alpha / rank
        start = nn.init.uniform_(torch.empty(rank, inputs), -(inputs**-0.5), inputs**-0.5, generator=draw)
        self.A = nn.Parameter(start.to(layer.weight))
        self.B = nn.Parameter(layer.weight.new_zeros(outputs, rank))

    @property
    def delta(self) -> Tensor:
        """What is added, in the shape of the weight."""
        return (self.scale * self.B @ self.A).reshape(self.layer.weight.shape)

    @property
    def weight(self) -> Tensor:
        """W', for networks that do not call the layer but take its weight (torch's attention)."""
        return self.layer.weight + self.delta

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """What the layer with W' would give."""
        layer = self.layer
        if type(layer) is nn.Linear:
            return layer(x) + self.scale * F.linear(F.linear(x, self.A), self.B)
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            kernel = self.A.view(-1, *layer.weight.shape[1:]).repeat(layer.groups, 1, 1, 1)  # (g r, I/g, kh, kw)
            low = F.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)
            return layer(x) + self.scale * F.conv2d(low, self.B[:, :, None, None], groups=layer.groups)
        return functional_call(layer, {"weight": self.weight}, (x,))  # pads or scales in its own way

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The layer itself, W' in place of W."""
        self.layer.weight.add_(self.delta)
        return self.layer


@dataclass(frozen=True)
class Lora(Scope):
    """Low-rank matrices and the head."""

    RATE: ClassVar[float] = 1e-4

    rank: int = 8  # r; higher: more can change, slower
    alpha: float = field(default=16.0, kw_only=True)
    targets: str | tuple[str, ...] = field(default=(), kw_only=True)  # regexes of layers' names; (): all that can
    low_rank_rate: float = field(default=10.0, kw_only=True)  # multiple of the trunk's rate

    def check(self) -> list[str]:
        """What is wrong with the options."""
        problems = super().check()
        if type(self.rank) is not int or self.rank < 1:
            problems.append(f"rank={self.rank!r}")
        for name in ("alpha", "low_rank_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                problems.append(f"{name}={getattr(self, name)!r}")
        return problems + [f"targets={pattern!r}" for pattern in self.patterns if not _is_regex(pattern)]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The targets, always several."""
        return (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Freeze the trunk, and put a matrix beside every target."""
        super().prepare(model, facts)
        model.trunk.requires_grad_(False)
        wrapped: dict[nn.Module, LowRank] = {}  # a layer may have several names
        for name, layer in self.chosen(model.trunk).items():
            if layer not in wrapped:
                wrapped[layer] = LowRank(layer, self.rank, self.alpha, drawing(facts.seed, "lora", name))
            model.trunk.set_submodule(name, wrapped[layer])

    def chosen(self, trunk: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
        """The targets by name; raises BadSetting where there are none."""
        able = {
            name: layer
            for name, layer in trunk.named_modules(remove_duplicate=False)
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and not _is_depthwise(layer))
        }
        if not able:
            raise BadSetting("lora: the trunk has neither Linear layers nor dense convolutions. Try bitfit or full")
        for pattern in self.patterns:
            if not any(re.search(pattern, name) for name in able):
                raise UnknownName.among(pattern, "what lora can change (Linear, Conv2d that is not depthwise)", able)
        if not self.patterns:
            return able
        return {name: layer for name, layer in able.items() if any(re.search(p, name) for p in self.patterns)}

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """That of the matrices, and the head's."""
        return {"trunk.": self.low_rank_rate, **super().rates(model)}

    def finish(self, model: Grafted) -> None:
        """Every layer back at its place, the matrix added to its weight."""
        merged: dict[LowRank, nn.Module] = {}
        for name, module in list(model.trunk.named_modules(remove_duplicate=False)):
            if isinstance(module, LowRank):
                if module not in merged:
                    merged[module] = module.merged()
                model.trunk.set_submodule(name, merged[module])


def _is_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups > 1 and layer.weight.shape[1] == 1


def _is_regex(pattern: object) -> bool:
    try:
        return isinstance(pattern, str) and bool(pattern) and bool(re.compile(pattern))
    except re.error:
        return False
