"""Pull every weight towards where it started, and new layers towards zero.

    L = alpha / 2 sum_i |w_i - w_i^0|^2  +  beta / 2 sum_j |v_j|^2

w_i: parameters of the trunk that learn, w_i^0: their values before the training; v_j: those of the head and of layers
between. It stands in for weight decay: "full(weight_decay=0) + l2_sp". What does not learn has no start to remember.

Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018.
Theirs leaves out norms and biases of the trunk; here all that learns is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import add, take_off
from topwork.errors import BadSetting

NAME = "l2_sp"
TINY = 1e-12


class Beginning(nn.Module):
    """Values of parameters, by name."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()
        self.names: list[str] = []
        for name, value in named:
            self.register_buffer(f"start_{len(self.names)}", value.detach().clone())
            self.names.append(name)

    def pairs(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """(now, then) of every parameter."""
        now = dict(model.named_parameters())
        return ((now[name], self.get_buffer(f"start_{i}")) for i, name in enumerate(self.names))


@dataclass(frozen=True)
class L2Sp(Technique):
    """Distance from the start."""

    alpha: float = 0.1
    beta: float = 0.01

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.number("alpha", self.alpha, above=0)
        check.number("beta", self.beta, above=-TINY)
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the trunk's parameters that learn."""
        learning = [(f"trunk.{name}", p) for name, p in model.trunk.named_parameters() if p.requires_grad]
        if not learning:
            raise BadSetting("l2_sp: nothing of the trunk learns, so there is no start to hold on to. Leave it out")
        add(model, NAME, Beginning(learning))

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """Both distances."""
        away = sum((now - then).square().sum() for now, then in cast(Beginning, model.get_submodule(NAME)).pairs(model))
        terms = {NAME: self.alpha / 2 * cast(Tensor, away)}
        return terms | ({"l2_head": self.beta / 2 * size_of_new(model)} if self.beta else {})

    def finish(self, model: Grafted) -> None:
        """Forget the start."""
        take_off(model, NAME)


def size_of_new(model: Grafted) -> Tensor:
    """Sum of the squares of what learns above the trunk; 0 where nothing does."""
    new = [p for part in (model.neck, model.head) for p in part.parameters() if p.requires_grad]
    return cast(Tensor, sum(p.square().sum() for p in new)) if new else model.head.weight.new_zeros(())
