"""The head is solved first, then everything learns: linear probing, then fine-tuning.

A fresh head sends large, random gradients into the trunk and distorts what it knows before the head has learnt to
use it; from the solved probe they begin small. Kumar et al., Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution, ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

from topwork.adaptation.tuning.full import Full


@dataclass(frozen=True, kw_only=True)
class LpFt(Full):
    """All layers, from the probe's head."""

    head: str = "probe"
    head_rate: float = 1.0
