"""DINO: small crops should be described as the slowly moving average of the network describes large ones.

    L = mean_{u in globals, v in all views, v != u}  - sum_k p_k(u) log q_k(v)
    p(u) = softmax((teacher(u) - c) / t_teacher),   q(v) = softmax(student(v) / t_student)          (B, K)

after each step:  teacher <- m teacher + (1 - m) student,   c <- m_c c + (1 - m_c) mean over images and globals of
teacher(u). The centre c keeps one number from winning everywhere, the sharp t_teacher keeps all from being equal.
t_teacher rises linearly from 0.04 to 0.07 over the first `warmup` of the training; m follows a cosine from `momentum`
to 1. student and teacher are a trunk, a perceptron whose output has length 1, and K prototypes of length 1, so that
logits are cosines. Prototypes stand still during the first `frozen` of the training. What is kept is the teacher's
trunk; it lives in the model, as parameters without gradients, and so in every checkpoint.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021.
We differ, for trainings of hundreds or thousands of steps: narrower layers, 1,024 prototypes instead of 65,536; a
teacher that follows within a tenth of the training (m from 1 - 10 / steps, where they begin at 0.996); BatchNorm in the
perceptron, which is an option of their code. The teacher drops nothing out; its BatchNorms estimate their own means.

Two sizes of images go through the student. Convolutional networks take that; a ViT must be built with timm's
dynamic_img_size=True, or `local=0`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.errors import BadSetting
from topwork.modalities.image_views import RECIPES
from topwork.nn.projector import projector

GLOBALS = 2


@dataclass(frozen=True)
class Dino(Method):
    """Self-distillation from large crops to small ones."""

    local: int = 4  # small crops beside the two large ones; each costs a quarter of a large one or less
    prototypes: int = 1024  # K
    hidden: int = 512  # width of the perceptron's two hidden layers
    bottleneck: int = 128  # width of what prototypes are compared with
    batch_norm: bool = True  # in the perceptron: differences between images count from the first step on
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # after the warm-up
    first_teacher_temperature: float = 0.04
    warmup: float = 0.3  # share of the training
    frozen: float = 0.02  # share of the training
    momentum: float | None = None  # m at the beginning; None: 1 - 10 / steps, at least 0.9 and at most 0.996
    centre_momentum: float = 0.9  # m_c
    views: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        check = Check("dino")
        check.whole("local", self.local, least=0)
        for name in ("prototypes", "hidden", "bottleneck"):
            check.whole(name, getattr(self, name), least=2)
        for name in ("student_temperature", "teacher_temperature", "first_teacher_temperature"):
            check.number(name, getattr(self, name), above=0)
        for name in ("warmup", "frozen", "centre_momentum"):
            check.share(name, getattr(self, name))
        if self.momentum is not None:
            check.share("momentum", self.momentum)
        check.that(isinstance(self.batch_norm, bool), f"batch_norm={self.batch_norm!r} is neither True nor False")
        check.done()
        object.__setattr__(self, "views", ("strong",) * GLOBALS + ("local",) * self.local)

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """Student and teacher, equal at the beginning."""
        if self.local:
            takes(trunk, RECIPES["local"].side_px(facts.size_px))
        widths = (facts.features, self.hidden, self.hidden, self.bottleneck)
        momentum = min(max(1 - 10 / facts.steps, 0.9), 0.996) if self.momentum is None else self.momentum
        return Pupil(trunk, Prototypes(widths, self.prototypes, facts.seed, self.batch_norm), momentum)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of every view with every global one that is not itself."""
        model, B = cast(Pupil, model), len(batch.rows)
        with torch.no_grad():
            teacher = model.teach(torch.cat(batch.views[:GLOBALS]))  # (2 B, K)
            model.latest.copy_(teacher.mean(0))
            target = F.softmax((teacher - model.centre) / self.temperature(batch.done), dim=1)
        sizes = {view.shape[-1] for view in batch.views}
        student = [
            model.student(torch.cat([v for v in batch.views if v.shape[-1] == px]), batch.done < self.frozen)
            for px in sorted(sizes, reverse=True)
        ]
        guess = F.log_softmax(torch.cat(student) / self.student_temperature, dim=1)
        return {"cross_entropy": cross_entropy(target.unflatten(0, (-1, B)), guess.unflatten(0, (-1, B)))}

    def after(self, model: nn.Module, batch: Batch) -> None:
        """Move the teacher and the centre."""
        cast(Pupil, model).follow(batch.done, self.centre_momentum)

    def finish(self, model: nn.Module) -> nn.Module:
        """The teacher's trunk, free to be trained further."""
        return copy.deepcopy(cast(Pupil, model).teacher.trunk).requires_grad_(True)

    def temperature(self, done: float) -> float:
        """t_teacher when `done` of the training lies behind."""
        share = min(done / self.warmup, 1.0) if self.warmup else 1.0
        return self.first_teacher_temperature + share * (self.teacher_temperature - self.first_teacher_temperature)


