"""A backbone whose weights were changed here: what a tuning leaves behind, exported and proven like any other."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topwork.types import Card

if TYPE_CHECKING:
    from torch import nn


ANY_LENGTH = 1024  # tokens that a graph is proven with where its reader knows no windows


@dataclass(frozen=True, eq=False)
class Tuned:
    """A trunk in memory."""

    card: Card
    trunk: nn.Module
    reader: Any = None  # of texts: modalities.text.Reader
    _graphs: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, card: Card, trunk: nn.Module, features: int, how: str, reader: Any = None) -> Tuned:
        """With a card that says what it was, how it was changed, and which weights it has now."""
        trained_on = f"{card.trained_on}; tuned: {how}" if card.trained_on else f"tuned: {how}"
        changed = dataclasses.replace(card, weights=checksum(trunk), features=features, trained_on=trained_on)
        return cls(changed, trunk.cpu().eval(), reader)

    def module(self) -> nn.Module:
        """A trunk of one's own in eval mode: what is done to it leaves this one as it is."""
        return copy.deepcopy(self.trunk)

    def graph(self) -> bytes:
        """The trunk as ONNX; exported once."""
        if not self._graphs:
            self._graphs.append(self._export())
        return self._graphs[0]

    def _export(self) -> bytes:
        if self.reader is None:
            from topwork.backbones.trunk import export

            return export(self.trunk, self.card.preprocess.crop_px)
        from torch import nn

        from topwork.backbones import text_trunk

        trunk = self.module()
        for part in trunk.modules():
            if hasattr(part, "set_attn_implementation"):
                part.set_attn_implementation("eager")  # type: ignore[operator]  # the one that can be exported
        words = next(part.num_embeddings for part in trunk.modules() if isinstance(part, nn.Embedding))
        return text_trunk.export(trunk, getattr(self.reader, "longest", ANY_LENGTH), words)

    def ready(self) -> bool:
        """Whether graph() costs nothing."""
        return bool(self._graphs)


def movement(before: nn.Module, after: nn.Module, stages: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """How far the weights of every stage have gone: |w' - w| / |w| over its parameters, and how many tensors moved.

    Batch statistics count as tensors, not into the length. A stage without weights is left out.
    """
    import torch

    old, new, told = before.state_dict(), after.state_dict(), []
    weights = {name for name, _ in before.named_parameters()}
    for names in stages:
        own = [name for name in old if any(name.startswith(f"{layer}.") for layer in names)]
        own = [name for name in own if name in new and new[name].shape == old[name].shape]  # else it was replaced
        if not own:
            continue
        pairs = {name: (old[name].detach().cpu(), new[name].detach().cpu()) for name in own}
        length, gone = (
            sum(float(part(a, b).double().square().sum()) for name, (a, b) in pairs.items() if name in weights) ** 0.5
            for part in (lambda a, _: a, lambda a, b: b - a)
        )
        moved = sum(not torch.equal(a, b) for a, b in pairs.values())
        named = [name.removeprefix("network.") for name in names if any(n.startswith(f"{name}.") for n in own)]
        name = named[0] if len(named) == 1 else f"{named[0]} – {named[-1]}"
        told.append({"name": name, "tensors": len(own), "moved": moved, "change": gone / length if length else 0.0})
    return told


def checksum(module: nn.Module) -> str:
    """sha256 over names and values of all parameters and buffers."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        hashed.update(name.encode() + b"\\0" + tensor.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
