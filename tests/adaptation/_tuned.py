"""What the tests of the techniques share: a small network with batch norm, a toy set, a plain loop around Tune."""

import dataclasses

import numpy as np
import torch
from torch import nn

from topwork.adaptation import Batch, Facts
from topwork.adaptation.graft import Tune
from topwork.adaptation.tuning.full import Full

SIDE, FEATURES, CLASSES, SOURCES = 8, 6, 3, 5
STAGES = (("stem",), ("block",), ("pool",))


class Block(nn.Module):
    """A convolution with its norm, as a block that stays whole."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Small(nn.Module):
    """(B, 3, 8, 8) -> (B, 6): two blocks and a mean."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = Block(3, 4), Block(4, FEATURES)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.pool(self.block(self.stem(x)))


def trunk(seed=0):
    """With moving statistics that have seen something."""
    torch.manual_seed(seed)
    small = Small().train()
    with torch.no_grad():
        for _ in range(8):
            small(torch.randn(8, 3, SIDE, SIDE))
    return small.eval()


def facts(**changes):
    draw = np.random.default_rng(3)
    known = {
        "counts": (6, 4, 2),
        "source_head": (draw.normal(size=(FEATURES, SOURCES)).astype("f"), draw.normal(size=SOURCES).astype("f")),
    }
    known = {"classes": (CLASSES,), "items": 12, "steps": 10} | known
    return Facts(FEATURES, SIDE, **(known | changes))


def images(B=12, seed=0):
    return torch.randn(B, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def batch(targets=None, x=None, step=0, seed=0, multilabel=False, **more):
    x = images(seed=step) if x is None else x
    y = torch.arange(len(x)) % CLASSES if targets is None else targets
    rows = torch.arange(len(x))
    generator = torch.Generator().manual_seed(seed)
    return Batch((x,), rows, y, rows * 0, {}, step, step / 10, generator, multilabel, **more)


def tune(*parts, first=None, seed=5, classes=CLASSES):
    draw = np.random.default_rng(seed)
    weight = draw.normal(0, 0.3, (FEATURES, classes)).astype("f")
    return Tune((first or Full(), *parts), weight, np.zeros(classes, "f"), stages=STAGES)


def step(method, model, b, rate=0.05):
    """One step of plain gradient descent; the terms before it."""
    terms = method.loss(model, b)
    model.zero_grad()
    torch.stack([t.float() for t in terms.values()]).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= rate * p.grad
    method.after(model, b)
    return {name: value.item() for name, value in terms.items()}


def changed(b, **changes):
    return dataclasses.replace(b, **changes)
