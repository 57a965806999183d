"""Episodes: tasks of a few classes with a few items each, made of the items of one batch.

    group g(i)    the class of item i within its source; items without a label have none
    rank r(i)     how many items of its group come before it in the batch
    takes part    groups of at least two items, in sources with at least two such groups

Which items come together is the feed's doing (`Method.episode`); what is drawn here is nothing, so an episode is a
function of its batch. Where a batch brings less than was hoped for, the groups that take part are smaller or fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts
from topwork.errors import BadSetting


@dataclass(frozen=True, eq=False)
class Groups:
    """The classes of a batch."""

    of: Tensor  # (B,) number of the group of every item
    rank: Tensor  # (B,)
    size: Tensor  # (G,) items; 0 where the group does not take part
    source: Tensor  # (G,) of every group

    @property
    def plays(self) -> Tensor:
        """(B,) items whose group takes part."""
        return self.size[self.of] > 0


def groups(batch: Batch) -> Groups:
    """Of the items of a batch."""
    y, source = batch.targets, batch.source
    keys, of = torch.unique(torch.stack([source, y], 1), dim=0, return_inverse=True)  # (G, 2), (B,)
    same = of[:, None] == of[None, :]
    rank = same.tril(-1).sum(1)
    size = torch.bincount(of, minlength=len(keys))
    size = torch.where((keys[:, 1] >= 0) & (size >= 2), size, 0)
    beside = ((keys[:, 0, None] == keys[None, :, 0]) & (size > 0)).sum(1)  # (G,) of the same source
    return Groups(of, rank, torch.where(beside >= 2, size, 0), keys[:, 0])


class Bare(nn.Module):
    """A trunk and nothing else: heads last for an episode."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk


def check(method: str, facts: Facts) -> None:
    """Stop where there is nothing to make episodes of."""
    if not facts.classes or facts.multilabel:
        raise BadSetting(f"{method} learns to tell classes apart and needs sets with one label for each image")
    if max(facts.classes) < 2:
        raise BadSetting(f"{method} needs a set of at least two classes, and here are {facts.classes}")
