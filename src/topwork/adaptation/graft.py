"""A trunk with a new top, and the method that tunes it by any number of techniques.

    z = neck(trunk(x))  (B, D)        logits = head(z)  (B, C)        L = task(logits, y) + further terms

What does not learn stands still: modules without a parameter that learns are in eval mode, so that neither their
batch statistics nor their dropout move while the rest is trained.

    Tune(techniques, head)     the first technique says what may learn (tuning/); the others add to it. The task loss is
                               that of the first technique that has one, else cross-entropy (several labels: binary), of
                               numbers squared error
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork import plugins
from topwork.adaptation import Batch, Facts, Method, Technique
from topwork.errors import BadSetting, UnknownName

TUNING = "adaptation.tuning"
ROOMS = (
    TUNING,
    "adaptation.surgery",
    "adaptation.regularization",
    "adaptation.losses",
    "adaptation.augmentation",
    "adaptation.robust",
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a batch, with gradients."""

    features: Tensor  # (B, D)
    logits: Tensor  # (B, C)


class Grafted(nn.Module):
    """A trunk, perhaps layers between, and a linear head."""

    def __init__(
        self,
        trunk: nn.Module,
        head: nn.Linear,
        neck: nn.Module | None = None,
        stages: Sequence[Sequence[str]] = (),
        costs: Sequence[Sequence[float]] = (),
    ) -> None:
        """`stages`: names of the trunk's modules in the order in which data go through them, a list per stage.

        `costs`: share of the multiply-adds of each of them; () where what is frozen was taken off the trunk.
        """
        super().__init__()
        self.trunk, self.neck, self.head = trunk, neck or nn.Identity(), head
        self.stages = tuple(tuple(stage) for stage in stages) or tuple((n,) for n, _ in trunk.named_children())
        self.costs = tuple(tuple(stage) for stage in costs)
        self.still: set[nn.Module] = set()  # modules that stay in eval mode though they may learn

    def forward(self, *views: Tensor) -> Answer:
        """Images, or what goes into the part of the trunk that is not cached."""
        features = self.neck(self.trunk(*views))
        return Answer(features, self.head(features))

    def train(self, mode: bool = True) -> Grafted:
        """Training mode for what learns, eval mode for what does not."""
        super().train(mode)
        if mode:
            _settle(self, False, self.still)
        return self


def _settle(module: nn.Module, frozen: bool, still: set[nn.Module]) -> None:
    own = list(module.parameters())
    frozen = not any(p.requires_grad for p in own) if own else frozen
    module.training = not frozen and module not in still
    for child in module.children():
        _settle(child, frozen or module in still, still)


