"""Token dropout: leave out a few tokens of a text, so that no single word must be there.

    weight_t <- 0 with probability p         for every token t of a text that is not a special one

The encoder neither attends to a token of weight 0 nor pools it. At least half of the tokens of a window stay. A text
keeps its class without a few of its words, so that this is safe where replacing words is not. Iyyer et al., Deep
Unordered Composition Rivals Syntactic Methods for Text Classification, ACL 2015 (word dropout).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.options import Check

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted

SPECIAL = "token_dropout_special"


@dataclass(frozen=True)
class TokenDropout(Technique):
    """Texts without some of their tokens."""

    modalities: ClassVar[tuple[str, ...]] = ("text",)

    p: float = 0.1  # share of the tokens; higher = harder to learn by heart

    def __post_init__(self) -> None:
        check = Check("token_dropout")
        check.number("p", self.p, above=0, below=1)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember which tokens are special."""
        special = facts.vocabulary.special if facts.vocabulary else ()
        kept = torch.tensor(special, dtype=torch.int64, device=model.head.weight.device)
        model.register_buffer(SPECIAL, kept, persistent=False)

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch with some weights at zero; the target stays."""
        *others, ids, weights = batch.views
        inner = ~torch.isin(ids, model.get_buffer(SPECIAL))
        return dataclasses.replace(batch, views=(*others, ids, thinned(weights, inner, self.p, batch.generator)))

    def finish(self, model: Grafted) -> None:
        """Forget them."""
        delattr(model, SPECIAL)


def thinned(weights: Tensor, inner: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """(B, L) -> (B, L): about a share p of the weights that are `inner`, and at most half of all, are 0."""
    chance = torch.rand(weights.shape, generator=generator).to(weights.device)
    inside = weights > 0
    chance = chance.masked_fill(~(inner & inside), 2.0)
    rank = chance.argsort(1).argsort(1)  # the smallest chances come first
    return weights.masked_fill((chance < p) & (rank < inside.sum(1, keepdim=True) // 2), 0.0)
