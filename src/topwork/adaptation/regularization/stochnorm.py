"""Batch norm with moving statistics in some channels, drawn anew at every step.

    y_c = s_c BN(x; moving)_c + (1 - s_c) BN(x; batch)_c        s_c = 1 with probability p, else 0

p = 0 is batch norm; p = 1 normalises with moving statistics as in evaluation, and still updates them. The moving
statistics are those before the batch. A small batch's own statistics are noisy and let a network fit it too closely;
the pretrained moving ones hold it. Parameters and buffers stay where they are: the norms are listened to by hooks, so
that whatever the norm does besides (timm's come with an activation) is part of both branches.

Kou et al., Stochastic Normalization, NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Grafted
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import add, take_off
from topwork.errors import BadSetting

NAME = "stochnorm"
Norm = nn.modules.batchnorm._BatchNorm


class Switch:
    """Chooses a branch for every channel of one norm."""

    def __init__(self, norm: Norm) -> None:
        self.channels = norm.num_features
        self.moving: Tensor | None = None  # (C,) bool: s of this step
        self._past: dict[str, Tensor] | None = None
        self.handles = (norm.register_forward_pre_hook(self.before), norm.register_forward_hook(self.after))

    def before(self, norm: nn.Module, args: Any) -> None:
        """Put the moving statistics aside: the norm is about to update them in place."""
        self._past = {name: buffer.clone() for name, buffer in norm.named_buffers()} if norm.training else None

    def after(self, norm: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        """(B, C, ...) of both branches."""
        past, self._past = self._past, None
        if past is None or self.moving is None:
            return None
        norm.training = False
        try:
            settled = functional_call(norm, past, args)
        finally:
            norm.training = True
        return torch.where(self.moving.to(out.device).view(1, -1, *[1] * (out.ndim - 2)), settled, out)


class Switches(nn.Module):
    """Those of all norms that learn."""

    def __init__(self, norms: list[Norm]) -> None:
        super().__init__()
        self.all = [Switch(norm) for norm in norms]


@dataclass(frozen=True)
class Stochnorm(Technique):
    """Two branches in every batch norm that is trained."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    p: float = 0.5  # share of the channels with moving statistics

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.share("p", self.p)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Listen to the norms."""
        mode = model.training
        model.train()
        norms = [m for m in model.modules() if isinstance(m, Norm) and m.training and m.running_mean is not None]
        model.train(mode)
        if not norms:
            raise BadSetting(
                "stochnorm: no batch norm is trained here. It suits networks with batch norm, such as resnets and "
                'mobilenets, without norms="frozen"; for others take l2_sp or bss'
            )
        add(model, NAME, Switches(norms))

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch as it is; its generator chooses the branches."""
        for switch in cast(Switches, model.get_submodule(NAME)).all:
            switch.moving = torch.rand(switch.channels, generator=batch.generator) < self.p
        return batch

    def finish(self, model: Grafted) -> None:
        """Leave the norms alone."""
        for switch in cast(Switches, model.get_submodule(NAME)).all:
            for handle in switch.handles:
                handle.remove()
        take_off(model, NAME)
