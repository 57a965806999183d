"""SimCLR: two views of an image should be nearer to each other than to those of all other images.

    L = mean_i  -log( exp(z_i . z_i' / t) / sum_{k != i} exp(z_i . z_k / t) )          i, k = 1 .. 2B

z = g(trunk(x)) / |g(trunk(x))|: unit rows (2B, out) of both views of B images; i' is the other view of i's image; t the
temperature; g a perceptron with one hidden layer, thrown away afterwards. All other 2B - 2 views of the batch are
negatives, so a larger batch is a harder task.

Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020 (NT-Xent).
We differ: temperature 0.2 and narrower layers by default, as batches and networks here are smaller than theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check, pairs
from topwork.nn.projector import Projected, projector

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Simclr(Method):
    """Contrastive learning of two strongly changed views."""

    temperature: float = 0.2  # t; lower = only the most similar negatives count
    hidden: int = 512  # width of the perceptron's hidden layer
    out: int = 128  # width of z
    views = ("strong", "strong")

    def __post_init__(self) -> None:
        check = Check("simclr")
        check.number("temperature", self.temperature, above=0)
        check.whole("hidden", self.hidden, least=1)
        check.whole("out", self.out, least=2)
        check.done()

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk with a perceptron on it."""
        pairs("simclr", facts)
        return Projected(trunk, projector((facts.features, self.hidden, self.out), facts.seed))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent of the two views."""
        return {"nt_xent": nt_xent(model(torch.cat(batch.views)), self.temperature)}


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """z (2B, K), of any length: rows i and B + i are views of the same image -> the mean loss in nats."""
    N = len(z)
    z = F.normalize(z, dim=1)
    similar = z @ z.T / temperature  # (2B, 2B)
    similar = similar.masked_fill(
        torch.eye(N, dtype=torch.bool, device=z.device), -torch.inf
    )  # no view is its own pair
    return F.cross_entropy(similar, torch.arange(N, device=z.device).roll(N // 2))
