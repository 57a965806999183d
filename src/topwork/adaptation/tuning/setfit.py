"""Few labels: pull items of one class together and others apart, then solve the head on what the trunk sees now.

    L = 1/2 [ sum_ij g_ij (1 - c_ij)^2 / sum_ij g_ij  +  sum_ij (1 - g_ij) c_ij^2 / sum_ij (1 - g_ij) ]      i < j

c_ij: cosine of the features of items i and j of a batch; g_ij: 1 where they are of one class, else 0. So pairs that
agree and pairs that do not count alike, whatever the number of classes. `objective="contrastive"` takes instead

    L = - mean_i sum_j g_ij / n_i  log ( exp(c_ij / T) / sum_{k != i} exp(c_ik / T) )        n_i: others of i's class

A few labels make many pairs, which is what the trunk learns from before a classifier is asked for. Tunstall et al.,
Efficient Few-Shot Learning Without Prompts (SetFit), 2022, who draw R pairs of each kind for every text and show two
texts per pair; here all pairs of a batch are taken, batches hold four items of each of a few classes, and `pairs=R`
shows every text 2 R times. Khosla et al., Supervised Contrastive Learning, NeurIPS 2020 (the other loss). A head learns
beside from features without a slope, so that the log shows how it goes; the one that stays is solved afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts
from topwork.adaptation.graft import Answer, Grafted, Scope, task_loss
from topwork.errors import BadSetting

OBJECTIVES = ("cosine", "contrastive")
TOGETHER = 4  # items of a class that come together
TINY = 1e-6


@dataclass(frozen=True)
class Setfit(Scope):
    """Everything learns from pairs; the head is solved afterwards."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    RATE: ClassVar[float] = 1e-4
    TEXT_RATE: ClassVar[float] = 5e-5
    SOLVES: ClassVar[bool] = True

    pairs: int | None = None  # R: as many passes as R pairs of each kind for every item need; None: by the data's size
    objective: str = field(default="cosine", kw_only=True)  # or contrastive
    temperature: float = field(default=0.1, kw_only=True)  # T of contrastive
    head: str = field(default="new", kw_only=True)
    head_rate: float = field(default=20.0, kw_only=True)

    def check(self) -> list[str]:
        """What is wrong with the options."""
        problems = super().check()
        if self.pairs is not None and (type(self.pairs) is not int or self.pairs < 1):
            problems.append(f"pairs={self.pairs!r}")
        if self.objective not in OBJECTIVES:
            problems.append(f"objective={self.objective!r} (one of {', '.join(OBJECTIVES)})")
        if not 0 < self.temperature < float("inf"):
            problems.append(f"temperature={self.temperature!r}")
        if self.patience:
            problems.append("patience, because what is shipped is solved after the training,")
        return problems

    @property
    def episode(self) -> tuple[int, int]:
        """Classes that come one after the other, and items of each."""
        return max(2, (self.batch or 32) // TOGETHER), TOGETHER

    def passes(self) -> int | None:
        """Epochs, where they or the pairs are named."""
        return self.epochs if self.pairs is None else 2 * self.pairs * (self.epochs or 1)

    def batch_of(self, items: int, usual: int) -> int:
        """As many pairs as can be had: they grow with the square of the batch."""
        return self.batch or max(2, min(usual, items))

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Everything learns, if items are of one class each."""
        if facts.multilabel:
            raise BadSetting("setfit pairs items of one class, and here items have several labels. Take lp_ft or full")
        super().prepare(model, facts)

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """The loss of all pairs of the batch."""
        c, g = cosines(answer.features), alike(batch.targets, model.head.out_features)
        return cosine_loss(c, g) if self.objective == "cosine" else contrastive_loss(c, g, self.temperature)

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """That of the head beside."""
        return {"head": task_loss(model.head(answer.features.detach()), batch)}


def cosines(features: Tensor) -> Tensor:
    """(B, D) -> (B, B)."""
    unit = F.normalize(features.float(), dim=1)
    return unit @ unit.T


def alike(targets: Tensor, classes: int) -> Tensor:
    """(B,) classes or (B, C) shares -> (B, B): how much of two items is of one class; 0 on the diagonal."""
    shares = targets.float() if targets.ndim == 2 else F.one_hot(targets, classes).float()
    return (shares @ shares.T).fill_diagonal_(0.0)


def cosine_loss(c: Tensor, g: Tensor) -> Tensor:
    """Square errors of the cosines, pairs that agree and pairs that do not with equal weight; 0 where there is none."""
    apart = (1 - g).fill_diagonal_(0.0)
    pull = (g * (1 - c).square()).sum() / g.sum().clamp(min=TINY)
    push = (apart * c.square()).sum() / apart.sum().clamp(min=TINY)
    return (pull + push) / 2


def contrastive_loss(c: Tensor, g: Tensor, temperature: float) -> Tensor:
    """Mean over the items that have another one of their class."""
    itself = torch.eye(len(c), dtype=torch.bool, device=c.device)
    logs = (c / temperature).masked_fill(itself, -torch.inf).log_softmax(1).masked_fill(itself, 0.0)  # (B, B)
    others = g.sum(1)
    each = -(g * logs).sum(1) / others.clamp(min=TINY)
    has = others > 0
    return (each * has).sum() / has.sum().clamp(min=1)
