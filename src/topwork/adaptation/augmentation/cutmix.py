"""CutMix: put a box of another item into each, and share the target by area.

    x = x_i outside, x_j inside of a box with sides sqrt(1 - l) of the map's, its centre anywhere, cut at the rim
    y = k y_i + (1 - k) y_j,   k: the share of cells outside the box        l ~ Beta(alpha, alpha)

It works on images and on cached maps (B, C, H, W) alike. A box is drawn in relative coordinates and cut out of all
maps of an item, each in its own resolution; k is that of the finest. The batch's extras are mixed as the targets are.

Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019. They draw
one box per batch: `per="batch"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from topwork.adaptation import Batch, Technique
from topwork.adaptation.augmentation._mixing import blended, check, inside, weights
from topwork.errors import BadSetting

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted


@dataclass(frozen=True)
class Cutmix(Technique):
    """Boxes of one item in another."""

    goals: ClassVar[tuple[str, ...]] = ("classes",)
    modalities: ClassVar[tuple[str, ...]] = ("image",)

    alpha: float = 1.0  # of Beta(alpha, alpha); 1: all sizes alike
    per: str = "item"  # or "batch": how often a box is drawn
    share: float = 1.0  # of the items (or batches) that get a box; Yun et al. take 0.5 for small pictures

    def __post_init__(self) -> None:
        check("cutmix", self.alpha, self.per, self.share)

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch with boxes of itself in another order."""
        _check_maps(batch.views)
        B = len(batch.rows)
        partner = torch.randperm(B, generator=batch.generator)
        edges = self._boxes(B, batch.generator).expand(B, 4)
        masks = [inside(edges, *view.shape[2:]) for view in batch.views]
        views = [
            torch.where(mask.to(view.device), view[partner.to(view.device)], view)
            for mask, view in zip(masks, batch.views, strict=True)
        ]
        finest = max(masks, key=lambda mask: mask[0].numel())
        return blended(batch, views, partner, 1 - finest.float().mean((1, 2, 3)), model.head.out_features)

    def _boxes(self, B: int, generator: torch.Generator) -> Tensor:
        """(B or 1, 4) left, top, right, bottom."""
        count = B if self.per == "item" else 1
        half = (1 - weights(self.alpha, count, self.share, generator)).sqrt()[:, None] / 2  # (count, 1)
        centre = torch.rand(count, 2, generator=generator)
        return torch.cat([centre - half, centre + half], 1).clamp(0, 1)


def _check_maps(views: Sequence[Tensor]) -> None:
    """Square maps are what square images become; other last axes are channels or tokens."""
    for view in views:
        if view.ndim != 4 or view.shape[2] != view.shape[3] or view.shape[3] < 2:
            raise BadSetting(
                f"cutmix: what goes into the part that learns has items of shape {tuple(view.shape[1:])}. Expected "
                "maps (C, H, W) to cut boxes out of: take mixup, or let earlier stages learn (last_stages(n), lp_ft)"
            )
