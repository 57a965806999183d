"""Texts with some tokens hidden at random, anew at every look.

    hide(ids, weights, ...)     (B, L) -> ids with holes (B, L), hidden (B, L) bool

About a share p of the tokens that are not special is chosen; of those 80 % become the mask token, 10 % any token, and
10 % stay as they are, so that the encoder cannot trust what it sees. At least one token of a batch is chosen where
there is any. Devlin et al., BERT, 2019; drawn anew at every look as in Liu et al., RoBERTa, 2019. Needs torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASKED, RANDOM = 0.8, 0.1  # shares of the hidden tokens


def hide(
    ids: Tensor, weights: Tensor, share: float, vocabulary: int, mask: int, special: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the encoder sees, and which tokens it must name; `special` (K,) are never hidden, nor is weight 0."""
    u = torch.rand(2, *ids.shape, generator=generator).to(ids.device)
    other = torch.randint(vocabulary, ids.shape, generator=generator).to(ids.device)
    able = (weights > 0) & ~torch.isin(ids, special)
    hidden = (u[0] < share) & able
    if not hidden.any() and able.any():
        hidden = torch.zeros_like(able)
        hidden.view(-1)[u[0].masked_fill(~able, 2.0).argmin()] = True
    seen = torch.where(hidden & (u[1] < MASKED), mask, ids)
    seen = torch.where(hidden & (u[1] >= MASKED) & (u[1] < MASKED + RANDOM), other, seen)
    return seen, hidden
