"""What `--steps` means: steps by name, each a backbone and ways to solve its head, before any of them is taken.

images   majority class -> raw pixels -> frozen probe -> last stages -> everything
texts    majority class -> n-grams -> static embeddings -> frozen encoder -> contrastive pairs -> last layers -> all
rows     majority class -> probe on the feature columns

Up to the probe the backbone is frozen and the head is solved on its cached features; a tuned step changes the backbone.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from topwork import plugins, processes
from topwork.adaptation import probe as probes
from topwork.backbones import find
from topwork.backbones.torch_backbone import need_train
from topwork.errors import BadSetting, UnknownName
from topwork.types import DEFAULTS, Backbone

if TYPE_CHECKING:
    from topwork.finetune import Bench
    from topwork.ground import Ground
    from topwork.terms import Terms

AUTO = ("majority", "pixels", "probe", "last_stages", "lp_ft")
AUTO_TEXT = ("majority", "ngrams", "static", "probe", "setfit", "last_stages", "lp_ft")
AUTO_ROW = ("majority", "probe")
SIMPLE = {  # steps that have a backbone of their own: which one, and how its head is solved
    "image": {"majority": ("bundled:pixels", "majority"), "pixels": ("bundled:pixels", "logistic")},
    "text": {
        "majority": ("bundled:text_small", "majority"),
        "ngrams": ("bundled:ngrams", "sparse_logistic"),
        "static": ("bundled:text_small", "logistic"),
    },
    "row": {"majority": ("bundled:columns", "majority")},
}
NUMBERS = {
    "majority": "mean",
    "logistic": "ridge",
    "sparse_logistic": "sparse_ridge",
}  # the same where they are targets
CONSTANT = (("majority",), ("mean",))  # methods that do not look at the item
CLASSES_ONLY = ("setfit",)
TUNING = "adaptation.tuning"


class Lesson(Protocol):
    """Other labelled data that a step learns from (`source_steps.py`)."""

    @property
    def names(self) -> str:
        """In one line."""
        ...

    def moved(self, given: Backbone, terms: Terms) -> tuple[Backbone, dict[str, Any]] | str:
        """The backbone after them, with what was proven about it; or, in words, why there is no time for them."""
        ...

    def joined(self, ground: Ground, backbone: Backbone, terms: Terms) -> tuple[Ground, Callable[[Bench], Bench]]:
        """The ground with their items behind it, and what puts them on a bench."""
        ...


@dataclass(frozen=True)
class Plan:
    """One step before it is taken: which backbone, which ways to solve the head."""

    name: str
    backbone: str
    methods: tuple[str, ...]
    required: bool = False  # taken whatever the budget says
    tuned: bool = False  # its method changes the backbone, too; of several the first that the time allows
    lesson: Lesson | None = None  # other labelled data to learn from


def usual(modality: str, backbone: str = "", numeric: bool = False) -> tuple[str, ...]:
    """The steps of `--steps auto`."""
    steps: tuple[str, ...] = {"image": AUTO, "text": AUTO_TEXT, "row": AUTO_ROW}[modality]
    if numeric:
        steps = tuple(NUMBERS.get(step, step) for step in steps if step not in CLASSES_ONLY)
    if backbone == DEFAULTS["text"]:  # it is a table: there are no layers to tune
        return tuple(step for step in steps if step != "static" and step not in plugins.names(TUNING))
    return steps


def plan(
    steps: str | Sequence[str], backbone: str, modality: str = "image", numeric: bool | None = None
) -> tuple[Plan, ...]:
    """Turn `--steps` into plans; `numeric`: whether targets are numbers, None where nobody knows yet.

    A probe by name, e.g. `logistic(l2=0.1)`, is a probe step solved in that way; what begins with a name of tuning/,
    e.g. `last_stages(1) + l2_sp`, changes the backbone. Raises BadSetting or UnknownName before any work begins.
    """
    auto = usual(modality, backbone, bool(numeric))
    wanted = auto if steps == "auto" else tuple(_split(steps) if isinstance(steps, str) else steps)
    if not wanted:
        raise BadSetting(f"--steps is empty. Expected auto, or some of: {', '.join(auto)}, or a probe such as logistic")
    names = NUMBERS if numeric else {}
    known = {
        names.get(name, name): Plan(names.get(name, name), trunk, (names.get(method, method),))
        for name, (trunk, method) in SIMPLE[modality].items()
    }
    only = names.get("logistic", "logistic")
    methods = (only,) if modality == "text" and backbone == DEFAULTS["text"] else ("auto",)
    known["probe"] = Plan("probe", backbone, methods)
    plans = []
    for spec in wanted if steps != "auto" else without_torch(wanted):
        tuned = spec.partition("+")[0].partition("(")[0].strip() in (*plugins.names(TUNING), "search")
        if tuned and steps != "auto":
            _check_tuning(spec, backbone, numeric)
        elif spec not in known and not tuned:
            name = spec.partition("(")[0].strip()
            if name not in plugins.names(probes.ROOM):
                raise UnknownName.among(
                    name, "steps", {*known, *plugins.names(probes.ROOM), *plugins.names(TUNING), "search"}
                )
            plugins.make(probes.ROOM, spec)
        named = known.get(spec, Plan(spec, backbone, (spec,), tuned=tuned))
        plans.append(dataclasses.replace(named, required=steps != "auto" or spec == auto[0]))
    return tuple(plans)


def reduced(plans: Sequence[Plan], by: str) -> tuple[Plan, ...]:
    """The plans with a reduction of the frozen features before every linear head; steps below and above stay."""
    below = {trunk for steps in SIMPLE.values() for trunk, _ in steps.values()} - {*DEFAULTS.values()}

    def behind(method: str) -> str:
        linear = method.partition("(")[0] in ("auto", "logistic", "ridge", "nearest_mean")
        return f"reduced(by={by!r}, probe={method!r})" if linear else method

    return tuple(
        one if one.tuned or one.backbone in below else dataclasses.replace(one, methods=tuple(map(behind, one.methods)))
        for one in plans
    )


def without_torch(steps: Sequence[str]) -> tuple[str, ...]:
    """The usual steps that can be taken here: those that change the backbone need torch."""
    if importlib.util.find_spec("torch") is not None:
        return tuple(steps)
    return tuple(step for step in steps if step not in plugins.names(TUNING))


def _check_tuning(spec: str, backbone: str, numeric: bool | None) -> None:
    """What can be wrong with a tuned step, before any work."""
    need_train(f"The step '{spec}'")
    from topwork import finetune, search

    if search.is_search(spec):
        if processes.count() > 1:
            raise BadSetting("A search tries one thing after the other in one process. Start it without a launcher")
        search.check(spec)
        find(backbone).module()
        return
    finetune.check(spec, find(backbone), numeric)  # an ONNX file can only be used frozen


def _split(steps: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in steps:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
