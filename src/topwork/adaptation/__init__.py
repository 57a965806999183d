"""Ways to adapt a pretrained trunk to a new task, or to make one; one folder per role of a method.

probe/           heads solved on frozen, cached features, with no training loop
reduction/       linear maps between frozen features and a head: pca, whitening, random_projection
pretraining/     objectives that make a trunk: supervised, simclr, barlow_twins, dino, mae, distillation, multi_source,
                 prototypical, reptile; of texts masked_language
tuning/          what of a trunk and its head may learn, and how: last_stages, full, lp_ft, lora, ...
surgery/         what changes the layers themselves: mlp_head, replace
regularization/  what holds a tuning near its start or evens it out: l2_sp, delta, bss, ...
losses/          what a wrong answer costs: cross_entropy, focal, logit_adjusted, ...
augmentation/    what the items look like while they are learnt: views, mixup, cutmix, ...
robust/          learning from the worst of all small changes
feed.py          items in the order of an epoch, as views: every batch a function of its step
graft.py         a trunk with a new top, and the method that tunes it by any number of techniques
joint.py         a technique for several sources at once, a head for each
parts.py         a step in smaller parts, where memory runs out
sharded.py       a model of which every process keeps a part
plan.py          what shapes a training, and its optimiser     together.py   several methods as one module
work.py          what a training works on, and one step of it  patience.py   early stopping
checkpoint.py    what outlasts a step                          loss_log.py   losses on their way out
rehearsal.py     a copy that is thrown away tells the pace, or a learning rate
loop.py          the one training loop; it asks every method the same few questions:

    model = method.prepare(trunk, facts)       add heads, freeze, remember the start
    rates = method.rates(model)                which parameters learn slower or faster than the others
    terms = method.loss(model, batch)          named loss terms; the loop sums them and logs each by name
    method.after(model, batch)                 after the optimiser's step: moving averages, queues kept in buffers
    trunk = method.finish(model)               what is left when the training-time parts are taken off

Pretraining objectives are methods. A tuning is one method (`graft.Tune`) made of techniques, which are asked the same
questions about a model that is there already: "last_stages(1) + l2_sp + mixup".

Everything that is drawn at random comes from `batch.generator`, everything that is remembered is a parameter or a
buffer of the model: then a training that was killed and resumed gives the bits of one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from topwork.adaptation.graft import Answer, Grafted


@dataclass(frozen=True)
class Facts:
    """What a method may know before the training begins."""

    features: int  # D of the trunk
    size_px: int  # side of the images that the trunk sees
    classes: tuple[int, ...]  # C of every labelled source; () when there are no labels
    items: int  # N
    steps: int  # optimiser steps of the whole training
    extras: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # shape per item of what `extras` asked for
    seed: int = 0
    moments: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """Mean and standard deviation over the items of every extra: arrays of the shape that `extras` says."""
    counts: tuple[int, ...] = ()  # (C,) items of each class of the labelled source, where there is one
    multilabel: bool = False  # an item may have several labels
    numeric: bool = False  # targets are numbers, in standard deviations from their mean
    source_head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """Weight (D, Z) and bias (Z,) of the classifier that the trunk was trained with, where they are known."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # images are (pixel / 255 - mean) / std, channel by channel
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    modality: str = "image"  # of the items
    example: tuple[Tensor, ...] | None = None  # what the trunk is asked about two items; None: two black images
    vocabulary: Vocabulary | None = None  # of the tokens of texts


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers of a text's tokens mean, as far as a method must know."""

    size: int  # V
    mask: int | None  # the token that stands for one that is hidden
    special: tuple[int, ...] = ()  # padding, beginnings, ends: never hidden


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loss is asked about. B items, V views of each."""

    views: tuple[Tensor, ...]  # V of (B, 3, S, S) float32, normalised, in the order of the method's `views`; while a
    # part of the trunk is frozen and cached: what goes into the rest of it, any number of float32 (B, ...). Of texts:
    # ids int64 (B, L) and weights float32 (B, L), before them the cached states (B, L, D) where there are some
    rows: Tensor  # (B,) int64: numbers of the items
    targets: Tensor  # (B,) int64 class of each item within its source; -1: not labelled. Or (B, C) float32: shares.
    # Or (B,) float32: numbers, in standard deviations from their mean
    source: Tensor  # (B,) int64: which labelled source an item comes from; 0 when there is one
    extras: Mapping[str, Tensor]  # per item, float32 (B, ...), e.g. "teacher" features
    step: int  # 0 .. steps - 1
    done: float  # share of the training that lies behind: step / steps
    generator: torch.Generator  # CPU; seeded by (seed, step): the only source of randomness in a loss
    multilabel: bool = False  # targets are (B, C), each label by itself

    @property
    def numeric(self) -> bool:
        """Whether targets are numbers."""
        return self.targets.ndim == 1 and self.targets.is_floating_point()


class Method:
    """One way of learning: a frozen dataclass whose fields are its options, with any of these.

    `views` names the augmentations (modalities.image_views) that one item is shown in; `extras` what must be computed
    once per item before the training begins.
    """

    views: tuple[str, ...] = ("light",)
    needs_labels: bool = False
    modality: ClassVar[str] = "image"

    @property
    def episode(self) -> tuple[int, int] | None:
        """Classes of one source, and items of each, that are shown one after the other; None: items in any order."""
        return None

    @property
    def extras(self) -> Mapping[str, str]:
        """What to compute once per item before the training: name -> spec of a backbone whose features are meant."""
        return {}

    @property
    def waits(self) -> bool:
        """Whether what may learn has no gradient in some steps; several processes then look for it in each."""
        return False

    def shares(self, counts: tuple[int, ...]) -> tuple[float, ...] | None:
        """How often each source of so many items is drawn, summing to 1; None: every item once per epoch."""

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """A model with `.trunk`, and the heads that the loss needs; raises BadSetting for a trunk that cannot do it."""
        raise NotImplementedError

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """Multiples of the learning rate by beginnings of parameter names, the longest that fits; {}: 1 for all."""
        return {}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalar terms by name; their sum is minimised."""
        raise NotImplementedError

    def after(self, model: nn.Module, batch: Batch) -> None:
        """Called after every optimiser step."""

    def finish(self, model: nn.Module) -> nn.Module:
        """The trunk alone."""
        return model.trunk  # type: ignore[return-value]


