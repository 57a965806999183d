"""What outlasts a step: weights, averages, moments and the best moment so far, out of and into a run's checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from topwork import processes
from topwork.adaptation import sharded
from topwork.adaptation.patience import Patience
from topwork.nn.ema import Ema, tensors_of
from topwork.store.runs import Run


class Memory:
    """All tensors that outlast a step, by name, and how the model was at the very beginning."""

    def __init__(self, model: nn.Module, average: Ema, optimizer: torch.optim.Optimizer, patience: Patience) -> None:
        self.model, self.average, self.optimizer, self.patience = model, average, optimizer, patience
        self._beginning = {
            name: sharded.whole(t.detach()).to("cpu", copy=True) for name, t in tensors_of(model).items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """model.NAME, ema.NAME, best.NAME, optimizer.INDEX.NAME."""
        found = {f"model.{name}": t for name, t in tensors_of(self.model).items()}
        found |= {f"ema.{name}": t for name, t in self.average.tensors.items()}
        found |= {f"best.{name}": t for name, t in self.patience.tensors.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": t for name, t in slots.items() if t is not None}
        return {name: sharded.whole(t) for name, t in found.items()}

    def restore(self, run: Run | None) -> int:
        """Put the newest checkpoint in place, or the beginning; the number of steps that lie behind."""
        found = run.load() if run else None
        step = processes.decided(lambda: run.step if run and found is not None else None)
        if step is not None:
            self._put(processes.received(found))
            return step
        kept = {f"{owner}.{name}": t for name, t in self._beginning.items() for owner in ("model", "ema", "best")}
        self._put({**kept, "best.value": torch.tensor(math.inf), "best.waited": torch.tensor(0)})
        return 0

    @torch.no_grad()
    def _put(self, kept: Mapping[str, Tensor]) -> None:
        parts = (("model.", tensors_of(self.model)), ("ema.", self.average.tensors), ("best.", self.patience.tensors))
        for prefix, live in parts:
            for name, tensor in live.items():
                tensor.copy_(sharded.like(kept[prefix + name], tensor))
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in kept.items():
            if name.startswith("optimizer."):
                _, index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = sharded.like(tensor, learning[int(index)])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
