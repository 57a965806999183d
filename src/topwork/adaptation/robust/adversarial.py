"""Adversarial training: learn from the worst change that nobody would see.

    min over theta  E[ max over |d| <= eps  L(theta; x + d, y) ]      the inner maximum by PGD (nn.attack)

eps is in levels of 255, for every channel alike: the model sees (x - mean) / std, so there it is eps / (255 std). The
attack asks the model in eval mode, so that neither batch statistics nor dropout are part of it; what was found is then
learnt from as any other batch. A step costs 1 + `steps` forward and backward passes. Labels by themselves and shares
(after mixup) are attacked through the loss that they have.

    adversarial                                  PGD: Madry et al., Towards Deep Learning Models Resistant to
                                                 Adversarial Attacks, ICLR 2018
    adversarial(steps=1, random_start=False)     FGSM: Goodfellow et al., Explaining and Harnessing Adversarial
                                                 Examples, ICLR 2015
    adversarial(steps=1)                         with a random start: Wong et al., Fast is Better than Free, ICLR 2020
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Technique
from topwork.adaptation.graft import task_loss
from topwork.adaptation.options import Check
from topwork.errors import BadSetting
from topwork.nn.attack import limits, pgd

if TYPE_CHECKING:
    from topwork.adaptation.graft import Grafted

LIMITS = "adversarial_limits"  # buffer (3, 3) of the model while it is trained: low, high and one level, per channel


@dataclass(frozen=True)
class Adversarial(Technique):
    """Worst-case pictures."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)

    eps: float = 4.0  # largest change of a pixel, in levels of 255; higher = more robust, less accurate
    steps: int = 3  # of the attack; each costs a forward and a backward pass
    step_size: float | None = None  # in levels; None: 2.5 eps / steps, at most 1.25 eps
    share: float = 1.0  # of the items that are attacked
    random_start: bool = True  # anywhere within eps instead of at the picture itself

    def __post_init__(self) -> None:
        check = Check("adversarial")
        check.number("eps", self.eps, above=0, below=255)
        check.whole("steps", self.steps, least=1)
        if self.step_size is not None:
            check.number("step_size", self.step_size, above=0)
        check.share("share", self.share)
        check.that(isinstance(self.random_start, bool), f"random_start={self.random_start!r} is neither True nor False")
        check.done()

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Remember in which units the model sees pixels."""
        rows = [row.flatten() for row in limits(facts.mean, facts.std)]
        model.register_buffer(LIMITS, torch.stack(rows).to(model.head.weight.device))

    def inputs(self, model: Grafted, batch: Batch) -> Batch:
        """The batch with its attacked share."""
        if len(batch.views) != 1 or batch.views[0].ndim != 4 or batch.views[0].shape[1] != 3:
            shapes = ", ".join(str(tuple(view.shape[1:])) for view in batch.views)
            raise BadSetting(
                f"adversarial changes images (3, H, W); what goes into the part that learns has items of shape "
                f"{shapes}. Expected a tuning without a cache: full or lp_ft instead of last_stages"
            )
        images, B = batch.views[0], len(batch.rows)
        chosen = torch.randperm(B, generator=batch.generator)[: round(self.share * B)].sort().values.to(images.device)
        if not len(chosen):
            return batch
        low, high, level = getattr(model, LIMITS).view(3, 1, 3, 1, 1)
        step = self.step_size or self.eps * min(1.25, 2.5 / self.steps)

        def cost(logits: Tensor, targets: Tensor) -> Tensor:
            return task_loss(logits, dataclasses.replace(batch, targets=targets))

        with evaluating(model):
            attacked = pgd(
                lambda x: model(x).logits, images[chosen], batch.targets[chosen], self.eps * level, step * level,
                self.steps, batch.generator, low, high, self.random_start, cost=cost,
            )  # fmt: skip
        return dataclasses.replace(batch, views=(images.index_copy(0, chosen, attacked),))

    def finish(self, model: Grafted) -> None:
        """Forget the units."""
        delattr(model, LIMITS)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While it lasts, all of the model is in eval mode; then each module is in the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
