"""Learning rate of a step: linear warm-up, then half a cosine down to nothing.

    r(t) = peak (t + 1) / W                                       t < W       W: steps of warm-up
    r(t) = peak (1 + cos(pi (t - W) / (T - W))) / 2               t >= W      T: all steps

Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017 (without restarts); the warm-up is
Goyal et al., Accurate, Large Minibatch SGD, 2017.
"""

from __future__ import annotations

import math


def warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` of `steps`; `warmup` is the share of the steps that rise."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
