"""Let the backbone's own classifier learn on, by what new classes look like to it.

    L = weight mean_i H(R[y_i], softmax(z_i))        R[y] = p(source class | target class y), mean over the items of y
                                                            of softmax(u)

z (B, Z): the source classifier on the features of now; u (B, Z): the same on the network as it was; H: cross-entropy.
So the part of the network that is usually thrown away goes on guiding the features. Shares (B, C) mix the rows of R.

R is the paper's direct estimate, a mean that grows over the first epoch while the old network runs beside the new one
(a pass forward more per step, only then), and stands afterwards. The paper's other estimate, by a regression in the
other direction, and its calibration on images of the source, which are not here, are left out. With several processes
each counts the items that it sees. You et al., Co-Tuning for Transfer Learning, NeurIPS 2020 (weight 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import START, SourceHead, add, keep_trunk, take_off
from topwork.errors import BadSetting

NAME = "co_tuning"
TINY = 1e-12


class Relation(nn.Module):
    """R, as far as the items have told it."""

    def __init__(self, head: SourceHead, classes: int, items: int) -> None:
        super().__init__()
        self.head, self.items = head, items
        self.said = nn.Buffer(torch.zeros(classes, head.learns.out_features))  # (C, Z) sum of probabilities
        self.seen = nn.Buffer(torch.zeros(classes))  # (C,) items

    @torch.no_grad()
    def note(self, model: Grafted, views: tuple[Tensor, ...], shares: Tensor) -> None:
        """Items (B, ...) of classes (B, C), during the first epoch."""
        if model.training and self.seen.sum().item() < self.items:
            self.said += shares.T @ self.head.at_the_start(model, views).softmax(1)
            self.seen += shares.sum(0)

    def rows(self) -> Tensor:
        """(C, Z); a class that has not been seen has zeros, and so no say."""
        return self.said / self.seen.clamp(min=TINY)[:, None]


@dataclass(frozen=True)
class CoTuning(Technique):
    """The source's classes that a target class looks like."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    needs_source_head: ClassVar[bool] = True

    weight: float = 2.3

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.number("weight", self.weight, above=0)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the network and its classifier."""
        if facts.multilabel:
            raise BadSetting("co_tuning tells what one class of an item looks like; here items have several. Try lwf")
        head = SourceHead.of(NAME, model, facts)
        add(model, NAME, Relation(head, model.head.out_features, facts.items))
        keep_trunk(model)

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """The mean over the items."""
        relation, y = cast(Relation, model.get_submodule(NAME)), batch.targets
        shares = y.float() if y.ndim == 2 else F.one_hot(y, model.head.out_features).float()  # (B, C)
        relation.note(model, batch.views, shares)
        goal = shares @ relation.rows()  # (B, Z)
        return {NAME: self.weight * F.cross_entropy(relation.head(answer.features).float(), goal)}

    def finish(self, model: Grafted) -> None:
        """Forget both."""
        take_off(model, NAME, START)
