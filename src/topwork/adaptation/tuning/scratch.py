"""The same architecture from random weights: what pretraining has to beat.

Weights begin as the architecture's authors begin (a trunk that can say so has `untrained()`); elsewhere every layer's
own `reset_parameters`, convolutions after He et al. (2015), and what a network's `init_weights` sets. Batch statistics
begin anew, and the seed alone decides. To be fair it may learn for longer: as many times the usual number of items as
`LONGER` says, at a rate for training rather than tuning. With enough labels it catches up: He, Girshick & Dollar,
Rethinking ImageNet Pre-training, ICCV 2019.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from topwork.adaptation import Facts
from topwork.adaptation.feed import seed_of
from topwork.adaptation.graft import Grafted
from topwork.adaptation.tuning.full import Full

RESETS = ("reset_parameters", "_reset_parameters")
SPREAD = 0.02  # of tokens, positions and whatever else belongs to no layer


@dataclass(frozen=True, kw_only=True)
class Scratch(Full):
    """All layers, from chance."""

    RATE: ClassVar[float] = 1e-3  # trashnet_small, 20 epochs, 120 items asked: 52.5, 62.5, 57.5 % at 3e-4, 1e-3, 3e-3
    LONGER: ClassVar[float] = 4.0

    head_rate: float = 1.0
    weight_decay: float = 0.05

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Forget everything; then all of it learns."""
        forget(model.trunk, facts.seed)
        super().prepare(model, facts)


def forget(trunk: nn.Module, seed: int) -> None:
    """Random weights in place of what is there; the same for the same seed, and torch's own generator is left alone."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed_of(seed, "scratch"))
        begun: Any = getattr(trunk, "untrained", None)
        state = {} if begun is None else begun().state_dict()
        own = trunk.state_dict()
        if {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in own.items()}:
            trunk.load_state_dict(state)
        else:
            reset(trunk)


def reset(trunk: nn.Module) -> None:
    """Layer by layer, for networks that nobody can build anew; draws from torch's own generator."""
    known: set[nn.Parameter] = set()
    for module in trunk.modules():
        ways = [way for name in RESETS if (way := _free(module, name))]
        if ways:
            ways[0]()
            known |= set(module.parameters(recurse=False))
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in trunk.named_parameters():
        if parameter not in known:
            _plain(name, parameter)
    for module in trunk.modules():
        if way := _free(module, "init_weights"):
            way()


def _plain(name: str, parameter: nn.Parameter) -> None:
    """Of no layer: tokens and positions are small, shifts are zero, scales are one."""
    if parameter.squeeze().ndim > 1 or "token" in name or "pos" in name:
        nn.init.trunc_normal_(parameter, std=SPREAD)
    elif name.endswith(("bias", "beta")):
        nn.init.zeros_(parameter)
    else:
        nn.init.ones_(parameter)


def _free(module: nn.Module, name: str) -> Callable[[], Any] | None:
    """A method of this name that can be called without anything."""
    way: Any = getattr(module, name, None)
    if not callable(way):
        return None
    needed = (p for p in inspect.signature(way).parameters.values() if p.default is p.empty)
    return way if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed) else None
