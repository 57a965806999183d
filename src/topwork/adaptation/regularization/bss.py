"""Batch spectral shrinkage: push down a feature batch's smallest singular values.

    L(F) = eta sum_{i=1..k} sigma_{-i}(F)^2      sigma_{-i}: i-th smallest of the min(B, D) singular values of F (B, D)

Directions in which a batch of features hardly varies carry little that transfers from few items; they are let go. The
gradient reaches F through the singular values alone, 2 sigma_i u_i v_i', and is finite where some of them are equal.
One singular value is always left alone, so that a batch of one item, or of k, is not pushed to zero as a whole.

Chen et al., Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe Transfer Learning,
NeurIPS 2019 (eta 0.001, k 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topwork.adaptation import Batch, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.options import Check


@dataclass(frozen=True)
class Bss(Technique):
    """The k smallest singular values."""

    eta: float = 0.001
    k: int = 1

    def __post_init__(self) -> None:
        check = Check("bss")
        check.number("eta", self.eta, above=0)
        check.whole("k", self.k, least=1)
        check.done()

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """Of the features that the head reads."""
        return {"bss": self.eta * smallest(answer.features, self.k)}


def smallest(features: Tensor, k: int) -> Tensor:
    """Sum of the squares of the k smallest singular values of (B, D); of fewer where there are not more than k."""
    B, D = features.shape
    k = min(k, min(B, D) - 1)
    if k == 0:
        return features.sum() * 0.0
    with torch.autocast(features.device.type, enabled=False):
        return torch.linalg.svdvals(features.float())[-k:].square().sum()  # they come in descending order
