"""Learn the target and other labelled sources at once: one trunk, a head for each, thrown away but for the target's.

    L = 1/B sum_i CE(h_s(i)(z_i), y_i)        p_s = n_s^(1/T) / sum_r n_r^(1/T)

z (B, D): features of an item; s(i): its source, 0 the target; h_0: the head that stays; p_s: how often source s of n_s
items is drawn. T = 1 draws items alike, a large T draws sources alike. It belongs to no room, because it cannot be
named alone: whoever makes it knows the sources (`source_steps.py`). Caruana, Multitask Learning, Machine Learning,
1997; temperature sampling as in pretraining/multi_source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted


@dataclass(frozen=True, eq=False)
class Joint(Technique):
    """A head for every other source; the task's loss is the mean over the items of all."""

    heads: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]  # weight (D, C_s), bias (C_s,) to begin with
    temperature: float = 2.0  # T

    def shares(self, counts: tuple[int, ...]) -> tuple[float, ...]:
        """p_s."""
        powers = [count ** (1 / self.temperature) for count in counts]
        return tuple(power / sum(powers) for power in powers)

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Heads beside the target's."""
        others = nn.ModuleList()
        for weight, bias in self.heads:
            head = nn.Linear(*weight.shape, device=model.head.weight.device)
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(weight.T))
                head.bias.copy_(torch.from_numpy(bias))
            others.append(head)
        model.others = others

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor:
        """Every item is asked about its own source's classes; a head without items has a gradient of 0."""
        total = torch.zeros((), device=answer.logits.device)
        for source, head in enumerate((None, *model.others)):  # type: ignore[arg-type]
            own = batch.source == source
            logits = answer.logits[own] if head is None else head(answer.features[own])
            total = total + F.cross_entropy(logits, batch.targets[own], reduction="sum")
        return total / len(batch.source)

    def finish(self, model: Grafted) -> None:
        """The target's head stays."""
        del model.others
