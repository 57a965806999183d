"""Synonyms: put a word's neighbour in its place, where it has a near one; where it has none, the word stays.

    token_t <- one of the `nearest` most similar tokens j with cos(e_t - m, e_j - m) >= near, with probability p

e: the encoder's input embeddings as they were when the training began, m: their mean. Special tokens stay, and no word
becomes one. Never part of an automatic choice: what stands near a word is often its opposite ("good" and "bad" have
0.54 in MiniLM, "happy" and "unhappy" 0.55, "bought" and "purchased" 0.83), so that a label may no longer be right.
Wang and Yang, That's So Annoying!!!: A Lexical and Frame-Semantic Embedding Based Data Augmentation Approach, EMNLP
2015. It changes what goes in, so that no frozen layer can be cached: not with last_stages.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.options import Check
from topwork.errors import BadSetting

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted

UNIT, KNOWN, SPECIAL = "synonyms_unit", "synonyms_known", "synonyms_special"
UNASKED = -2  # of a token whose neighbours nobody has looked for; -1: it has no more


@dataclass(frozen=True)
class Synonyms(Technique):
    """Texts with other words of like meaning."""

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    whole: ClassVar[bool] = True

    p: float = 0.1  # share of the tokens that are exchanged, where they have near neighbours
    near: float = 0.6  # cosine from which a neighbour is taken; higher = safer, rarer
    nearest: int = 3  # neighbours to draw from

    def __post_init__(self) -> None:
        check = Check("synonyms")
        check.number("p", self.p, above=0, below=1)
        check.number("near", self.near, above=0, below=1)
        check.whole("nearest", self.nearest, least=1)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the embeddings, as directions; neighbours are looked for as words come."""
        network: Any = getattr(model.trunk, "network", None)
        if network is None or facts.vocabulary is None:
            raise BadSetting("synonyms needs a whole encoder of texts from transformers: with full, lp_ft, lora ...")
        with torch.no_grad():
            table = network.get_input_embeddings().weight.detach().float()
            unit = F.normalize(table - table.mean(0), dim=1)
        known = torch.full((len(unit), self.nearest), UNASKED, device=unit.device)
        special = torch.tensor(facts.vocabulary.special, dtype=torch.int64, device=unit.device)
        for name, buffer in ((UNIT, unit), (KNOWN, known), (SPECIAL, special)):
            model.register_buffer(name, buffer, persistent=False)

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch with some other tokens; weights and target stay."""
        ids, weights = batch.views
        chance, pick = (torch.rand(ids.shape, generator=batch.generator).to(ids.device) for _ in range(2))
        chosen = (chance < self.p) & (weights > 0) & ~torch.isin(ids, model.get_buffer(SPECIAL))
        near = self._near(model, ids[chosen])  # (M, K)
        count = (near >= 0).sum(1)
        at = (pick[chosen] * count).long().clamp(max=self.nearest - 1)
        found = near.gather(1, at[:, None])[:, 0]
        changed = ids.clone()
        changed[chosen] = torch.where(count > 0, found, ids[chosen])
        return dataclasses.replace(batch, views=(changed, weights))

    def finish(self, model: Grafted) -> None:
        """Forget them."""
        for name in (UNIT, KNOWN, SPECIAL):
            delattr(model, name)

    @torch.no_grad()
    def _near(self, model: Grafted, tokens: Tensor) -> Tensor:
        """(M,) -> (M, K) neighbours, the nearest first, -1 where there are no more."""
        unit, known, special = (model.get_buffer(name) for name in (UNIT, KNOWN, SPECIAL))
        new = tokens[known[tokens, 0] == UNASKED].unique()
        if len(new):
            known[new] = neighbours(unit, new, special, self.near, self.nearest)
        return known[tokens]


def neighbours(unit: Tensor, tokens: Tensor, special: Tensor, near: float, most: int) -> Tensor:
    """Rows of unit (V, D) that are nearest to some of them (M,) -> (M, most), -1 where fewer are near."""
    cosine = unit[tokens] @ unit.T  # (M, V)
    cosine[torch.arange(len(tokens), device=unit.device), tokens] = -1.0
    cosine[:, special] = -1.0
    value, found = cosine.topk(min(most, cosine.shape[1]), dim=1)
    found = torch.where(value >= near, found, torch.full_like(found, -1))
    return F.pad(found, (0, most - found.shape[1]), value=-1)
