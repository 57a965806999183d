"""Early stopping: a judge says when a training has had enough, and its best moment is handed back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from topwork import processes
from topwork.adaptation import sharded
from topwork.adaptation.together import Together
from topwork.nn.ema import Ema, tensors_of


@dataclass(frozen=True)
class Judge:
    """Who says when a training has had enough: early stopping.

    Every `every` steps `measure(model)`, smaller is better; after `patience` times without a smaller value it ends.
    """

    measure: Callable[[nn.Module], float]
    every: int
    patience: int


class Patience:
    """The best moment so far, as a judge sees it; all of it lies in the checkpoint."""

    def __init__(self, whole: Together, average: Ema, judge: Judge | None, shown: Together) -> None:
        self._whole, self._average, self._judge, self._shown = whole, average, judge, shown
        self.tensors: dict[str, Tensor] = {}
        if judge is not None:
            self.tensors = {name: t.detach().clone() for name, t in tensors_of(whole).items()}
            self.tensors |= {"value": torch.tensor(math.inf, dtype=torch.float64), "waited": torch.tensor(0)}

    @property
    def over(self) -> bool:
        """Whether the judge has waited long enough."""
        return self._judge is not None and int(self.tensors["waited"]) >= self._judge.patience

    @torch.no_grad()
    def enough(self, step: int) -> bool:
        """Ask the judge, where it is time to; whether it has waited long enough."""
        judge = self._judge
        if judge is None or (step + 1) % judge.every:
            return False
        live = {name: t.detach().clone() for name, t in tensors_of(self._whole).items()}
        if self._average.decay:
            self._average.apply()
        if self._shown is not self._whole:
            sharded.fill(self._shown, self._whole)
        shown = self._shown.eval()
        value = processes.decided(lambda: judge.measure(shown.models[0]))  # type: ignore[arg-type]
        if value < self.tensors["value"]:
            for name, tensor in tensors_of(self._whole).items():
                self.tensors[name].copy_(tensor)
            self.tensors["value"].fill_(value)
            self.tensors["waited"].zero_()
        else:
            self.tensors["waited"] += 1
        for name, tensor in tensors_of(self._whole).items():
            tensor.copy_(live[name])
        self._whole.train()
        return self.over

    @torch.no_grad()
    def apply(self) -> None:
        """Back to the best moment."""
        if self._judge is not None and math.isfinite(self.tensors["value"]):
            for name, tensor in tensors_of(self._whole).items():
                tensor.copy_(self.tensors[name])
