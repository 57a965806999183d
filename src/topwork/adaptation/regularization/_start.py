"""What regularizers remember of the start: the trunk as it was, and the classifier that it was trained with.

    keep_trunk(model)            model.start: a copy in eval mode that does not learn; made once, whoever asks first
    SourceHead.of(name, ...)     z_s = W_s f + b_s (B, Z): one that learns, and one as it began

Both are parts of the model, so that they move with it and are in its checkpoints, until `take_off`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted
from topwork.errors import BadSetting

START = "start"


def add(model: Grafted, name: str, module: nn.Module) -> None:
    """Put a training-time part into the model."""
    if hasattr(model, name):
        raise BadSetting(f"{name} is named twice. Expected every technique once")
    model.add_module(name, module.to(model.head.weight.device))


def take_off(model: Grafted, *names: str) -> None:
    """Remove training-time parts; those that are gone already are gone."""
    for name in names:
        if hasattr(model, name):
            delattr(model, name)


def keep_trunk(model: Grafted) -> None:
    """Remember the trunk as it is now."""
    if not hasattr(model, START):
        model.add_module(START, copy.deepcopy(model.trunk).eval().requires_grad_(False))


def started(model: Grafted) -> nn.Module:
    """The trunk as it was."""
    return model.get_submodule(START)


class SourceHead(nn.Module):
    """The classifier of the source's classes."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """W (D, Z) and b (Z,)."""
        super().__init__()
        D, Z = weight.shape
        self.learns = nn.Linear(D, Z)
        with torch.no_grad():
            self.learns.weight.copy_(weight.T)
            self.learns.bias.copy_(bias)
        self.began = copy.deepcopy(self.learns).requires_grad_(False)

    @classmethod
    def of(cls, name: str, model: Grafted, facts: Facts) -> SourceHead:
        """From the facts; raises BadSetting where no such classifier reads the trunk's features."""
        if facts.source_head is None:
            raise BadSetting(
                f"{name} needs the classifier that the backbone was trained with, and this one came without. Expected "
                "weights with their last layer, such as a local: folder or timm: weights; l2_sp and delta do without"
            )
        weight, bias = (torch.from_numpy(x).float() for x in facts.source_head)
        if not isinstance(model.neck, nn.Identity) or len(weight) != facts.features:
            raise BadSetting(
                f"{name}: the backbone's own classifier reads its {len(weight)} features as they are, and here "
                f"the head reads {model.head.in_features} of other making. Leave out {name} or the layers between"
            )
        return cls(weight, bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, Z) by the one that learns."""
        return self.learns(features)

    @torch.no_grad()
    def at_the_start(self, model: Grafted, views: tuple[Tensor, ...]) -> Tensor:
        """(B, Z): what the network said before the training."""
        return self.began(started(model)(*views)).float()
