"""Learn to tell the classes of one labelled set: cross-entropy on a linear head that is thrown away afterwards.

    L = -1/B sum_i sum_c q_ic log softmax(h(z_i))_c        q_ic = (1 - s) [c = y_i] + s / C

z (B, D): trunk's features of a view; h: a linear head on the C classes; s: label smoothing. Items without a label do
not count. Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (label smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.errors import BadSetting


class Classifier(nn.Module):
    """A trunk and a head."""

    def __init__(self, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C)."""
        return self.head(self.trunk(images))


@dataclass(frozen=True)
class Supervised(Method):
    """Cross-entropy."""

    smoothing: float = 0.1  # s; 0 is none

    needs_labels = True

    def __post_init__(self) -> None:
        check = Check("supervised")
        check.share("smoothing", self.smoothing)
        check.done()

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """Trunk and head."""
        if len(facts.classes) != 1:
            raise BadSetting(
                f"supervised learns from one labelled set, and here are {len(facts.classes)}. "
                "multi_source learns from several"
            )
        return Classifier(trunk, nn.Linear(facts.features, facts.classes[0]))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The mean over the labelled items of the batch."""
        logits = cast(Classifier, model)(batch.views[0])  # (B, C)
        labelled = (batch.targets >= 0).sum().clamp(min=1)
        return {"cross_entropy": summed(logits, batch.targets, self.smoothing) / labelled}


def summed(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Sum of the cross-entropies of the items that have a label; 0, with a gradient of 0, where there is none."""
    return F.cross_entropy(logits, targets, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
