"""First the head learns, then one stage more after the other, from the top down.

    stages that learn at share d of the training:  min(K, n + floor((K - n) d / over))
    rate(stage k of K) = rate x layer_decay^(K - 1 - k)

K stages; n = 0 with a fresh head, n = 1 where the head is the solved probe and needs no time of its own. What does not
learn yet stands still, batch statistics included. Tensors of the trunk that are in no stage (position embeddings) learn
with the lowest. Howard & Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018, where a stage
is freed per epoch, and rates are divided by 2.6 per layer; ours follow the warm-up and cosine of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from topwork.adaptation import Batch, Facts
from topwork.adaptation.graft import Grafted
from topwork.adaptation.tuning.full import Full
from topwork.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class GradualUnfreezing(Full):
    """All layers in the end, the top first."""

    over: float = 0.5  # share of the training after which everything learns
    layer_decay: float = 1 / 2.6
    head: str = "probe"
    head_rate: float = 1.0

    def check(self) -> list[str]:
        """What is wrong with the options."""
        return super().check() + ([] if 0 < self.over <= 1 else [f"over={self.over!r}"])

    @property
    def waits(self) -> bool:
        """Lower stages have no gradient before their turn."""
        return True

    def free(self, done: float, stages: int) -> int:
        """How many of so many stages learn; a function of the share of the training that lies behind."""
        n = min(stages, 0 if self.head == "new" else 1)
        return min(stages, n + math.floor((stages - n) * done / self.over + 1e-9))

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Everything may learn in the end."""
        super().prepare(model, facts)
        if len(learners(model)) < 2:
            raise BadSetting(
                "gradual_unfreezing: the trunk's stages cannot be told apart. Expected two or more; try lp_ft"
            )

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """Stage by stage; what is in none is as slow as the lowest."""
        return {"trunk.": self.layer_decay ** (len(model.stages) - 1), **super().rates(model)}

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch as it is; what may learn now is set before it goes through."""
        own = list(model.trunk.parameters())
        before = [parameter.requires_grad for parameter in own]
        stages = learners(model)
        first = len(stages) - self.free(batch.done, len(stages))
        model.trunk.requires_grad_(first == 0)
        for parameter in (p for stage in stages[first:] for p in stage):
            parameter.requires_grad_(True)
        if before != [parameter.requires_grad for parameter in own]:
            model.train(model.training)  # modes follow what learns
        return batch


def learners(model: Grafted) -> list[list[nn.Parameter]]:
    """Parameters of every stage that has any, from below."""
    found = [[p for name in names for p in model.trunk.get_submodule(name).parameters()] for names in model.stages]
    return [own for own in found if own]
