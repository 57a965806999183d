"""Held-out logits compared at the temperature that suits each, and what counts as a lead.

A lead below two standard errors of the paired difference, or below the cost of one item that is surely wrong,
log(N + 2) / (N + 2), is a tie and goes to the one that comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.nn.log_loss import doubt_of, fit_temperature, losses

NOISE = 2.0  # standard errors


def judge(held_out: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Held-out losses (N,) at the best temperature, with an item's worth of doubt."""
    return losses(held_out / fit_temperature(held_out, targets), targets, doubt_of(len(held_out)))


def first_of_the_best(judged: Sequence[NDArray[np.float64]]) -> int:
    """The first whose loss is as low as the lowest, as far as so many items can tell."""
    lowest = min(judged, key=lambda loss: loss.mean())
    doubt = doubt_of(len(lowest))
    one_item = -doubt * np.log(doubt)
    leads = [((loss - lowest).mean(), NOISE * (loss - lowest).std() / np.sqrt(len(loss))) for loss in judged]
    return next(i for i, (lead, noise) in enumerate(leads) if lead <= max(noise, one_item))
