"""Learn as if all classes were equally frequent: offsets by frequency in the loss.

    L = -1/B sum_i sum_c y_ic log softmax(z_i + tau log pi)_c        pi_c = n_c / N

The offsets are in the loss alone: the head as it stands then ranks classes by p(x | y), which is best for the mean over
classes of the accuracy (tau 1), and its probabilities are those of a world in which all classes are equally frequent.
y (B, C): shares of an item, 1 for its class. Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.losses._targets import counts
from topwork.adaptation.options import Check

PRIOR = "logit_adjusted_prior"


@dataclass(frozen=True)
class LogitAdjusted(Technique):
    """Cross-entropy on logits that know the classes' frequencies."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    tau: float = 1.0  # 0: cross-entropy

    def __post_init__(self) -> None:
        check = Check("logit_adjusted")
        check.number("tau", self.tau, above=-1e-12)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the frequencies."""
        n = counts("logit_adjusted", facts)
        model.register_buffer(PRIOR, (n / n.sum()).log().float().to(model.head.weight.device))

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The mean over the items."""
        return F.cross_entropy(answer.logits.float() + self.tau * model.get_buffer(PRIOR), batch.targets)

    def finish(self, model: Grafted) -> None:
        """Forget them."""
        delattr(model, PRIOR)
