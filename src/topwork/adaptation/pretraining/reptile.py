"""Learn weights from which a few steps of plain descent on a small task lead far: first-order meta-learning.

    a task: the classes of one source in the batch; its items in k + 1 parts of all classes
    head     nearest class means of part 0, as a linear head        w_g = 2 c_g, b_g = -|c_g|^2
    phi_0 = theta,   phi_j = phi_{j-1} - a grad CE(part j; phi_{j-1}, head),   j = 1 .. k
    gradient given to the optimiser: (theta - phi_k) / (a k), the mean of the gradients on the way

The head moves along with phi and is thrown away with it: tasks have other classes. Nichol, Achiam & Schulman, On
First-Order Meta-Learning Algorithms, 2018 (Reptile; its outer step is a step along phi_k - theta, which may go through
any optimiser); the head's start: Triantafillou et al., Meta-Dataset, ICLR 2020. The inner steps live inside the loss,
so nothing lasts between two steps but weights and batch statistics. With k = 1 it is training on all tasks at once.
The loss that is logged is the mean of CE over the inner steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from topwork.adaptation import Batch, Facts, Method
from topwork.adaptation.options import Check
from topwork.adaptation.pretraining._episodes import Bare, Groups, check, groups


@dataclass(frozen=True)
class Reptile(Method):
    """Inner steps on every task, outer steps by the optimiser."""

    ways: int = 4  # classes of a task
    shots: int = 4  # items of a class in every part
    inner_steps: int = 3  # k
    inner_rate: float = 0.01  # a

    needs_labels = True

    def __post_init__(self) -> None:
        wrong = Check("reptile")
        for name, least in (("ways", 2), ("shots", 1), ("inner_steps", 1)):
            wrong.whole(name, getattr(self, name), least=least)
        wrong.number("inner_rate", self.inner_rate, above=0)
        wrong.done()

    @property
    def episode(self) -> tuple[int, int]:
        """Classes, and items of each."""
        return self.ways, self.shots * (self.inner_steps + 1)

    def prepare(self, trunk: nn.Module, facts: Facts) -> nn.Module:
        """The trunk alone."""
        check("reptile", facts)
        return Bare(trunk)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """A term whose value is the tasks' mean loss and whose gradient is Reptile's."""
        trunk = cast(nn.Module, model.trunk)
        theta = {name: p for name, p in trunk.named_parameters() if p.requires_grad}
        g = groups(batch)
        tasks = torch.unique(g.source[g.size > 0])
        total, values = {name: torch.zeros_like(p) for name, p in theta.items()}, []
        for task in tasks:
            own = g.plays & (batch.source == task)
            value, gradients = self._inner(trunk, theta, batch.views[0], g, own)
            values.append(value)
            total = {name: total[name] + gradients[name] / len(tasks) for name in theta}
        along = torch.stack([(p * total[name].detach()).sum() for name, p in theta.items()]).sum()
        value = torch.stack(values).mean() if values else along.detach() * 0
        return {"inner": value + along - along.detach()}

    def _inner(
        self, trunk: nn.Module, theta: dict[str, nn.Parameter], images: Tensor, g: Groups, own: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss over the inner steps of one task, and (theta - phi_k) / (a k)."""
        labels, y = torch.unique(g.of[own], return_inverse=True)
        x, part = images[own], g.rank[own] % (self.inner_steps + 1)
        with torch.no_grad():
            z = trunk(x[part == 0]).float()
        member = F.one_hot(y[part == 0], len(labels)).to(z.dtype)  # (M, W)
        means = member.T @ z / member.sum(0)[:, None]  # (W, D)
        phi: dict[str, Tensor] = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
        head = [(2 * means).requires_grad_(), (-means.square().sum(1)).requires_grad_()]
        values, done = [], 0
        for j in range(1, self.inner_steps + 1):
            if (part == j).sum() < 2:  # batch norms want two
                continue
            with torch.enable_grad():
                z = functional_call(trunk, phi, (x[part == j],)).float()
                value = F.cross_entropy(F.linear(z, *head), y[part == j])
                steps = torch.autograd.grad(value, [*phi.values(), *head], allow_unused=True)
            moved = [
                (p if step is None else p - self.inner_rate * step).detach().requires_grad_()
                for p, step in zip([*phi.values(), *head], steps, strict=True)
            ]
            phi, head = dict(zip(phi, moved, strict=False)), moved[len(phi) :]
            values.append(value.detach())
            done += 1
        scale = self.inner_rate * max(done, 1)
        return torch.stack(values).mean(), {
            name: (p.detach() - phi[name].detach()) / scale for name, p in theta.items()
        }
