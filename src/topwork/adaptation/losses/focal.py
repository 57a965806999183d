"""Focal loss: what the model is sure of already counts less.

    L = -1/B sum_i sum_c w_c y_ic (1 - p_ic)^gamma log p_ic                      one class: p = softmax(z)
    L = -1/BC sum_ic a y (1 - p)^gamma log p + (1 - a) (1 - y) p^gamma log(1 - p)        several labels: p = sigmoid(z)

y (B, C): shares of an item, 1 for its class. gamma = 0 is cross-entropy. `alpha` balances: for several labels it is a,
the weight of labels that are there (0.25 in the paper; None: no weights, that is 1 for both). For one class it is
"counts": w_c = N / (C n_c), as rare classes are to count as much as frequent ones; the paper offers either.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017. The paper has the binary form, and divides by the number
of objects; the mean over all items and labels is taken here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.losses._targets import counts, shares
from topwork.adaptation.options import Check
from topwork.errors import BadSetting

WEIGHTS = "focal_weights"
TINY = 1e-12


@dataclass(frozen=True)
class Focal(Technique):
    """Cross-entropy of the hard items."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    gamma: float = 2.0
    alpha: float | str | None = None  # several labels: weight of those that are there; one class: "counts"

    def __post_init__(self) -> None:
        check = Check("focal")
        check.number("gamma", self.gamma, above=-1e-12)
        if self.alpha is not None and self.alpha != "counts":
            check.number("alpha", self.alpha, above=0, below=1)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the classes' weights."""
        if isinstance(self.alpha, float) and not facts.multilabel:
            raise BadSetting(
                f'focal(alpha={self.alpha:g}) weighs labels; items have one class. Expected alpha="counts"'
            )
        if self.alpha == "counts":
            if facts.multilabel:
                raise BadSetting('focal(alpha="counts") weighs classes; items have several labels. Expected alpha=0.25')
            n = counts("focal", facts)
            model.register_buffer(WEIGHTS, (n.sum() / len(n) / n).float().to(model.head.weight.device))

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        z = answer.logits.float()
        if batch.multilabel:
            return self._labels(z, batch.targets)
        log_p = z.log_softmax(1)
        cost = -shares(batch, z.shape[1]) * (1 - log_p.exp()).clamp(min=TINY) ** self.gamma * log_p  # (B, C)
        return (cost * model.get_buffer(WEIGHTS) if self.alpha else cost).sum(1).mean()

    def _labels(self, z: Tensor, y: Tensor) -> Tensor:
        here, gone = F.logsigmoid(z), F.logsigmoid(-z)  # log p, log (1 - p)
        a, b = (1.0, 1.0) if self.alpha is None else (float(self.alpha), 1 - float(self.alpha))
        return -(a * y * (self.gamma * gone).exp() * here + b * (1 - y) * (self.gamma * here).exp() * gone).mean()

    def finish(self, model: Grafted) -> None:
        """Forget the weights."""
        if self.alpha == "counts":
            delattr(model, WEIGHTS)
