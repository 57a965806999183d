"""Several methods that share a trunk, as one module: their losses are summed, and the first one's result is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from topwork.adaptation import Batch, Method
from topwork.adaptation.feed import Feed, seed_of
from topwork.adaptation.plan import Plan


class Together(nn.Module):
    """Several methods that share a trunk, as one module: what accelerate wraps."""

    def __init__(self, trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan) -> None:
        super().__init__()
        facts = feed.facts(feed.width or width_of(trunk, feed.size_px), plan.steps, plan.seed)
        self.methods = tuple(methods)
        names = [type(method).__name__.lower() for method in methods]
        several = [f"{name}{i if names.count(name) > 1 else ''}." for i, name in enumerate(names)]
        self.owners = several if len(names) > 1 else [""]
        self.models = nn.ModuleList(method.prepare(trunk, facts) for method in methods)

    @classmethod
    def of(cls, trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan) -> Together:
        """As a training begins with it."""
        torch.manual_seed(seed_of(plan.seed, "heads"))
        return cls(trunk, methods, feed, plan).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """All loss terms, under names that say whose they are where there are several methods."""
        terms: dict[str, Tensor] = {}
        for owner, method, model, batch in zip(self.owners, self.methods, self.models, batches, strict=True):
            terms |= {f"{owner}{name}": value.float() for name, value in method.loss(model, batch).items()}
        return terms

    def rates(self) -> dict[nn.Parameter, float]:
        """Multiples of the learning rate, where they are not 1."""
        multiples: dict[nn.Parameter, float] = {}
        for method, model in zip(self.methods, self.models, strict=True):
            said = method.rates(model)
            for name, parameter in model.named_parameters():
                fitting = [beginning for beginning in said if name.startswith(beginning)]
                if fitting:
                    multiples[parameter] = said[max(fitting, key=len)]
        return multiples

    def after(self, batches: Sequence[Batch]) -> None:
        """What the methods do after the optimiser's step."""
        for method, model, batch in zip(self.methods, self.models, batches, strict=True):
            method.after(model, batch)

    def finish(self) -> nn.Module:
        """What the first method makes of it."""
        return self.methods[0].finish(self.models[0])


def width_of(trunk: nn.Module, size_px: int) -> int:
    """D, by asking; the trunk is left as it was."""
    training, device = trunk.training, next(trunk.parameters()).device
    with torch.no_grad():
        width = trunk.eval()(torch.zeros(1, 3, size_px, size_px, device=device)).shape[1]
    trunk.train(training)
    return width
