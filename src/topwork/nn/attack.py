"""Attacks on a classifier: the change of at most eps per pixel that costs it most.

    x_0 = x, or x + U(-eps, eps)        x_{t+1} = clip(x_t + step sign(grad L(x_t, y)))
    clip: into x - eps .. x + eps, then into low .. high, the values that a pixel can have

images (B, 3, H, W), normalised; eps, step, low and high are in the same units, numbers or (1, 3, 1, 1). One step
without a random start and with step >= eps is FGSM. What it finds is a lower bound of what an attacker can do: robust
accuracy by it is an upper bound, and too high where gradients vanish.

Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015 (FGSM); Madry et al., Towards Deep Learning
Models Resistant to Adversarial Attacks, ICLR 2018 (PGD). Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]  # images (B, 3, H, W) -> (B, C), with gradients
Cost = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> a scalar
LEVELS = 255  # of a pixel, above 0


def pgd(
    predict_logits: Logits,
    images: Tensor,
    targets: Tensor,
    eps: Tensor | float,
    step: Tensor | float,
    steps: int,
    generator: torch.Generator,
    low: Tensor | float,
    high: Tensor | float,
    random_start: bool = True,
    *,
    cost: Cost = F.cross_entropy,
) -> Tensor:
    """Attacked images; no parameter gets a gradient. The generator (on the CPU) is asked for a random start only."""
    images = images.detach()

    def clip(x: Tensor) -> Tensor:
        return torch.clamp(torch.clamp(x, images - eps, images + eps), _like(low, x), _like(high, x))

    x = images
    if random_start:
        noise = torch.rand(images.shape, generator=generator).to(images.device, images.dtype)
        x = clip(images + eps * (2 * noise - 1))
    for _ in range(steps):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(cost(predict_logits(x), targets), x)
        x = clip(x.detach() + step * gradient.sign())
    return x.detach()


def withstands(
    predict_logits: Logits,
    images: Tensor,
    targets: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
    eps: float = 4.0,
    steps: int = 20,
) -> Tensor:
    """(B,) bool: the right class (B,), before and after PGD of `eps` levels of 255; the mean is the robust accuracy.

    Steps are of 2.5 eps / steps, from a random start, as Madry et al. do. The model should be in eval mode.
    """
    low, high, level = (limit.to(images.device, images.dtype) for limit in limits(mean, std))
    with torch.no_grad():
        right = predict_logits(images).argmax(1) == targets
    at = right.nonzero()[:, 0]  # an item that is wrong already needs no attack
    if len(at):
        step = min(1.25, 2.5 / steps) * eps * level
        attacked = pgd(predict_logits, images[at], targets[at], eps * level, step, steps, generator, low, high)
        with torch.no_grad():
            right[at] = predict_logits(attacked).argmax(1) == targets[at]
    return right


def limits(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest value of a normalised pixel and the size of one level of 255, each (1, 3, 1, 1)."""
    shift, unit = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (mean, std))
    return (0 - shift) / unit, (1 - shift) / unit, 1 / (LEVELS * unit)


def _like(value: Tensor | float, x: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=x.dtype, device=x.device)
