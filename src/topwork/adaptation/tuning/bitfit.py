"""Only biases learn, the shifts of norms among them, and the head.

    y = W x + b        g * (x - m) / s + b        W, g, m, s stand still, b learns

About one parameter in a hundred, and no gradient of any kernel; the rate is ten times that of full tuning or more.
Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models, ACL 2022.
Norms of transformers remember no batches; ours, where they do, keep their statistics unless norms="train".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted, Scope
from topwork.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class Bitfit(Scope):
    """Biases and the head."""

    RATE: ClassVar[float] = 3e-4

    bias_rate: float = 10.0  # multiple of the trunk's rate
    norms: str = "frozen"

    def check(self) -> list[str]:
        """What is wrong with the options."""
        good = 0 < self.bias_rate < float("inf")
        return super().check() + ([] if good else [f"bias_rate={self.bias_rate!r}"])

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Freeze all of the trunk but its biases."""
        super().prepare(model, facts)
        for name, parameter in model.trunk.named_parameters():
            parameter.requires_grad_(is_bias(name, parameter))
        if not any(parameter.requires_grad for parameter in model.trunk.parameters()):
            raise BadSetting("bitfit: the trunk has no biases. Try lora or adapters")

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """The biases', and the head's."""
        return {"trunk.": self.bias_rate, **super().rates(model)}


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Whether its name says so (bias, in_proj_bias, q_bias), and it is one number per channel."""
    return name.endswith("bias") and parameter.numel() == max(parameter.shape)