class Prototypes(nn.Module):
    """features (B, D) -> cosines (B, K) of a small perceptron's output with K prototypes."""

    def __init__(self, widths: tuple[int, ...], prototypes: int, seed: int, batch_norm: bool) -> None:
        super().__init__()
        self.perceptron = projector(widths, seed, nn.GELU, batch_norm)
        generator = torch.Generator().manual_seed(seed + 1)
        self.weight = nn.Parameter(torch.randn(prototypes, widths[-1], generator=generator))

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        """`frozen`: the prototypes get no gradient."""
        weight = self.weight.detach() if frozen else self.weight
        return F.normalize(self.perceptron(features), dim=1) @ F.normalize(weight, dim=1).T


class Net(nn.Module):
    """A trunk with its prototypes."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head


class Pupil(nn.Module):
    """The student (`trunk`, `head`), the teacher that follows it, and the centre of what the teacher says."""

    centre: Tensor  # (K,)
    latest: Tensor  # (K,) mean of what the teacher said last

    def __init__(self, trunk: nn.Module, head: Prototypes, momentum: float) -> None:
        super().__init__()
        self.trunk, self.head, self.first_momentum = trunk, head, momentum
        self.teacher = Net(copy.deepcopy(trunk), copy.deepcopy(head)).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(head.weight)))
        self.register_buffer("latest", torch.zeros(len(head.weight)))

    def student(self, images: Tensor, frozen: bool = False) -> Tensor:
        """(B, 3, S, S) -> (B, K)."""
        return self.head(self.trunk(images), frozen)

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, K); nothing is dropped at random, whatever mode the training is in."""
        for part in self.teacher.modules():
            if "drop" in type(part).__name__.lower():
                part.eval()
        return self.teacher.head(self.teacher.trunk(images))

    def momentum(self, done: float) -> float:
        """The teacher's momentum m when `done` of the training lies behind."""
        return 1 - (1 - self.first_momentum) * (math.cos(math.pi * done) + 1) / 2

    @torch.no_grad()
    def follow(self, done: float, centre_momentum: float) -> None:
        """Move the teacher towards the student, the centre towards what the teacher said last."""
        momentum = self.momentum(done)
        own = dict(self.named_parameters())
        for name, weight in self.teacher.named_parameters():
            weight.lerp_(own[name], 1 - momentum)
        self.centre.lerp_(self.latest, 1 - centre_momentum)


def cross_entropy(target: Tensor, guess: Tensor) -> Tensor:
    """Probabilities (U, B, K) of the first U views, log probabilities (V, B, K) of all V: mean over u != v, and B."""
    U, V = len(target), len(guess)
    terms = [-(target[u] * guess[v]).sum(1).mean() for u in range(U) for v in range(V) if u != v]
    return torch.stack(terms).mean()


def takes(trunk: nn.Module, side_px: int) -> None:
    """Stop if the trunk cannot see images of this size."""
    weight, training = next(trunk.parameters()), trunk.training
    try:
        with torch.no_grad():
            trunk.eval()(weight.new_zeros(1, 3, side_px, side_px))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BadSetting(
            f"dino: the trunk cannot see the small crops of {side_px} px ({str(error).splitlines()[0]}). Take a "
            "convolutional network, build the ViT with dynamic_img_size=True and an input of an even number of patches "
            "a side, or use dino(local=0)"
        ) from error
    finally:
        trunk.train(training)
