"""A trunk with a small perceptron on top, as contrastive objectives train it.

    z = W_k a(norm(W_{k-1} ... a(norm(W_1 trunk(x)))))        x (B, 3, S, S) -> trunk(x) (B, D) -> z (B, widths[-1])

The last layer is linear; hidden layers are normalised over the batch, or not at all. After the training the perceptron
is thrown away: what it forgets is what the trunk should keep (Chen et al., A Simple Framework for Contrastive Learning
of Visual Representations, ICML 2020, section 4.2).

Weights are drawn from a generator of their own, U(-1/sqrt(D), 1/sqrt(D)) as torch does, so that a seed decides them
whatever was drawn before. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Projected(nn.Module):
    """`trunk` and `projector`, one after the other."""

    def __init__(self, trunk: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.projector = projector

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, widths[-1])."""
        return self.projector(self.trunk(images))


def projector(
    widths: Sequence[int], seed: int, activation: Callable[[], nn.Module] = nn.ReLU, batch_norm: bool = True
) -> nn.Sequential:
    """A perceptron of `widths` (inputs, hidden ..., outputs), its weights drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(linear(inputs, outputs, generator, bias=not batch_norm))  # a norm has its own bias
        layers += [nn.BatchNorm1d(outputs), activation()] if batch_norm else [activation()]
    return nn.Sequential(*layers, linear(widths[-2], widths[-1], generator))


def linear(inputs: int, outputs: int, generator: torch.Generator, bias: bool = True) -> nn.Linear:
    """A layer whose weights come from `generator`; torch's own draws are left alone."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[assignment]
    for weight in layer.parameters():
        nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
