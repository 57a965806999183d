"""A small bottleneck after every stage learns, the trunk stands still; the bottlenecks stay.

    h' = h + W_up a(W_down h)          h: what a stage gives      W_down (m, C), W_up (C, m): 1 x 1, at every place

W_up begins at zero, so that the network begins as it was. As in both papers the scales and shifts of the trunk's norms
learn along (`scales`). Because of a, adapters cannot be merged into the layers before them: they are part of what is
shipped. Names of the trunk's own parameters stay as they were; an adapter's are those of its layer and `.adapter`.

Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019; for convolutions Rebuffi et al., Learning
multiple visual domains with residual adapters, NeurIPS 2017. Theirs sit in every block, ours behind every stage, and
have no norms of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted, Scope
from topwork.adaptation.layers import ACTIVATIONS, drawing, is_norm, looking, two_items
from topwork.errors import BadSetting

PLACE = "adapter"  # its name in the layer that it follows


class Adapter(nn.Module):
    """A bottleneck around which the features pass unchanged: over channels at dim 1 of maps, else over the last dim."""

    def __init__(self, channels: int, bottleneck: int, activation: str, maps: bool, draw: torch.Generator) -> None:
        super().__init__()
        make = (lambda i, o: nn.Conv2d(i, o, 1)) if maps else nn.Linear
        self.down, self.act, self.up = make(channels, bottleneck), ACTIVATIONS[activation](), make(bottleneck, channels)
        with torch.no_grad():
            for start in self.down.parameters():
                start.uniform_(-(channels**-0.5), channels**-0.5, generator=draw)
            for start in self.up.parameters():
                start.zero_()

    def forward(self, h: Tensor) -> Tensor:
        """The shape of h."""
        return h + self.up(self.act(self.down(h)))


def through(layer: nn.Module, _: Any, h: Tensor) -> Tensor:
    """Forward hook: what the layer gives goes through its adapter. A plain function, so that copies use their own."""
    return getattr(layer, PLACE)(h)


@dataclass(frozen=True)
class Adapters(Scope):
    """Bottlenecks, norms' scales and shifts, and the head."""

    RATE: ClassVar[float] = 3e-4

    bottleneck: int = 64  # m; at most the channels of the stage
    activation: str = field(default="gelu", kw_only=True)
    adapter_rate: float = field(default=10.0, kw_only=True)  # multiple of the trunk's rate
    scales: bool = field(default=True, kw_only=True)  # norms' scales and shifts learn, too

    def check(self) -> list[str]:
        """What is wrong with the options."""
        problems = super().check()
        if type(self.bottleneck) is not int or self.bottleneck < 1:
            problems.append(f"bottleneck={self.bottleneck!r}")
        if self.activation not in ACTIVATIONS:
            problems.append(f"activation={self.activation!r} (one of {', '.join(ACTIVATIONS)})")
        if not 0 < self.adapter_rate < float("inf"):
            problems.append(f"adapter_rate={self.adapter_rate!r}")
        return problems

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Freeze the trunk, and put an adapter behind every stage."""
        super().prepare(model, facts)
        model.trunk.requires_grad_(False)
        if self.scales:
            for module in filter(is_norm, model.trunk.modules()):
                module.requires_grad_(True)
        given = shapes(model, facts)
        if not given:
            raise BadSetting("adapters: no stage of the trunk gives features of every image. Try lora or bitfit")
        for name, shape in given.items():
            maps = len(shape) == 4 and not shape[1] == shape[2] != shape[3]  # (B, C, H, W), not (B, H, W, C)
            C = shape[1] if maps else shape[-1]
            draw = drawing(facts.seed, "adapters", name)
            layer = model.trunk.get_submodule(name)
            adapter = Adapter(C, min(self.bottleneck, C), self.activation, maps, draw)
            layer.add_module(PLACE, adapter.to(next(layer.parameters()).device))
            layer.register_forward_hook(through)

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """The adapters', and the head's."""
        names = [name for name, module in model.named_modules() if isinstance(module, Adapter)]
        return {**{f"{name}.": self.adapter_rate for name in names}, **super().rates(model)}


def shapes(model: Grafted, facts: Facts) -> dict[str, tuple[int, ...]]:
    """What the last layer with weights of every stage gives for two images; only what is called and gives a tensor."""
    found: dict[str, tuple[int, ...]] = {}
    handles = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            if isinstance(out, Tensor) and 2 <= out.ndim <= 4 and len(out) == 2:
                found[name] = tuple(out.shape)

        return hook

    for stage in model.stages:
        heavy = [n for n in stage if any(True for _ in model.trunk.get_submodule(n).parameters())]
        if heavy:
            handles.append(model.trunk.get_submodule(heavy[-1]).register_forward_hook(note(heavy[-1])))
    try:
        with looking(model):
            model.trunk(*two_items(facts, next(model.trunk.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found
