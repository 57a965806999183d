"""A static text embedding as a torch module: `nn.static_embedding.read` over padded pieces, the rows learnable.

This file needs torch; only `static_text.py` imports it, when a module is asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork.nn.static_embedding import Reading


class StaticTrunk(nn.Module):
    """ids (W, L), weights (W, L) -> features (W, D + 2 K)."""

    def __init__(self, rows: NDArray[np.float32], reading: Reading) -> None:
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(torch.from_numpy(rows.copy()), freeze=False)
        self.reading = reading

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Mean, early and highest part."""
        rows, how = self.rows(ids), self.reading  # (W, L, C)
        mean = _unit_length((weights[:, :, None] * rows).sum(1))
        if not how.axes:
            return mean
        first = rows[:, :, : how.axes]
        fading = weights * how.decay ** torch.arange(ids.shape[1], device=ids.device)
        early = _unit_length((fading[:, :, None] * first).sum(1))
        inside = (weights > 0)[:, :, None]
        top = first.masked_fill(~inside, -torch.inf).amax(1)
        highest = _unit_length(torch.where(inside.any(1), top, torch.zeros_like(top)))
        return torch.cat([mean, how.early * early, how.highest * highest], 1)


def _unit_length(x: Tensor) -> Tensor:
    length = x.norm(dim=1, keepdim=True)
    return x / torch.where(length > 0, length, torch.ones_like(length))
