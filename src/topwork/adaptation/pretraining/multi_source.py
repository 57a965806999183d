"""Learn from several labelled sets at once: one trunk, one head for each, an item is asked about its own classes only.

    L = 1/B sum_i CE(h_{s(i)}(z_i), y_i)        p_s = n_s^(1/T) / sum_r n_r^(1/T)

z (B, D): trunk's features; h_s: linear head of source s; s(i): source of item i; CE: cross-entropy with label
smoothing; p_s: how often source s of n_s items is drawn. T = 1 draws items alike, a large T draws sources alike. The
loss is logged source by source. Temperature sampling: Arivazhagan et al., Massively Multilingual Neural Machine
Translation in the Wild, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.adaptation.pretraining.supervised import summed
from topwork.errors import BadSetting


class Branched(nn.Module):
    """A trunk and a head for every source."""

    def __init__(self, trunk: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(nn.Linear(facts.features, C) for C in facts.classes)


@dataclass(frozen=True)
class MultiSource(Method):
    """Cross-entropy with one head for each source."""

    temperature: float = 2.0  # T; 1 = as many items as there are, higher = small sources count for more
    smoothing: float = 0.1  # of the labels; 0 is none

    needs_labels = True

    def __post_init__(self) -> None:
        check = Check("multi_source")
        check.number("temperature", self.temperature, above=0)
        check.share("smoothing", self.smoothing)
        check.done()

    def shares(self, counts: tuple[int, ...]) -> tuple[float, ...]:
        """p_s."""
        powers = [count ** (1 / self.temperature) for count in counts]
        return tuple(power / sum(powers) for power in powers)

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """Trunk and heads."""
        if not facts.classes:
            raise BadSetting("multi_source needs labelled sets, and here is none")
        return Branched(trunk, facts)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """A term for every source; each is its items' sum over the number of all labelled items of the batch."""
        branched = cast(Branched, model)
        z = branched.trunk(batch.views[0])  # (B, D)
        labelled = (batch.targets >= 0).sum().clamp(min=1)
        terms = {}
        for s, head in enumerate(branched.heads):
            own = batch.source == s  # a head without items is asked too: every process has the same graph
            terms[f"source{s}"] = summed(head(z[own]), batch.targets[own], self.smoothing) / labelled
        return terms
