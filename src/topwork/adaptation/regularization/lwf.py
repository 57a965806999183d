"""Keep giving the old answers, in the words of the source's classes.

    L = weight mean_i H(softmax(u_i / T), softmax(z_i / T))        H(p, q) = -sum_c p_c log q_c

z (B, Z): the backbone's own classifier on the features of now, which learns as well; u (B, Z): the same on the network
as it was before the training. T: temperature, which makes small probabilities count. The old network runs beside the
new one on the same views: a pass forward more per step. Where the backbone came without its classifier, it cannot be.

Li & Hoiem, Learning without Forgetting, ECCV 2016 (T 2, weight 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import START, SourceHead, add, keep_trunk, take_off

NAME = "lwf"


@dataclass(frozen=True)
class Lwf(Technique):
    """The source's classes, distilled from the start."""

    needs_source_head: ClassVar[bool] = True

    weight: float = 1.0
    temperature: float = 2.0  # T

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.number("weight", self.weight, above=0)
        check.number("temperature", self.temperature, above=0)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the network and its classifier."""
        add(model, NAME, SourceHead.of(NAME, model, facts))
        keep_trunk(model)

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """The mean over the items."""
        head, T = cast(SourceHead, model.get_submodule(NAME)), self.temperature
        old = (head.at_the_start(model, batch.views) / T).softmax(1)  # (B, Z)
        return {NAME: self.weight * F.cross_entropy(head(answer.features).float() / T, old)}

    def finish(self, model: Grafted) -> None:
        """Forget both."""
        take_off(model, NAME, START)
