"""Augmented views of a batch of images, drawn by counters: the same item, visit and view give the same picture.

    frames uint8 (B, P, P, 3) -> view float32 (B, 3, S, S), normalised

    crop    a box of `area` x the frame, its sides' ratio log-uniform, mirrored for a share; bilinear
    colour  y = M x + b,  M = H_t (s I + (1 - s) 1 l^T) c a,  b = (1 - c) mean(l . a x)       clipped to 0..1 at the end
            a brightness, c contrast, s saturation (0: grey), H_t turns the hue by t in YIQ, l: weights of luma
    change  `operations` of modalities.image_operations one after the other, each drawn for each item
    blur    G_b x G_b^T, G_b (S, S) the Gaussian of item b's own width, rows normalised to 1

All items of a batch are worked on at once. The random numbers of an item are a hash of (seed, visit, row, view), so
they depend neither on its company nor on what was drawn before. Recipes are data: one more line adds one.

"strong": Chen et al., SimCLR, ICML 2020, with the colour strengths of MoCo v2 (Chen et al., 2020). "local": Caron et
al., DINO, ICCV 2021. Unlike them all colour changes are one linear map in a fixed order, and are clipped once.
"trivial": Müller & Hutter, TrivialAugment, ICCV 2021. "rand": Cubuk et al., RandAugment, NeurIPS 2020, two changes of
9 of 30 of their strength. "upright" is not mirrored: digits, letters, road signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from topwork.modalities.image_operations import LUMA, NARROW, WIDE, Reach, operate

DRAWS = 12  # random numbers per view, and three more for each operation
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Recipe:
    """How a view is drawn. Shares are of items, strengths are largest relative changes."""

    area: tuple[float, float] = (1.0, 1.0)  # share of the frame that is cut out
    ratio: float = 4 / 3  # width / height between 1 / ratio and ratio
    centred: bool = False  # the middle of the frame instead of anywhere
    flip: float = 0.0  # share that is mirrored
    jitter: float = 0.0  # share whose colours change
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # of a whole turn
    grey: float = 0.0  # share that loses all colour
    blur: float = 0.0  # share that is blurred
    sigma_px: tuple[float, float] = (0.1, 2.0)  # of the blur, for pictures of 224 px
    operations: int = 0  # changes of image_operations, one after the other
    magnitude: float | None = None  # their strength, 0..1; None: drawn for each item
    reach: Reach = WIDE  # what a strength of 1 is
    scale: float = 1.0  # side of the view, of the side that the trunk sees

    def side_px(self, size_px: int) -> int:
        """S of this view."""
        return max(1, int(size_px * self.scale))


STRONG = Recipe(
    area=(0.2, 1.0), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2, blur=0.5
)
PLAIN = Recipe(area=(0.765625, 0.765625), ratio=1.0, centred=True)  # 7/8 of each side, as a backbone is asked
CROP = Recipe(area=(0.35, 1.0), flip=0.5)
RECIPES = {
    "plain": PLAIN,
    "flip": replace(PLAIN, flip=0.5),
    "crop": CROP,
    "crop_upright": replace(CROP, flip=0.0),
    "trivial": replace(CROP, operations=1),
    "rand": replace(CROP, operations=2, magnitude=0.3, reach=NARROW),
    "light": Recipe(area=(0.35, 1.0), flip=0.5, jitter=0.8, brightness=0.2, contrast=0.2, saturation=0.2),
    "strong": STRONG,
    "local": replace(STRONG, area=(0.05, 0.4), scale=0.5),
}


def view(
    frames: Tensor,
    recipe: Recipe,
    size_px: int,
    *,
    seed: int,
    visits: NDArray[np.int64],
    rows: NDArray[np.int64],
    number: int,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """One view of every item of a batch, on the device of the frames.

    visits, rows (B,): how often an item was shown before, and which it is; `number`: which of its views this is.
    """
    draws = DRAWS + 3 * recipe.operations
    u = torch.from_numpy(uniforms(seed, visits, rows, number, draws)).to(frames.device)  # (B, draws)
    x = crop(frames, boxes(u[:, :5], recipe), recipe.side_px(size_px))
    if recipe.jitter or recipe.grey:
        x = recolour(x, *colours(x, u[:, 5:11], recipe))
    for at in range(DRAWS, draws, 3):
        x = operate(x, u[:, at : at + 3], recipe.reach, recipe.magnitude)
    if recipe.blur:
        x = _blurred(x, u[:, 11], recipe)
    shift, unit = (x.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return x.sub_(shift).div_(unit)


def uniforms(
    seed: int, visits: NDArray[np.int64], rows: NDArray[np.int64], number: int, draws: int = DRAWS
) -> NDArray[np.float32]:
    """(B, draws) in [0, 1), a hash of (seed, visit, row, view number, draw): splitmix64's finaliser, chained.

    Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    key = _mixed(np.full(len(rows), seed & (2**64 - 1), np.uint64))
    for part in (visits, rows, np.full(len(rows), number)):
        key = _mixed(key ^ part.astype(np.uint64))
    bits = _mixed(key[:, None] ^ (np.arange(1, draws + 1, dtype=np.uint64) << np.uint64(32)))  # (B, draws)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def boxes(u: Tensor, recipe: Recipe) -> Tensor:
    """(B, 5) random numbers -> (B, 4): centre x, y and half width, height in -1..1; a negative width mirrors."""
    low, high = recipe.area
    area = low + (high - low) * u[:, 0]
    root = ((2 * u[:, 1] - 1) * (math.log(recipe.ratio) / 2)).exp()  # of the ratio
    half = torch.stack([area.sqrt() * root, area.sqrt() / root], 1).clamp(max=1.0)  # (B, 2)
    centre = torch.zeros_like(half) if recipe.centred else (2 * u[:, 2:4] - 1) * (1 - half)
    half[:, 0] = torch.where(u[:, 4] < recipe.flip, -half[:, 0], half[:, 0])
    return torch.cat([centre, half], 1)


