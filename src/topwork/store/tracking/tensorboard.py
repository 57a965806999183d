"""TensorBoard: event files beside the model, a folder for every training.

A training that is taken up again, or begun anew, hides what was written of its steps before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.store.tracking import missing


@dataclass(frozen=True)
class Tensorboard:
    """Event files in a folder."""

    folder: str | None = None  # default: OUT.tensorboard

    def check(self) -> None:
        """Whether the package is there."""
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise missing("tensorboard", "tensorboard") from error

    def open(self, out: Path) -> Events:
        """Nothing is written before the first numbers come."""
        return Events(Path(self.folder) if self.folder else out.with_name(f"{out.name}.tensorboard"))


@dataclass
class Events:
    """One writer at a time: trainings come one after the other."""

    folder: Path
    _training: str = ""
    _writer: Any = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """The command that shows them."""
        return f"tensorboard --logdir {self.folder}"

    def __call__(self, training: str, step: int, numbers: Mapping[str, float]) -> None:
        """A scalar for every number."""
        if self._writer is None or training != self._training:
            from torch.utils.tensorboard import SummaryWriter

            self.close()
            name = re.sub(r"[^\w.-]+", "-", training).strip("-.") or "training"
            self._training, self._writer = training, SummaryWriter(str(self.folder / name), purge_step=step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and let go."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
