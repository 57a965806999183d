"""Fresh layers by name, from a literal table, and a look at what a trunk makes of an image.

    linear(D, H, draw)          W, b ~ U(-1/sqrt(D), 1/sqrt(D)): torch's own start, from a generator of ours
    mlp((D, H, C), draw, ...)   Linear, activation, dropout, and so on; the last one is a Linear

Every number is drawn from `draw`, so that a fresh layer depends on the seed of the training and on nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from topwork.adaptation import Facts
from topwork.adaptation.feed import seed_of

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def drawing(*parts: object) -> torch.Generator:
    """A generator for what these parts name."""
    return torch.Generator().manual_seed(seed_of(*parts))


def linear(inputs: int, outputs: int, draw: torch.Generator) -> nn.Linear:
    """(.., D) -> (.., H)."""
    layer = nn.Linear(inputs, outputs)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=draw)
    return layer


def mlp(
    widths: Sequence[int], draw: torch.Generator, activation: str = "gelu", dropout: float = 0.0
) -> tuple[nn.Module, ...]:
    """Layers from the first width to the last, an activation after all but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        if layers:
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(linear(inputs, outputs, draw))
    return tuple(layers)


def is_norm(module: nn.Module) -> bool:
    """Whether it is one of the many normalisations, torch's or a library's own."""
    return any("norm" in kind.__name__.lower() for kind in type(module).__mro__) and not any(module.children())


def two_items(facts: Facts, device: torch.device) -> tuple[Tensor, ...]:
    """What a trunk can be tried with: two black images, or two texts."""
    if facts.example is not None:
        return tuple(x.to(device) for x in facts.example)
    return (torch.zeros(2, 3, facts.size_px, facts.size_px, device=device),)


@contextlib.contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """No gradient, nothing moves: every module in eval mode, and afterwards back in its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
