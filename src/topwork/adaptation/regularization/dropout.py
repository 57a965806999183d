"""Leave out features before the head at random, others at every step.

    z = W (m * f / (1 - p)) + b        m_bd = 0 with probability p, else 1

Only what the head reads is thinned out: `Answer.features`, which other techniques look at, are whole. The mask comes
from the step's generator; all passes of one step leave out the same features of the same rows.

Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Grafted
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import add, take_off

NAME = "dropout"
SEEDS = 2**62


class Thinning(nn.Module):
    """What happens to the features on their way into the head while the model is trained."""

    def __init__(self, p: float, head: nn.Module) -> None:
        super().__init__()
        self.p, self.seed = p, 0
        self.handle = head.register_forward_pre_hook(self.before)

    def before(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The features with some of them left out."""
        if not self.training:
            return None
        (features,) = args  # (B, D)
        draw = torch.rand(features.shape, generator=torch.Generator().manual_seed(self.seed))
        return (features * (draw >= self.p).to(features) / (1 - self.p),)


@dataclass(frozen=True)
class Dropout(Technique):
    """Features left out before the head."""

    p: float = 0.2  # share that is left out

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.number("p", self.p, above=0, below=1)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Stand before the head."""
        add(model, NAME, Thinning(self.p, model.head))

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch as it is; its generator says what is left out."""
        seed = torch.randint(SEEDS, (), generator=batch.generator)
        cast(Thinning, model.get_submodule(NAME)).seed = int(seed)
        return batch

    def finish(self, model: Grafted) -> None:
        """Step aside."""
        cast(Thinning, model.get_submodule(NAME)).handle.remove()
        take_off(model, NAME)
