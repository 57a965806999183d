"""Learn features in which the mean of a few items stands for their class: few-shot learning by prototypes.

    c_g = mean of z_i over the first K items of class g              z (B, D): features of the trunk
    L = -1/Q sum over the other items i   log softmax_g(-|z_i - c_g|^2 / T)_{g(i)}        g: classes of i's own source

An episode has N classes with K + Q items each; classes that come with less still take part if they have two items: one
fewer makes the mean. Nothing is kept of the classes, so what is learnt serves classes that come later: new ones are
told apart by their means. With large batches several episodes of a source become one of more classes.
Snell, Swersky & Zemel, Prototypical Networks for Few-shot Learning, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.adaptation.pretraining._episodes import Bare, check, groups


@dataclass(frozen=True)
class Prototypical(Method):
    """Distances to class means."""

    ways: int = 8  # N, classes of one source that are shown together
    shots: int = 4  # K, items that make a mean
    queries: int = 4  # Q, items that are asked
    temperature: float = 1.0  # T of the squared distances

    needs_labels = True

    def __post_init__(self) -> None:
        wrong = Check("prototypical")
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            wrong.whole(name, getattr(self, name), least=least)
        wrong.number("temperature", self.temperature, above=0)
        wrong.done()

    @property
    def episode(self) -> tuple[int, int]:
        """Classes, and items of each."""
        return self.ways, self.shots + self.queries

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk alone."""
        check("prototypical", facts)
        return Bare(trunk)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The mean over the asked items; 0, with a gradient of 0, where there is none."""
        z = model.trunk(batch.views[0]).float()  # (B, D)  # type: ignore[operator]
        g = groups(batch)
        makes = g.plays & (g.rank < (g.size[g.of] - 1).clamp(max=self.shots))
        asked = g.plays & ~makes
        if not asked.any():
            return {"prototypes": z.sum() * 0}
        member = F.one_hot(g.of[makes], len(g.size)).to(z.dtype)  # (M, G)
        means = member.T @ z[makes] / member.sum(0).clamp(min=1)[:, None]  # (G, D)
        far = (z[asked, None] - means).square().sum(2)  # (Q, G)
        other = (batch.source[asked, None] != g.source) | (g.size == 0)
        logits = (-far / self.temperature).masked_fill(other, float("-inf"))
        return {"prototypes": F.cross_entropy(logits, g.of[asked])}


def nearest_mean(z: Tensor, y: Tensor, asked: Tensor) -> Tensor:
    """(Q,) class of each asked item (Q, D) by the means of some others z (M, D) of classes y (M,): how it is used."""
    labels = torch.unique(y)
    means = torch.stack([z[y == label].mean(0) for label in labels])
    return labels[torch.cdist(asked, means).argmin(1)]
