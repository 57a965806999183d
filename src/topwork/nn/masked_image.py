"""Images as rows of patches, some of them hidden at random, and the error on those alone.

    patches(images, p)                (B, 3, S, S) -> (B, L, 3 p p),  L = (S / p)^2, row by row; numbers by channel
    hidden(B, L, count, generator)    (B, L) bool: exactly `count` of each row are True, all choices alike
    error(guess, target, mask)        mean over hidden patches of the mean |guess - target|^power of their numbers

He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022 (power 2).
Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022 (power 1). Needs torch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6  # added to a patch's variance: flat patches stay finite


def patches(images: Tensor, patch_px: int) -> Tensor:
    """(B, 3, S, S) -> (B, L, 3 p p)."""
    return F.unfold(images, patch_px, stride=patch_px).transpose(1, 2)


def normalised(rows: Tensor) -> Tensor:
    """(B, L, P) -> each patch with mean 0 and variance 1 of its own numbers."""
    return (rows - rows.mean(2, keepdim=True)) * torch.rsqrt(rows.var(2, keepdim=True) + EPSILON)


def hidden(B: int, L: int, count: int, generator: torch.Generator) -> Tensor:
    """(B, L) bool, on the CPU: the `count` patches of each image with the smallest random numbers."""
    order = torch.rand(B, L, generator=generator).argsort(1)
    return torch.zeros(B, L, dtype=torch.bool).scatter_(1, order[:, :count], True)


def error(guess: Tensor, target: Tensor, mask: Tensor, power: int) -> Tensor:
    """(B, L, P) twice and (B, L) bool -> one number; what is not hidden does not count."""
    return (guess - target)[mask].abs().pow(power).mean()
