"""Cross-entropy with smoothed labels.

    L = -1/B sum_i sum_c q_ic log p_ic        q_ic = (1 - s) y_ic + s / C        p = softmax(z)

y (B, C): shares of an item, 1 for its class. s = 0 is what every tuning has without a loss of its own. Several labels:
binary cross-entropy, mean over items and labels, each label two classes by itself: q = (1 - s) y + s / 2.

Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (s 0.1).
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
class CrossEntropy(Technique):
    """The logarithm of the probability of what is true."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    smoothing: float = 0.1  # s; 0: none

    def __post_init__(self) -> None:
        check = Check("cross_entropy")
        check.share("smoothing", self.smoothing)
        check.done()

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        s = self.smoothing
        if batch.multilabel:
            return F.binary_cross_entropy_with_logits(answer.logits, (1 - s) * batch.targets + s / 2)
        return F.cross_entropy(answer.logits, batch.targets, label_smoothing=s)
