"""Targets and class counts as the losses want them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from topwork.adaptation import Batch, Facts
from topwork.errors import BadSetting


def shares(batch: Batch, classes: int) -> Tensor:
    """(B, C) float32: how much of each item belongs to each class; labels 0 or 1 where there are several."""
    y = batch.targets
    return y.float() if y.ndim == 2 else F.one_hot(y, classes).float()


def counts(name: str, facts: Facts) -> Tensor:
    """(C,) float64 items of each class, none below 1; raises BadSetting where classes do not exclude each other."""
    if facts.multilabel:
        raise BadSetting(
            f"{name} weighs classes of which an item has one; here items have several labels. Expected focal, or none"
        )
    if not facts.counts:
        raise BadSetting(
            f"{name} needs to know how many items each class has, and here nobody has counted. Leave it out"
        )
    return torch.from_numpy(np.maximum(np.asarray(facts.counts, np.float64), 1))
