"""Everything learns, from a fresh head: plain fine-tuning.

    rate(stage k of K) = rate x layer_decay^(K - 1 - k)

With `layer_decay` below 1 early stages, which know general things, move less than late ones. Howard & Ruder, Universal
Language Model Fine-tuning, ACL 2018 (discriminative rates); the decay per layer as in Clark et al., ELECTRA, ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from topwork.adaptation.graft import Grafted, Scope


@dataclass(frozen=True, kw_only=True)
class Full(Scope):
    """All layers at once."""

    RATE: ClassVar[float] = 3e-4

    layer_decay: float = 1.0
    head: str = "new"
    head_rate: float = 10.0

    def check(self) -> list[str]:
        """What is wrong with the options."""
        good = 0 < self.layer_decay <= 1
        return super().check() + ([] if good else [f"layer_decay={self.layer_decay!r}"])

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """Stage by stage, and the head's."""
        K = len(model.stages)
        decayed = {
            f"trunk.{name}.": self.layer_decay ** (K - 1 - k) for k, names in enumerate(model.stages) for name in names
        }
        return {**(decayed if self.layer_decay < 1 else {}), **super().rates(model)}
