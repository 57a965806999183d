"""Random erasing: hide a box of a picture, so that no part of it must be seen.

    for a share p of the items: a box of `area` x the picture, height / width log-uniform in 1/ratio .. ratio, anywhere,
    filled with noise N(0, 1) of its own in every pixel, or with the mean colour        (both in normalised units)

Zhong et al., Random Erasing Data Augmentation, AAAI 2020. We differ: the noise is normal instead of uniform over the
pixel range, and a box that is too long for the picture is cut to it instead of drawn again.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from topwork.adaptation import Batch, Technique
from topwork.adaptation.augmentation._mixing import inside
from topwork.adaptation.options import Check
from topwork.errors import BadSetting

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted


@dataclass(frozen=True)
class RandomErasing(Technique):
    """Boxes without content in the pictures."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    p: float = 0.5  # share of the items with a box
    area: tuple[float, float] = (0.02, 0.4)  # share of the picture that it takes
    ratio: float = 10 / 3  # height / width between 1 / ratio and ratio
    fill: str = "noise"  # or "mean"

    def __post_init__(self) -> None:
        check = Check("random_erasing")
        check.share("p", self.p)
        check.number("ratio", self.ratio, above=0)
        check.that(self.fill in ("noise", "mean"), f"fill={self.fill!r} is neither 'noise' nor 'mean'")
        pair = isinstance(self.area, tuple) and len(self.area) == 2
        good = pair and all(isinstance(a, float | int) for a in self.area) and 0 < self.area[0] <= self.area[1] <= 1
        check.that(good, f"area={self.area!r} are not two shares (smallest, largest) of at most 1")
        check.done()

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The pictures, some of them with a box; the target stays."""
        for view in batch.views:
            if view.ndim != 4 or view.shape[1] != 3:
                raise BadSetting(
                    f"random_erasing works on images (3, H, W); what goes into the part that learns has items of shape "
                    f"{tuple(view.shape[1:])}. Expected a tuning without a cache: full or lp_ft instead of last_stages"
                )
        edges = self._boxes(len(batch.rows), batch.generator)
        views = tuple(self._erased(view, edges, batch.generator) for view in batch.views)
        return dataclasses.replace(batch, views=views)

    def _boxes(self, B: int, generator: torch.Generator) -> Tensor:
        """(B, 4) left, top, right, bottom; without a box all are 0."""
        u = torch.rand(B, 5, generator=generator)
        low, high = self.area
        side = (low + (high - low) * u[:, 0]).sqrt()
        root = ((2 * u[:, 1] - 1) * (math.log(self.ratio) / 2)).exp()
        size = torch.stack([side / root, side * root], 1).clamp(max=1)  # (B, 2) width, height
        corner = u[:, 2:4] * (1 - size)
        return torch.where(u[:, 4:] < self.p, torch.cat([corner, corner + size], 1), 0.0)

    def _erased(self, view: Tensor, edges: Tensor, generator: torch.Generator) -> Tensor:
        mask = inside(edges, *view.shape[2:])
        holes = mask.to(view.device)
        if self.fill == "mean":
            return view.masked_fill(holes, 0.0)
        noise = torch.randn(view.shape[1] * int(mask.sum()), generator=generator)
        return view.masked_scatter(holes.expand_as(view), noise.to(view.device, view.dtype))
