"""Hidden layers between the trunk and a fresh, linear head.

    z = drop(a(W z' + b)) per hidden width        logits = head(z)

The solved probe does not fit on top of them: the head is drawn anew, and so neck and head learn at the multiple
`head_rate` of the tuning: "full + mlp_head(256)", "last_stages(1, head='new', head_rate=10) + mlp_head((512, 256))".
Techniques that look at the features see those behind the hidden layers if they are named after this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from topwork.adaptation import Facts, Technique
from topwork.adaptation.graft import Grafted
from topwork.adaptation.layers import ACTIVATIONS, drawing, mlp
from topwork.adaptation.options import Check


@dataclass(frozen=True)
class MlpHead(Technique):
    """A multilayer perceptron instead of one linear layer."""

    hidden: int | tuple[int, ...] = 256  # width, or widths from below
    dropout: float = 0.0  # probability, behind every hidden layer
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check = Check("mlp_head")
        check.that(bool(self.widths), "hidden=() names no width; leave mlp_head out for a linear head")
        for width in self.widths:
            check.whole("hidden", width, least=1)
        check.number("dropout", self.dropout, above=-1e-12, below=1)
        check.that(
            self.activation in ACTIVATIONS, f"activation={self.activation!r} is none of {', '.join(ACTIVATIONS)}"
        )
        check.done()

    @property
    def widths(self) -> tuple[int, ...]:
        """The hidden ones, always several."""
        return tuple(self.hidden) if isinstance(self.hidden, (tuple, list)) else (self.hidden,)

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """A neck, and a head that fits it."""
        old, below = model.head, [] if isinstance(model.neck, nn.Identity) else [model.neck]
        draw = drawing(facts.seed, "mlp_head", len(list(model.neck.modules())))
        layers = mlp((old.in_features, *self.widths, old.out_features), draw, self.activation, self.dropout)
        *hidden, head = (layer.to(old.weight.device) for layer in layers)
        assert isinstance(head, nn.Linear)
        model.neck, model.head = nn.Sequential(*below, *hidden), head
