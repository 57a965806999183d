"""A backbone whose weights were changed here: what a tuning leaves behind, exported and proven like any other."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from topwork.types import Card

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Tuned:
    """A trunk in memory."""

    card: Card
    trunk: nn.Module
    _graphs: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, card: Card, trunk: nn.Module, features: int, how: str) -> Tuned:
        """With a card that says what it was, how it was changed, and which weights it has now."""
        trained_on = f"{card.trained_on}; tuned: {how}" if card.trained_on else f"tuned: {how}"
        changed = dataclasses.replace(card, weights=checksum(trunk), features=features, trained_on=trained_on)
        return cls(changed, trunk.cpu().eval())

    def module(self) -> nn.Module:
        """The trunk in eval mode."""
        return self.trunk

    def graph(self) -> bytes:
        """The trunk as ONNX; exported once."""
        if not self._graphs:
            from topwork.backbones.trunk import export

            self._graphs.append(export(self.trunk, self.card.preprocess.crop_px))
        return self._graphs[0]

    def ready(self) -> bool:
        """Whether graph() costs nothing."""
        return bool(self._graphs)


def checksum(module: nn.Module) -> str:
    """sha256 over names and values of all parameters and buffers."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        hashed.update(name.encode() + b"\\0" + tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
