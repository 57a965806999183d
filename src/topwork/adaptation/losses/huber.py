"""Huber's loss: squared error of what is nearly right, absolute error of what is far off.

    L = 1/B sum_i h(z_i - y_i)        h(e) = e^2 / 2  where |e| <= delta,  delta (|e| - delta / 2)  elsewhere

y: standard deviations from the mean of the training items. A few wrong numbers, or a long tail, pull less than they do
on the squared error. Huber, Robust Estimation of a Location Parameter, Ann. Math. Statist. 1964.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.options import Check


@dataclass(frozen=True)
class Huber(Technique):
    """Squared near the truth, absolute far from it."""

    goals: ClassVar[tuple[str, ...]] = ("numbers",)

    delta: float = 1.0  # standard deviations

    def __post_init__(self) -> None:
        check = Check("huber")
        check.number("delta", self.delta, above=0)
        check.done()

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        return F.huber_loss(answer.logits[:, 0].float(), batch.targets, delta=self.delta)
