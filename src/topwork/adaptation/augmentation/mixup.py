"""MixUp: learn from weighted means of two items and of their targets.

    x = l x_i + (1 - l) x_j        y = l y_i + (1 - l) y_j        l ~ Beta(alpha, alpha), j a random other item

It works on whatever goes into the part that learns, and mixes all of it with the same weight. Those are images, or the
cached activations of a frozen part: then it is manifold MixUp at that layer (Verma et al., ICML 2019), and costs next
to nothing. Targets become shares (B, C); labels by themselves are mixed likewise, and so are the batch's extras.

Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018. They draw one weight per batch: `per="batch"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from topwork.adaptation import Batch, Technique
from topwork.adaptation.augmentation._mixing import blended, check, mixed, weights

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted


@dataclass(frozen=True)
class Mixup(Technique):
    """Weighted means of two items."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    modalities: ClassVar[tuple[str, ...]] = ("image",)

    alpha: float = 0.2  # of Beta(alpha, alpha); higher = nearer to halves
    per: str = "item"  # or "batch": how often a weight is drawn
    share: float = 1.0  # of the items (or batches) that are mixed

    def __post_init__(self) -> None:
        check("mixup", self.alpha, self.per, self.share)

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch, mixed with itself in another order."""
        B = len(batch.rows)
        partner = torch.randperm(B, generator=batch.generator)
        keep = weights(self.alpha, B if self.per == "item" else 1, self.share, batch.generator).expand(B)
        views = [mixed(view, partner, keep) for view in batch.views]
        return blended(batch, views, partner, keep, model.head.out_features)
