"""Barlow Twins: the projections of two views should agree, and each number should say something of its own.

    L = scale ( sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2 )
    C = Z^T Z' / B                                       (K, K) cross-correlation of the two views

Z, Z' (B, K): projections g(trunk(x)) of both views, each column with mean 0 and variance 1 over the batch. There are no
negatives, so small batches do; K should be wide.

Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021. `redundancy` is their lambda
(0.0051 for K = 8,192, and little changed by others in their figure 4), `scale` the factor of their code.
We differ: K = 512 and two hidden layers of that width; lambda 0.02, as the second sum has K - 1 times as many
terms as the first and K is smaller here; scale 1 / K by default, so that the loss begins near 1 whatever K is; both
views go through the trunk in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check, pairs
from topwork.nn.projector import Projected, projector

if TYPE_CHECKING:
    from torch import Tensor, nn

EPSILON = 1e-5  # added to a variance, as BatchNorm does: a column that never changes has correlation 0


@dataclass(frozen=True)
class BarlowTwins(Method):
    """Decorrelation of two strongly changed views."""

    redundancy: float = 0.02  # lambda; higher = columns share less
    hidden: int = 512  # width of the two hidden layers
    out: int = 512  # K
    scale: float | None = None  # None: 1 / K
    views = ("strong", "strong")

    def __post_init__(self) -> None:
        check = Check("barlow_twins")
        check.number("redundancy", self.redundancy, above=0)
        check.whole("hidden", self.hidden, least=1)
        check.whole("out", self.out, least=2)
        if self.scale is not None:
            check.number("scale", self.scale, above=0)
        check.done()

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk with a perceptron on it."""
        pairs("barlow_twins", facts)
        return Projected(trunk, projector((facts.features, self.hidden, self.hidden, self.out), facts.seed))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """How far the cross-correlation is from the identity, as two terms."""
        one, other = model(torch.cat(batch.views)).chunk(2)
        scale = 1 / self.out if self.scale is None else self.scale
        agreement, redundancy = distances(correlation(one, other))
        return {"agreement": scale * agreement, "redundancy": scale * self.redundancy * redundancy}


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Projections (B, K) of two views -> cross-correlation (K, K) over the batch."""
    return standardised(one).T @ standardised(other) / len(one)


def standardised(z: Tensor) -> Tensor:
    """(B, K) -> each column with mean 0 and variance 1."""
    return (z - z.mean(0)) * torch.rsqrt(z.var(0, correction=0) + EPSILON)


def distances(c: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-correlation (K, K) -> sum of (1 - C_ii)^2 and sum of C_ij^2, i != j."""
    diagonal = c.diagonal()
    return (1 - diagonal).square().sum(), c.square().sum() - diagonal.square().sum()
