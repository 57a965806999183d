"""Masked language: hide some tokens of a text, and name them from the others.

    L = - mean over hidden tokens t of  log softmax(E h_t' + b)_{x_t}        h' = norm(gelu(W h + c))

h_t: the encoder's last state (D), x_t: the token that was there, E (V, D): the encoder's own embeddings, tied. W, c, b
and the norm are thrown away afterwards. Devlin et al., BERT, 2019. From an encoder that is there already, on texts of
the user's own domain: Gururangan et al., Don't Stop Pretraining, ACL 2020. Which tokens are hidden is drawn anew at
every look (`nn/masked_tokens.py`). Where E is narrower than D, W makes h as narrow. W begins as the identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.errors import BadSetting
from topwork.nn.masked_tokens import hide


@dataclass(frozen=True)
class MaskedLanguage(Method):
    """Hidden tokens, named."""

    modality: ClassVar[str] = "text"

    share: float = 0.15  # of the tokens that are hidden

    def __post_init__(self) -> None:
        check = Check("masked_language")
        check.number("share", self.share, above=0, below=1)
        check.done()

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk with what is needed to name tokens."""
        if not hasattr(trunk, "states") or facts.vocabulary is None:
            raise BadSetting("masked_language needs an encoder of texts from transformers, such as hf:NAME")
        if facts.vocabulary.mask is None:
            raise BadSetting("masked_language: the tokenizer has no token for what is hidden, such as [MASK]")
        return Named(trunk, facts)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Error on the hidden tokens."""
        model, (ids, weights) = cast(Named, model), batch.views
        seen, hidden = model.hide(ids, weights, self.share, batch.generator)
        logits = model(seen, weights, hidden)
        if not len(logits):
            return {"hidden_tokens": logits.sum() * 0.0}
        return {"hidden_tokens": F.cross_entropy(logits.float(), ids[hidden])}


class Named(nn.Module):
    """An encoder that names its hidden tokens."""

    special: Tensor

    def __init__(self, trunk: nn.Module, facts: Facts) -> None:
        super().__init__()
        assert facts.vocabulary is not None
        self.trunk, self.vocabulary = trunk, facts.vocabulary
        V, width = self.embeddings.shape
        device = self.embeddings.device
        self.dense, self.norm = nn.Linear(states_width(trunk), width, device=device), nn.LayerNorm(width, device=device)
        self.bias = nn.Parameter(torch.zeros(V, device=device))
        with torch.no_grad():
            self.dense.weight.copy_(torch.eye(*self.dense.weight.shape))
            self.dense.bias.zero_()
        special = torch.tensor(facts.vocabulary.special, dtype=torch.int64, device=device)
        self.register_buffer("special", special, persistent=False)

    @property
    def embeddings(self) -> Tensor:
        """E (V, D), the encoder's own."""
        network: Any = self.trunk.network
        return network.get_input_embeddings().weight

    def hide(self, ids: Tensor, weights: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What is seen, and which tokens are hidden."""
        known = self.vocabulary
        assert known.mask is not None
        return hide(ids, weights, share, known.size, known.mask, self.special, generator)

    def forward(self, ids: Tensor, weights: Tensor, hidden: Tensor) -> Tensor:
        """(B, L) three times -> logits (M, V) of the M hidden tokens, text by text."""
        states = self.trunk.states(ids, weights)[hidden]  # type: ignore[operator]  # (M, D)
        return F.linear(self.norm(F.gelu(self.dense(states))), self.embeddings, self.bias)


def states_width(trunk: nn.Module) -> int:
    """D of the states, by asking; the trunk is left as it was."""
    training, device = trunk.training, next(trunk.parameters()).device
    with torch.no_grad():
        trunk.eval()
        ids = torch.zeros(1, 4, dtype=torch.int64, device=device)
        width = trunk.states(ids, torch.ones(1, 4, device=device)).shape[2]  # type: ignore[operator]
    trunk.train(training)
    return width