@dataclass(frozen=True, kw_only=True)
class Scope(Technique):
    """A technique of tuning/: what learns, how long and how fast; None is left to us."""

    epochs: int | None = None
    rate: float | str | None = None  # peak learning rate of the trunk; "find": by a learning-rate finder
    batch: int | None = None
    optimizer: str = "adamw"  # or adam, sgd
    weight_decay: float = 0.01
    ema: float = 0.0  # decay of the moving average of the weights; 0: the last ones
    head: str = "probe"  # where the head begins: the solved probe, or "new"
    head_rate: float = 1.0  # multiple of the trunk's rate
    norms: str = "train"  # or "frozen": batch statistics stay those of the pretraining
    views: int | None = None  # augmented views of an item that are cached, where a frozen part is
    store: str = "float16"  # how they are stored: float16, uint8, float32
    patience: int = 0  # epochs without a smaller log loss on items kept aside, after which it ends; 0: none are

    RATE: ClassVar[float] = 1e-3  # where none is named
    TEXT_RATE: ClassVar[float] = 5e-5  # the same for encoders of texts
    SOLVES: ClassVar[bool] = False  # the head is solved on the tuned features when the training is over
    LONGER: ClassVar[float] = 1.0  # times the usual number of items are shown, where no epochs are named

    def check(self) -> list[str]:
        """What is wrong with the shared options."""
        return [
            problem
            for good, problem in (
                (self.epochs is None or (type(self.epochs) is int and self.epochs >= 1), f"epochs={self.epochs!r}"),
                (self.rate in (None, "find") or _positive(self.rate), f"rate={self.rate!r}"),
                (self.batch is None or (type(self.batch) is int and self.batch >= 2), f"batch={self.batch!r}"),
                (self.optimizer in ("adamw", "adam", "sgd"), f"optimizer={self.optimizer!r}"),
                (0 <= self.weight_decay < float("inf"), f"weight_decay={self.weight_decay!r}"),
                (0 <= self.ema < 1, f"ema={self.ema!r}"),
                (self.head in ("probe", "new"), f"head={self.head!r}"),
                (0 < self.head_rate < float("inf"), f"head_rate={self.head_rate!r}"),
                (self.norms in ("train", "frozen"), f"norms={self.norms!r}"),
                (self.views is None or (type(self.views) is int and self.views >= 0), f"views={self.views!r}"),
                (self.store in ("float16", "uint8", "float32"), f"store={self.store!r}"),
                (type(self.patience) is int and self.patience >= 0, f"patience={self.patience!r}"),
            )
            if not good
        ]

    def __post_init__(self) -> None:
        if problems := self.check():
            raise BadSetting(f"{type(self).__name__}: {'; '.join(problems)} cannot be. See `topwork list tuning`")

    def usual_rate(self, modality: str) -> float:
        """Peak learning rate where none is named."""
        return self.TEXT_RATE if modality == "text" else self.RATE

    def passes(self) -> int | None:
        """Epochs, where they are named."""
        return self.epochs

    def batch_of(self, items: int, usual: int) -> int:
        """Items at once: as asked, or as usual, but at least four batches an epoch."""
        return self.batch or min(usual, max(2, items // 4))

    def boundary(self, shares: Sequence[Sequence[float]]) -> int:
        """How many layers from below are frozen for good; `shares` of the multiply-adds, layer by layer per stage."""
        return 0

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Everything learns."""
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        self.settle_norms(model)

    def settle_norms(self, model: Grafted) -> None:
        """Leave batch statistics as they are, if so asked."""
        if self.norms == "frozen":
            model.still |= {m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """The head's, and that of fresh layers below it."""
        return {"neck.": self.head_rate, "head.": self.head_rate}


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def techniques(spec: str) -> tuple[Technique, ...]:
    """Of "last_stages(1) + l2_sp + mixup(alpha=0.2)"; raises BadSetting or UnknownName."""
    parts = [part.strip() for part in _split(spec)]
    made: list[tuple[str, Technique]] = []
    for at, part in enumerate(parts):
        name = part.partition("(")[0].strip()
        rooms = ROOMS[:1] if at == 0 else ROOMS[1:]
        room = next((room for room in rooms if name in plugins.names(room)), None)
        if room is None:
            raise UnknownName.among(name, "techniques", sorted(n for r in rooms for n in plugins.names(r)))
        made.append((room, plugins.make(room, part)))
    if sum(room == "adaptation.losses" for room, _ in made) > 1:
        raise BadSetting(f"'{spec}' names more than one loss. Expected one: the task has one cost")
    return tuple(technique for _, technique in sorted(made, key=lambda pair: _turn(pair[0])))


def _turn(room: str) -> int:
    """What changes the layers comes before what remembers them or listens to them; else the order is the user's."""
    return min(ROOMS.index(room), 2)


def check_items(parts: Sequence[Technique], modality: str, numeric: bool | None = None) -> None:
    """Raise BadSetting for what cannot work on such items or targets; numeric None: that is not known yet."""
    for part in parts:
        name = name_of(part)
        if numeric is not None and (goal := "numbers" if numeric else "classes") not in part.goals:
            raise BadSetting(f"{name} is for {' and '.join(part.goals)}, and these targets are {goal}. Leave it out")
        if modality not in part.modalities:
            raise BadSetting(
                f"{name} works on {'s or '.join(part.modalities)}s, and these items are {modality}s. Leave it out"
            )


def name_of(part: Technique) -> str:
    """As a spec writes it: l2_sp of L2Sp."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(part).__name__).lstrip("_")


def is_tuning(spec: str) -> bool:
    """Whether a step's spec begins with a technique of tuning/; nothing is imported."""
    return spec.partition("(")[0].partition("+")[0].strip() in plugins.names(TUNING)


def _split(spec: str) -> list[str]:
    """Split at the plus signs outside brackets."""
    parts, depth = [""], 0
    for letter in spec:
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


@dataclass(frozen=True, eq=False)
class Tune(Method):
    """A tuning: techniques on one model."""

    parts: tuple[Technique, ...]
    weight: NDArray[np.float32]  # (D, C) of the head to begin with
    bias: NDArray[np.float32]  # (C,)
    stages: tuple[tuple[str, ...], ...] = ()  # of the trunk, for Grafted
    costs: tuple[tuple[float, ...], ...] = ()  # share of the multiply-adds of each
    views: tuple[str, ...] = ("light",)
    needs_labels: bool = field(default=True, init=False)

    @property
    def waits(self) -> bool:
        """Whether one of the techniques does."""
        return any(part.waits for part in self.parts)

    def shares(self, counts: tuple[int, ...]) -> tuple[float, ...] | None:
        """Those of the first technique that names some."""
        return next((said for part in self.parts if (said := part.shares(counts)) is not None), None)

    @property
    def episode(self) -> tuple[int, int] | None:
        """That of the first technique that wants some."""
        return next((said for part in self.parts if (said := part.episode) is not None), None)

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk with its head, made ready by every technique in turn."""
        check_items(self.parts, facts.modality, facts.numeric)
        features, classes = self.weight.shape
        head = nn.Linear(features, classes, device=next(trunk.parameters()).device)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(self.weight.T))
            head.bias.copy_(torch.from_numpy(self.bias))
        model = Grafted(trunk, head, stages=self.stages, costs=self.costs)
        for part in self.parts:
            part.prepare(model, facts)
        return model

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """The product of what the techniques say, parameter by parameter."""
        said = [part.rates(model) for part in self.parts]  # type: ignore[arg-type]
        return {name: float(np.prod([longest(rates, name) for rates in said])) for name, _ in model.named_parameters()}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The task's loss, and the techniques' terms."""
        assert isinstance(model, Grafted)
        for part in self.parts:
            batch = part.inputs(model, batch)
        answer = model(*batch.views)
        task = next((loss for part in self.parts if (loss := part.task(model, batch, answer)) is not None), None)
        terms = {"task": task_loss(answer.logits, batch) if task is None else task}
        for part in self.parts:
            terms |= part.loss(model, batch, answer)
        return terms

    def after(self, model: nn.Module, batch: Batch) -> None:
        """What the techniques do after the optimiser's step."""
        for part in self.parts:
            part.after(model, batch)  # type: ignore[arg-type]

    def finish(self, model: nn.Module) -> nn.Module:
        """The model, its training-time parts taken off in the opposite order."""
        for part in reversed(self.parts):
            part.finish(model)  # type: ignore[arg-type]
        return model


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean over the items: cross-entropy for classes (B,) or shares (B, C), a sigmoid for each of several labels.

    Numbers (B,): squared error.
    """
    if batch.numeric:
        return F.mse_loss(logits[:, 0].float(), batch.targets)
    if batch.multilabel:
        return F.binary_cross_entropy_with_logits(logits, batch.targets)
    return F.cross_entropy(logits, batch.targets)


def longest(rates: Mapping[str, float], name: str) -> float:
    """The value of the longest beginning of a name; 1 where none fits."""
    fitting = [beginning for beginning in rates if name.startswith(beginning)]
    return rates[max(fitting, key=len)] if fitting else 1.0
