"""What the tests of the methods share: a small trunk, a batch made by hand, plain lists out of tensors."""

import torch
from torch import nn

from topwork.adaptation import Batch, Facts

from ._effect import trunk_of

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


class Plain(nn.Module):
    """A trunk that is a single linear layer on all pixels: features can be told by hand."""

    def __init__(self, side_px=4, features=6):
        super().__init__()
        self.linear = nn.Linear(3 * side_px**2, features)

    def forward(self, images):
        return self.linear(images.flatten(1))


def vit(**options):
    return trunk_of("vit_tiny_patch16_224", 0, {**VIT, **options})


def facts(trunk, side_px, items=100, seed=0):
    with torch.no_grad():
        features = trunk.eval()(torch.zeros(1, 3, side_px, side_px)).shape[1]
    return Facts(features, side_px, (), items, 100, seed=seed)


def batch(*views, step=0, done=0.0, seed=0):
    B = len(views[0])
    rows = torch.arange(B)
    generator = torch.Generator().manual_seed(seed)
    return Batch(tuple(views), rows, rows * 0 - 1, rows * 0, {}, step, done, generator)


def images(B, side_px, seed=0):
    return torch.randn(B, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def half_precision(method, trunk, side_px, *views):
    """The loss terms under bfloat16 and the gradient's norm: what a GPU is asked for."""
    model = method.prepare(trunk, facts(trunk, side_px)).train()
    with torch.autocast("cpu", torch.bfloat16):
        total = sum(value.float() for value in method.loss(model, batch(*views)).values())
    total.backward()
    return total.item(), sum(p.grad.square().sum().item() for p in trunk.parameters() if p.grad is not None)
