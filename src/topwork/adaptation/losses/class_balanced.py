"""Class-balanced loss: a class weighs less, the more items it has.

    L = -1/B sum_i sum_c w_c y_ic log softmax(z_i)_c        w_c ~ (1 - beta) / (1 - beta^n_c),  sum_c w_c = C

n_c: items of class c; (1 - beta^n) / (1 - beta) is the effective number of n items, those that are like others counted
less. beta = 0 weighs all alike; towards 1 the weights become proportional to 1 / n_c. y (B, C): shares of an item, 1
for its class. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.losses._targets import counts, shares
from topwork.adaptation.options import Check

WEIGHTS = "class_balanced_weights"


@dataclass(frozen=True)
class ClassBalanced(Technique):
    """Cross-entropy, classes weighed by their effective number of items."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    beta: float = 0.999  # 0.9 for tens of items a class, 0.9999 for ten thousands

    def __post_init__(self) -> None:
        check = Check("class_balanced")
        check.number("beta", self.beta, above=-1e-12, below=1)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the weights."""
        model.register_buffer(WEIGHTS, weights(counts("class_balanced", facts), self.beta).to(model.head.weight.device))

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        log_p = answer.logits.float().log_softmax(1)
        return -(model.get_buffer(WEIGHTS) * shares(batch, log_p.shape[1]) * log_p).sum(1).mean()

    def finish(self, model: Grafted) -> None:
        """Forget them."""
        delattr(model, WEIGHTS)


def weights(n: Tensor, beta: float) -> Tensor:
    """(C,) float32 of the counts n (C,), 1 on average."""
    w = (1 - beta) / (1 - beta**n)
    return (w * len(n) / w.sum()).float()
