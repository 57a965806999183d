"""Learn to see what a bigger, frozen teacher sees: its features, and the shape of the cloud that they form.

    L = a L_F + b L_D + c L_A                                              l: Huber's loss with delta 1
    L_F = mean_{i,d} ((P z_i)_d - g_id)^2                  g = (f - mean) / std over the items
    L_D = mean_{i != j} l(|z_i - z_j| / m_z, |f_i - f_j| / m_f)            m: mean distance of two items of the batch
    L_A = mean_{i, j, k different} l(cos at j of z_i z_j z_k, cos at j of f_i f_j f_k)

z (B, D): student's features of a view; f (B, E): teacher's features of the plain image, computed once per image and
cached; P: a linear map that is thrown away. The teacher never sees the augmented view: what it says of the image holds
for every crop.

Feature: Romero et al., FitNets, ICLR 2015, on the last features. Relations: Park et al., Relational Knowledge
Distillation, CVPR 2019; their sums over pairs and triples are means here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check

FLOOR = 0.01  # of the mean deviation: a feature that hardly ever varies must not dominate
TINY = 1e-12


class Student(nn.Module):
    """A trunk, a projection into the teacher's space, and that space's mean and deviation."""

    def __init__(self, trunk: nn.Module, facts: Facts) -> None:
        super().__init__()
        mean, std = (torch.from_numpy(x).float() for x in facts.moments["teacher"])
        self.trunk, self.project = trunk, nn.Linear(facts.features, len(mean))
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std + FLOOR * std.mean() + TINY)


@dataclass(frozen=True)
class Distillation(Method):
    """A teacher's features and their relations."""

    teacher: str = "bundled"  # backbone: bundled, timm:NAME, torchvision:NAME or local:FOLDER
    feature: float = 1.0  # a
    distance: float = 1.0  # b
    angle: float = 2.0  # c; its cost grows with the cube of the batch

    def __post_init__(self) -> None:
        check = Check("distillation")
        check.that(isinstance(self.teacher, str) and bool(self.teacher), f"teacher={self.teacher!r} names no backbone")
        for name in ("feature", "distance", "angle"):
            check.number(name, getattr(self, name), above=-TINY)
        if not check.problems:
            check.that(self.feature + self.distance + self.angle > 0, "all weights are 0, so there is nothing to learn")
        check.done()

    @property
    def extras(self) -> Mapping[str, str]:
        """The teacher's features."""
        return {"teacher": self.teacher}

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """Trunk, projection, and the teacher's mean and deviation."""
        return Student(trunk, facts)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The terms whose weight is not 0."""
        student = cast(Student, model)
        z, f = student.trunk(batch.views[0]).float(), batch.extras["teacher"]  # (B, D), (B, E)
        terms = {}
        if self.feature:
            goal = (f - student.mean) / student.std
            terms["feature"] = self.feature * F.mse_loss(student.project(z).float(), goal)
        if self.distance:
            terms["distance"] = self.distance * distance_loss(z, f)
        if self.angle:
            terms["angle"] = self.angle * angle_loss(z, f)
        return terms


def distance_loss(z: Tensor, f: Tensor) -> Tensor:
    """L_D of student (B, D) and teacher (B, E)."""
    if len(z) < 2:
        return 0.0 * z.sum()
    ours, theirs = F.pdist(z), F.pdist(f)  # all pairs i < j
    return F.huber_loss(ours / ours.mean().clamp(min=TINY), theirs / theirs.mean().clamp(min=TINY))


def angle_loss(z: Tensor, f: Tensor) -> Tensor:
    """L_A of student (B, D) and teacher (B, E)."""
    B = len(z)
    apart = ~torch.eye(B, dtype=torch.bool, device=z.device)
    triples = apart[:, :, None] & apart[None] & apart[:, None]  # (B, B, B): j, i, k all different
    gap = F.huber_loss(cosines(z), cosines(f), reduction="none")
    return (gap * triples).sum() / triples.sum().clamp(min=1)


def cosines(x: Tensor) -> Tensor:
    """(B, B, B): at [j, i, k] the cosine of the angle at x_j between x_i and x_k; 0 where two of them are one point."""
    e = x[None] - x[:, None]  # (B, B, D): e[j, i] = x_i - x_j
    length = e.square().sum(2, keepdim=True)
    e = e / length.clamp(min=TINY).sqrt()
    return e @ e.transpose(1, 2)
