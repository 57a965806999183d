"""Fourteen changes of a picture, of which TrivialAugment and RandAugment draw.

    identity     x                           posterize   floor(x 2^k) / 2^k,  k = 8 - bits m
    brightness   f x                         solarize    1 - x where x >= 1 - m
    contrast     f x + (1 - f) mean(l . x)   sharpness   f x + (1 - f) (box3(x) 9 + 4 x) / 13, the rim as it is
    colour       f x + (1 - f) l . x         autocontrast, equalize: the range, the histogram of a channel made full
    shear_x, shear_y, translate_x, translate_y, rotate: bilinear, grey where the picture ends

x (B, 3, S, S) in 0..1; m (B,) in 0..1 the strength; f = 1 +- colour m; l: weights of luma. `Reach` says what m = 1 is.
The formulas are those of torchvision.transforms.v2, which follow Pillow. A batch is worked on in groups of one kind of
change. Nothing that is computed of an item depends on its company, to the bit: some of these changes are jumps.

Cubuk et al., RandAugment, NeurIPS 2020; Müller & Hutter, TrivialAugment, ICCV 2021 (its "wide" space). We differ:
strengths are real numbers instead of 31 levels; shifts are shares of the side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
GREY = 0.5  # where a picture ends, as Cubuk et al. fill it
LEVELS = 256  # of the histogram

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
GEOMETRY = 5  # of them: 1 to 5, worked on together
GROUPS = ((1, 1 + GEOMETRY), *((k, k + 1) for k in range(1 + GEOMETRY, len(OPERATIONS))))  # first, last + 1


@dataclass(frozen=True)
class Reach:
    """How far each change goes at full strength."""

    shear: float = 0.99  # pixels per pixel
    translate: float = 32 / 224  # of the side
    rotate: float = 135.0  # degrees
    colour: float = 0.99  # relative change of brightness, colour, contrast, sharpness
    bits: int = 6  # that posterize takes away, of 8


WIDE = Reach()
NARROW = Reach(shear=0.3, translate=150 / 331, rotate=30.0, colour=0.9, bits=4)


def operate(x: Tensor, u: Tensor, reach: Reach, magnitude: float | None = None) -> Tensor:
    """One change of every item, in place: u (B, 3) random numbers say which, how strong (if not given), which way."""
    which = (u[:, 0] * len(OPERATIONS)).long().clamp_(max=len(OPERATIONS) - 1).cpu()  # (B,)
    m = u[:, 1] if magnitude is None else torch.full_like(u[:, 1], magnitude)
    sign = torch.where(u[:, 2] < 0.5, -1.0, 1.0)
    for first, end in GROUPS:
        chosen = ((which >= first) & (which < end)).nonzero()[:, 0]
        if len(chosen):
            at = chosen.to(x.device)
            if first == 1:
                x[at] = moved(x[at], _matrices(which[chosen].to(x.device), sign[at] * m[at], reach))
            else:
                x[at] = _changed(x[at], OPERATIONS[first], m[at], sign[at], reach)
    return x


def _changed(x: Tensor, name: str, m: Tensor, sign: Tensor, reach: Reach) -> Tensor:
    factor = 1 + sign * m * reach.colour
    match name:
        case "brightness":
            return x.mul_(_wide(factor)).clamp_(0, 1)
        case "colour":
            return _blended(x, _luma(x), factor)
        case "contrast":
            return _blended(x, _luma(x).mean((2, 3), keepdim=True), factor)
        case "sharpness":
            return sharpened(x, factor)
        case "posterize":
            return posterized(x, (8 - reach.bits * m).round())
        case "solarize":
            return torch.where(x >= _wide(1 - m), 1 - x, x)
        case "autocontrast":
            return autocontrasted(x)
    return equalized(x)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _luma(x: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, 1, S, S)."""
    r, g, b = (x[:, i : i + 1] for i in range(3))
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _blended(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """f x + (1 - f) other, in place, clipped."""
    f = _wide(factor)
    return x.mul_(f).add_(other * (1 - f)).clamp_(0, 1)


def sharpened(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the smoothed picture (factor above 1) or towards it, in place; the outermost pixels stay."""
    if min(x.shape[2:]) > 2:
        inner = x[:, :, 1:-1, 1:-1]
        rows = (x[:, :, :-2] + x[:, :, 1:-1]).add_(x[:, :, 2:])  # sums of three, one axis after the other
        smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4).div_(13)
        f = _wide(factor)
        inner.mul_(f).add_(smooth.mul_(1 - f))
    return x.clamp_(0, 1)


def posterized(x: Tensor, bits: Tensor) -> Tensor:
    """Only 2^bits levels of every channel, in place; bits (B,)."""
    levels = _wide(2.0**bits)
    return torch.minimum(x.mul_(levels).floor_(), levels - 1).div_(levels)


def autocontrasted(x: Tensor) -> Tensor:
    """Every channel stretched from its darkest to its brightest value, in place; flat ones stay."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, high - low)
    return x.sub_(torch.where(flat, 0.0, low)).div_(scale).clamp_(0, 1)


def equalized(x: Tensor) -> Tensor:
    """All 256 levels of every channel equally often, as far as whole levels allow: Pillow's integer arithmetic."""
    B, C, H, W = x.shape
    pixels = (x * (LEVELS - 1e-3)).to(torch.int64).flatten(2).view(B * C, H * W)
    shift = torch.arange(B * C, device=x.device)[:, None] * LEVELS
    count = torch.bincount((pixels + shift).flatten(), minlength=B * C * LEVELS).view(B * C, LEVELS)
    total = count.cumsum(1)
    top = LEVELS - 1 - (count.flip(1) > 0).int().argmax(1, keepdim=True)  # the highest level that is there
    step = (H * W - count.gather(1, top)) // (LEVELS - 1)  # (B C, 1)
    table = ((total - count + step // 2) // step.clamp(min=1)).clamp_(max=LEVELS - 1)
    table = torch.where(step > 0, table, torch.arange(LEVELS, device=x.device))
    return (table.gather(1, pixels).view(B, C, H, W).to(x.dtype)).div_(LEVELS - 1)


def _matrices(kinds: Tensor, amount: Tensor, reach: Reach) -> Tensor:
    """(B, 2, 3): where in the picture, with corners -1 and 1, a place of the new one lies; kinds 1 to 5."""
    M = torch.zeros(len(kinds), 2, 3, device=amount.device)
    shear, translate = amount * reach.shear, 2 * amount * reach.translate
    angle = amount * math.radians(reach.rotate) * (kinds == 5)
    M[:, 0, 0] = M[:, 1, 1] = angle.cos()
    M[:, 0, 1] = torch.where(kinds == 1, shear, -angle.sin())
    M[:, 1, 0] = torch.where(kinds == 2, shear, angle.sin())
    # Shears leave the upper left corner where it is.
    M[:, 0, 2] = torch.where(kinds == 1, shear, 0.0) - torch.where(kinds == 3, translate, 0.0)
    M[:, 1, 2] = torch.where(kinds == 2, shear, 0.0) - torch.where(kinds == 4, translate, 0.0)
    return M


def moved(x: Tensor, M: Tensor) -> Tensor:
    """Bilinear: the new picture shows at (u, v) what the old one has at M (u, v, 1); x (B, 3, H, W)."""
    H, W = x.shape[2:]
    u, v = ((2 * torch.arange(n, device=x.device, dtype=x.dtype) + 1) / n - 1 for n in (W, H))
    rows = [M[:, i, 0, None, None] * u + (M[:, i, 1, None] * v + M[:, i, 2, None])[:, :, None] for i in range(2)]
    grid = torch.stack(rows, 3)  # (B, H, W, 2)
    return F.grid_sample(x.sub(GREY), grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(GREY)
