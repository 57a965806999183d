"""Everything that shapes a training, apart from its methods and its data; and the optimiser that it asks for.

Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (AdamW).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from topwork.errors import BadSetting


@dataclass(frozen=True)
class Plan:
    """Everything that shapes a training, apart from its methods and its data."""

    steps: int
    batch: int = 64  # items per step, all processes together
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = 1e-3  # peak learning rate
    weight_decay: float = 0.05  # not for biases and norms
    momentum: float = 0.9  # of sgd
    warmup: float = 0.05  # share of the steps
    clip: float = 3.0  # largest norm of the gradient
    parts: int = 1  # a batch is worked on in so many parts: less memory, the same step
    ema: float = 0.999  # of the weights that are handed back; 0: the last ones
    precision: Literal["no", "bf16"] = "no"
    device: str = "cpu"  # or what torch calls its accelerator
    seed: int = 0


def optimizer_of(
    model: nn.Module, plan: Plan, multiples: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of what can learn; biases, norms and other 1-d parameters do not decay."""
    learning = [(p, (multiples or {}).get(p, 1.0)) for p in model.parameters() if p.requires_grad]
    if not learning:
        raise BadSetting("Nothing is left that could learn. Choose fewer frozen layers")
    groups = [
        {"params": chosen, "weight_decay": plan.weight_decay if decays else 0.0, "multiple": multiple}
        for multiple in sorted({m for _, m in learning})
        for decays in (True, False)
        if (chosen := [p for p, m in learning if m == multiple and (p.ndim > 1) == decays])
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=plan.rate)
