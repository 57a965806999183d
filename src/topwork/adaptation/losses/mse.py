"""Squared error of numbers.

    L = 1/B sum_i (z_i - y_i)^2        y: standard deviations from the mean of the training items

What every tuning has without a loss of its own where targets are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Technique
from topwork.adaptation.graft import Answer, Grafted


@dataclass(frozen=True)
class Mse(Technique):
    """Mean squared error."""

    goals: ClassVar[tuple[str, ...]] = ("numbers",)

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        return F.mse_loss(answer.logits[:, 0].float(), batch.targets)
