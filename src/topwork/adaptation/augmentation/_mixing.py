"""What MixUp and CutMix share: a weight from Beta(alpha, alpha), targets as shares, boxes in relative coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from topwork.adaptation import Batch
from topwork.adaptation.options import Check

PER = ("item", "batch")


def check(method: str, alpha: float, per: str, share: float) -> None:
    """Raise BadSetting for options that cannot be."""
    asked = Check(method)
    asked.number("alpha", alpha, above=0)
    asked.that(per in PER, f"per={per!r} is neither 'item' nor 'batch'")
    asked.share("share", share)
    asked.done()


def weights(alpha: float, count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count,) from Beta(alpha, alpha); all but about a `share` of them are 1: not mixed.

    torch draws no Beta from a generator, so numpy does, from a counter that the generator seeds.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    draw = np.random.Generator(np.random.Philox(key=seed))
    keep, mixed = draw.beta(alpha, alpha, count), draw.random(count) < share
    return torch.from_numpy(np.where(mixed, keep, 1.0).astype(np.float32))


def shares(batch: Batch, classes: int) -> Tensor:
    """Targets as (B, C) float32; an item without a label has no share in any class, and so no loss."""
    if batch.targets.ndim == 2:
        return batch.targets.float()
    known = batch.targets.clamp(min=0)[:, None]
    rows = torch.zeros(len(known), classes, device=known.device)
    return rows.scatter_(1, known, (batch.targets >= 0).float()[:, None])


def blended(batch: Batch, views: Sequence[Tensor], partner: Tensor, keep: Tensor, classes: int) -> Batch:
    """The batch with other views: item b is `keep[b]` of itself, the rest of it is `partner[b]`."""

    def mix(x: Tensor) -> Tensor:
        return mixed(x, partner, keep)

    extras = {name: mix(x) for name, x in batch.extras.items()}
    return dataclasses.replace(batch, views=tuple(views), targets=mix(shares(batch, classes)), extras=extras)


def mixed(x: Tensor, partner: Tensor, keep: Tensor) -> Tensor:
    """keep x + (1 - keep) x[partner], item by item: x (B, ...), keep (B,)."""
    own = keep.to(x.device, x.dtype).view(-1, *[1] * (x.ndim - 1))
    return x[partner.to(x.device)].lerp_(x, own)


def inside(edges: Tensor, height: int, width: int) -> Tensor:
    """(K, 4) left, top, right, bottom in 0..1 -> (K, 1, H, W) bool: cells whose middle lies in the box."""
    x, y = ((torch.arange(n) + 0.5) / n for n in (width, height))
    left, top, right, bottom = (edges[:, i, None] for i in range(4))
    columns, rows = (left <= x) & (x < right), (top <= y) & (y < bottom)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
