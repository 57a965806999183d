"""Moving average of weights: what is handed back is the mean of where the training has been lately.

    a <- k a + (1 - k) w,   k = min(decay, (1 + t) / (10 + t))        t: steps done

Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992. The warm-up of k (as in TensorFlow's
ExponentialMovingAverage) makes it the average over about the last tenth of a short training, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, though several modules may share it."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


class Ema:
    """The average of a model's floating-point parameters and buffers."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: t for name, t in tensors_of(model).items() if t.is_floating_point()}
        self.tensors = {name: t.detach().clone() for name, t in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, live in zip(self.tensors.values(), self._live.values(), strict=True):
            average.lerp_(live, 1 - keep)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the model."""
        for name, average in self.tensors.items():
            self._live[name].copy_(average)