class Technique:
    """One thing that shapes a tuning: a frozen dataclass whose fields are its options, with any of these.

    Several of them share one model (`graft.Grafted`: trunk, neck, head) and one forward pass per batch. They are asked
    in the order in which they were named; the first is of tuning/ and says what may learn.
    """

    @property
    def waits(self) -> bool:
        """Whether what may learn has no gradient in some steps."""
        return False

    needs_source_head: ClassVar[bool] = False  # `facts.source_head` is wanted
    modalities: ClassVar[tuple[str, ...]] = ("image", "text")  # of the items that it can work on
    goals: ClassVar[tuple[str, ...]] = ("classes", "numbers")  # kinds of targets that it can work on
    whole: ClassVar[bool] = False  # changes what goes in: no part of the trunk may be cached

    @property
    def episode(self) -> tuple[int, int] | None:
        """Classes, and items of each, that are shown one after the other; None: items in any order."""
        return None

    def shares(self, counts: tuple[int, ...]) -> tuple[float, ...] | None:
        """How often each source of so many items is drawn, where several are learnt from."""

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Freeze, inject, remember the start as buffers; raises BadSetting for a model that cannot do it."""

    def rates(self, model: Grafted) -> Mapping[str, float]:
        """Multiples of the learning rate by beginnings of parameter names; those of several techniques multiply."""
        return {}

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch as the model shall see it: mixed, masked, attacked; `targets` may become shares (B, C)."""
        return batch

    def task(self, model: Grafted, batch: Batch, answer: Answer) -> Tensor | None:
        """The scalar task loss, where this technique is one; else None."""
        return None

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """Further scalar terms by name."""
        return {}

    def after(self, model: Grafted, batch: Batch) -> None:
        """Called after every optimiser step."""

    def finish(self, model: Grafted) -> None:
        """Take off what was needed for training only: afterwards trunk, neck and head are what is shipped."""