def crop(frames: Tensor, boxes: Tensor, side_px: int) -> Tensor:
    """Cut boxes (B, 4) out of uint8 (B, P, P, 3): float32 (B, 3, S, S) in 0..1."""
    B = len(frames)
    theta = boxes.new_zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    grid = F.affine_grid(theta, [B, 3, side_px, side_px], align_corners=False)  # (B, S, S, 2)
    images = frames.permute(0, 3, 1, 2).float().div_(255)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colours(x: Tensor, u: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Each item's map of colours: M (B, 3, 3) and b (B, 1), from its picture and (B, 6) random numbers."""
    on = (u[:, 0] < recipe.jitter).float()[:, None]  # (B, 1)

    def factor(column: int, strength: float) -> Tensor:
        return 1 + on * strength * (2 * u[:, column, None] - 1)  # (B, 1)

    a, c, s = factor(1, recipe.brightness), factor(2, recipe.contrast), factor(3, recipe.saturation)
    s = torch.where(u[:, 5, None] < recipe.grey, 0.0, s)
    turn = (on * 2 * math.pi * recipe.hue * (2 * u[:, 4, None] - 1))[:, :, None]  # (B, 1, 1)
    fixed, cosine, sine = (matrix.to(x.device) for matrix in _hue())
    luma = x.new_tensor(LUMA)
    mixed = s[:, :, None] * torch.eye(3, device=x.device) + (1 - s[:, :, None]) * luma  # (B, 3, 3)
    M = (fixed + turn.cos() * cosine + turn.sin() * sine) @ mixed * (c * a)[:, :, None]
    return M, (1 - c) * a * (x.mean((2, 3)) @ luma)[:, None]


def recolour(x: Tensor, M: Tensor, b: Tensor) -> Tensor:
    """y = M x + b in every pixel, clipped."""
    return torch.baddbmm(b[:, :, None], M, x.flatten(2)).view_as(x).clamp_(0, 1)


def blurred(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur of (B, 3, S, S), each picture with its own width (B,)."""
    B, _, S, _ = x.shape
    at = torch.arange(S, device=x.device, dtype=x.dtype)
    G = torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma_px.view(B, 1, 1) ** 2))  # (B, S, S)
    G = (G / G.sum(2, keepdim=True))[:, None]
    return G @ x @ G.transpose(2, 3)


def _blurred(x: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Blur a share of the items; what is left of the number gives the width."""
    chosen = (u < recipe.blur).nonzero()[:, 0]
    low, high = (sigma * x.shape[-1] / 224 for sigma in recipe.sigma_px)
    if len(chosen):
        x[chosen] = blurred(x[chosen], low + (high - low) * u[chosen] / recipe.blur)
    return x


@cache
def _hue() -> tuple[Tensor, Tensor, Tensor]:
    """H_t = fixed + cos(t) cosine + sin(t) sine: a rotation of I and Q (ITU-R BT.601, NTSC's YIQ)."""
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    parts = ([[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, -1], [0, 1, 0]])
    fixed, cosine, sine = ((yiq.inverse() @ torch.tensor(p, dtype=torch.float64) @ yiq).float() for p in parts)
    return fixed, cosine, sine
