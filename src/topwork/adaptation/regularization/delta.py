"""Keep feature maps like those of the start, channel by channel.

    L = alpha sum_l sum_ic a_lc |M_lc(x_i) - M0_lc(x_i)|^2 / sum_ic |M0_lc(x_i)|^2  +  beta / 2 |v|^2

M_lc: channel c of the C_l channels in the map of stage l; M0: the same of the network as it was before the training,
which runs beside the new one on the same views (a pass forward more per step); v: the head. Plain, a = 1.
With `attention`, a_l = C_l softmax(r_l / 5): r is how much the loss rises when a channel is taken away from M0,
standardised over the channels of a stage. Channels that matter for the new task are held, the others may learn.

The rise is measured on the batch itself with the head of the moment, to first order: taking channel c away changes the
loss by -sum_p M0_cp dL/dM0_cp. One pass backward through the old network tells all channels; the paper measures once,
on four batches, with a pass forward for every channel (thousands). It says something only as far as the head knows
something. Of every stage we take the last map, after norm and activation, or the last tokens; without either, features.

Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019. Theirs are distances of what
convolutions give before their norms, relative to nothing, with alpha 0.01. Behind norms maps are far larger: the same
formula gave 1,400 for mobilenetv2 on photos at the first step, beside a task loss of 0.7. Hence shares of the old map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import Answer, Grafted, task_loss
from topwork.adaptation.options import Check
from topwork.adaptation.regularization._start import START, add, keep_trunk, started, take_off
from topwork.adaptation.regularization.l2_sp import size_of_new
from topwork.errors import BadSetting

NAME = "delta"
SOFTNESS = 5.0  # temperature of the softmax over channels
TINY = 1e-12

Maps = dict[int, Tensor]  # stage -> as the layer gives it: (B, C, H, W), tokens (B, L, C), features (B, C)


class Watch:
    """The last map of every stage of a trunk, while data go through it."""

    def __init__(self, trunk: nn.Module, stages: Sequence[Sequence[str]]) -> None:
        self.maps: Maps = {}
        known = dict(trunk.named_modules())
        watched = [(k, known[name]) for k, names in enumerate(stages) for name in names if name in known]
        self.handles = [module.register_forward_hook(partial(self.note, k)) for k, module in watched]

    def note(self, stage: int, module: nn.Module, args: Any, out: Any) -> None:
        """Keep what a module gives; what has one place only does not replace what has several."""
        if isinstance(out, Tensor) and 2 <= out.ndim <= 4 and out.is_floating_point():
            several = channels_first(out).shape[2] > 1
            if several or stage not in self.maps or channels_first(self.maps[stage]).shape[2] == 1:
                self.maps[stage] = out

    def take(self) -> Maps:
        """The maps of this pass."""
        maps, self.maps = self.maps, {}
        return maps

    def stop(self) -> None:
        """Look away."""
        for handle in self.handles:
            handle.remove()


class Compared(nn.Module):
    """Which maps belong to which answer: others may send other images through the model before the loss is asked."""

    def __init__(self, model: Grafted) -> None:
        super().__init__()
        self.watch = Watch(model.trunk, model.stages)
        self.of: WeakKeyDictionary[Answer, Maps] = WeakKeyDictionary()
        self.handle = model.register_forward_hook(self.belong)

    def belong(self, model: nn.Module, args: Any, answer: Answer) -> None:
        """Keep the maps as long as the answer lives."""
        self.of[answer] = self.watch.take()

    def stop(self) -> None:
        """Look away."""
        self.watch.stop()
        self.handle.remove()


@dataclass(frozen=True)
class Delta(Technique):
    """Distance between feature maps."""

    alpha: float = 1.0
    beta: float = 0.01
    attention: bool = False  # weigh channels; a pass backward through the old network more per step

    def __post_init__(self) -> None:
        check = Check(NAME)
        check.number("alpha", self.alpha, above=0)
        check.number("beta", self.beta, above=-TINY)
        check.that(isinstance(self.attention, bool), f"attention={self.attention!r} is neither True nor False")
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember the trunk, and watch its stages."""
        if self.attention and facts.modality == "text":
            raise BadSetting(
                "delta: attention=True follows slopes back to the items, and texts have none. Leave it out"
            )
        keep_trunk(model)  # before it is watched, so that the copy is not
        compared = Compared(model)
        if not compared.watch.handles:
            compared.stop()
            take_off(model, START)
            raise BadSetting(
                "delta: the trunk has no stages whose maps could be compared. Take l2_sp, which needs none"
            )
        add(model, NAME, compared)

    def loss(self, model: Grafted, batch: Batch, answer: Answer) -> dict[str, Tensor]:
        """The distance, and the size of the head."""
        new = cast(Compared, model.get_submodule(NAME)).of.pop(answer)
        old, weights = self._beside(model, batch)
        distances = [distance(new[k], old[k], weights.get(k)) for k in new.keys() & old.keys()]
        terms = {NAME: self.alpha * torch.stack(distances).sum()}
        return terms | ({"delta_head": self.beta / 2 * size_of_new(model)} if self.beta else {})

    def finish(self, model: Grafted) -> None:
        """Forget the start, and look away."""
        cast(Compared, model.get_submodule(NAME)).stop()
        take_off(model, NAME, START)

    def _beside(self, model: Grafted, batch: Batch) -> tuple[Maps, Maps]:
        """Maps of the network as it was, and the weights (C,) of their channels if these are asked for."""
        watch = Watch(started(model), model.stages)
        try:
            with torch.set_grad_enabled(self.attention):
                views = tuple(x.detach().requires_grad_(self.attention) for x in batch.views)
                features = started(model)(*views)
                old = watch.take()
                if not self.attention:
                    return old, {}
                rises = rise(old, task_loss(_logits(model, features), batch))
        finally:
            watch.stop()
        return {k: m.detach() for k, m in old.items()}, {k: attention(r) for k, r in rises.items()}


def distance(new: Tensor, old: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted square distance of two maps, as a share of the old one's square."""
    then = channels_first(old).float()
    gap = (channels_first(new).float() - then).square().sum((0, 2))  # (C,)
    return (gap if weights is None else gap * weights).sum() / then.square().sum().clamp(min=TINY)


def rise(maps: Maps, loss: Tensor) -> Maps:
    """(C,) of every stage: how much the loss rises without a channel, to first order."""
    slopes = torch.autograd.grad(loss, list(maps.values()), allow_unused=True)
    return {
        stage: -(channels_first(m.detach()) * channels_first(g)).sum((0, 2)).float()
        for (stage, m), g in zip(maps.items(), slopes, strict=True)
        if g is not None
    }


def attention(rises: Tensor) -> Tensor:
    """C softmax(standardised rises / 5), (C,): 1 on average."""
    standard = (rises - rises.mean()) / (rises.std(correction=0) + TINY)
    return len(rises) * (standard / SOFTNESS).softmax(0)


def channels_first(x: Tensor) -> Tensor:
    """(B, C, H, W), (B, L, C) or (B, C) -> (B, C, P)."""
    if x.ndim == 3:
        return x.transpose(1, 2)
    return x.flatten(2) if x.ndim == 4 else x[:, :, None]


def _logits(model: Grafted, features: Tensor) -> Tensor:
    """(B, C) by the head of the moment, whose parameters get no gradient from this: only the maps are asked."""
    return F.linear(model.neck(features), model.head.weight, model.head.bias)
