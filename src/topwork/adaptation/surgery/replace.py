"""A layer of the trunk makes room for another one, by name: replace(layer="blocks.6.0.bn3", by="identity").

    identity   dropout(p)   relu gelu silu ...      in place of anything whose output keeps the shape of its input
    linear     linear(n)   mlp   mlp(n)             fresh, in place of a Linear D -> C: D -> C; D -> n; D -> n -> C

Whether the shapes fit is tried before the training begins. What is frozen and cached (last_stages) is not in the
trunk any more, so nothing there can be replaced; replace it under lp_ft or full.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import torch
from torch import fx, nn

from topwork.adaptation import Facts, Technique
from topwork.adaptation.graft import Grafted
from topwork.adaptation.layers import ACTIVATIONS, drawing, is_norm, linear, looking, mlp, two_items
from topwork.errors import BadSetting

FRESH = ("linear", "mlp")
KNOWN = ("identity", "dropout", *FRESH, *ACTIVATIONS)
OUTER = "network."  # the trunk's own name for the network that it holds; users need not write it


@dataclass(frozen=True)
class Replace(Technique):
    """One layer for another."""

    layer: str = ""  # name in the trunk
    by: str = "identity"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str):
            raise BadSetting(f"replace: layer={self.layer!r} is not a name. Expected e.g. layer='blocks.6.0.bn3'")
        parse(self.by)

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Put the new layer in place, and try it."""
        name = self.found(model.trunk)
        old = model.trunk.get_submodule(name)
        new = build(self.by, old, drawing(facts.seed, "replace", name))
        new = new.to(next((p.device for p in model.trunk.parameters()), torch.device("cpu")))
        model.trunk.set_submodule(name, new)
        if problem := _by_kind(old, new) if _is_cut(model.trunk) else _by_trial(model, facts):
            model.trunk.set_submodule(name, old)
            raise BadSetting(f"replace: {self.by} does not fit in place of {name} ({type(old).__name__}): {problem}")

    def found(self, trunk: nn.Module) -> str:
        """The full name of the layer; raises BadSetting with near names."""
        names = [name for name, _ in trunk.named_modules(remove_duplicate=False) if name]
        for name in (self.layer, OUTER + self.layer):
            if name in names:
                return name
        short = [name.removeprefix(OUTER) for name in names]
        near = difflib.get_close_matches(self.layer, short, n=3) or short[:3]
        cut = " Stages that are frozen and cached cannot be replaced: tune with lp_ft or full" if _is_cut(trunk) else ""
        raise BadSetting(
            f"replace: the trunk has no layer '{self.layer}' among {len(names)}. Near: {', '.join(near)}.{cut}"
        )


def parse(by: str) -> tuple[str, float | None]:
    """ "mlp(256)" -> ("mlp", 256.0); raises BadSetting for anything that is not in the table."""
    match = re.fullmatch(r"(\w+)(?:\((\d+(?:\.\d*)?|\.\d+)\))?", by) if isinstance(by, str) else None
    name, number = (match[1], float(match[2]) if match[2] else None) if match else ("", None)
    good = name in KNOWN and {
        "dropout": number is None or number < 1,
        **dict.fromkeys(FRESH, number is None or (number >= 1 and number == int(number))),
    }.get(name, number is None)
    if not good:
        raise BadSetting(f"replace: by={by!r} cannot be. Expected one of: dropout(0.3), mlp(256), linear(256), "
                         f"{', '.join(name for name in KNOWN if name != 'dropout')}")  # fmt: skip
    return name, number


def build(by: str, old: nn.Module, draw: torch.Generator) -> nn.Module:
    """The new layer."""
    name, number = parse(by)
    if name == "identity":
        return nn.Identity()
    if name == "dropout":
        return nn.Dropout(0.5 if number is None else number)
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]()
    if not isinstance(old, nn.Linear):
        raise BadSetting(f"replace: {by} can take the place of a Linear layer, not of {type(old).__name__}")
    D, C = old.in_features, old.out_features
    if name == "linear":
        return linear(D, int(number or C), draw)
    return nn.Sequential(*mlp((D, int(number or D), C), draw))


def _is_cut(trunk: nn.Module) -> bool:
    return isinstance(trunk, fx.GraphModule) or getattr(trunk, "is_cut", False)


def _by_trial(model: Grafted, facts: Facts) -> str:
    """What goes wrong with two items, if anything."""
    try:
        with looking(model):
            answer = model(*two_items(facts, next(model.parameters()).device))
    except Exception as error:  # networks are foreign code
        return " ".join(str(error).split())[:200]
    return "" if answer.logits.shape == (2, model.head.out_features) else f"logits {tuple(answer.logits.shape)}"


def _by_kind(old: nn.Module, new: nn.Module) -> str:
    """Whether both keep the shape of what goes in, or map D to C alike: all that is known above a cached boundary."""
    if isinstance(new, (nn.Linear, nn.Sequential)):
        given, wanted = [m for m in new.modules() if isinstance(m, nn.Linear)][-1].out_features, old.out_features
        return "" if given == wanted else f"it gives {given} numbers, {wanted} are expected"
    same = isinstance(old, (nn.Identity, nn.Dropout, *ACTIVATIONS.values())) or is_norm(old)
    same |= isinstance(old, nn.Linear) and old.in_features == old.out_features
    return "" if same else "above a cached boundary only layers that keep the shape can go. Tune with lp_ft or full"
