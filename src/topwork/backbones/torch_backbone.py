"""A backbone made of torch layers that runs on onnxruntime once it has been exported.

The graph is cached by what it depends on: architecture, weights, input size and the version of this exporter. Only the
first graph() of a backbone on a machine imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from topwork.errors import MissingExtra
from topwork.store import weights
from topwork.types import Card, digest

if TYPE_CHECKING:
    from torch import nn

EXPORTER = 1  # raise it when trunk.export gives another graph for the same network


@dataclass(frozen=True)
class TorchBackbone:
    """A trunk that `build` makes, weights included."""

    card: Card
    build: Callable[[], nn.Module]

    def module(self) -> nn.Module:
        """The trunk in eval mode: images (N, 3, S, S) -> features (N, D)."""
        need_train(f"Backbone '{self.card.spec}'")
        return self.build().eval()

    def graph(self) -> bytes:
        """The trunk as ONNX: from the cache, else exported, compared with torch and kept."""
        graph = weights.load_graph(self._key)
        if graph is None:
            module = self.module()
            from topwork.backbones.trunk import export

            graph = export(module, self.card.preprocess.crop_px)
            weights.save_graph(self._key, graph)
        return graph

    def ready(self) -> bool:
        """Whether graph() comes from the cache, without torch."""
        return weights.load_graph(self._key) is not None

    @property
    def _key(self) -> str:
        card = self.card
        return digest([card.architecture, card.weights, card.preprocess.crop_px, EXPORTER])


def need_train(what: str) -> None:
    """Say which command installs torch and its friends where they are missing."""
    try:
        import onnxscript  # noqa: F401
        import timm  # noqa: F401
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("train", what) from error
