"""A frozen backbone that is an ONNX file already: one input, one of its tensors, no torch.

The file is read, checked, cut and proven once on a machine (`onnx_read.py`, `onnx_adapt.py`); then the graph comes from
the cache, by what it depends on: the file's content and where its ends are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from topwork.backbones.onnx_ends import Ends
from topwork.errors import BadSetting, StoreError
from topwork.store import weights
from topwork.types import Card, digest

if TYPE_CHECKING:
    from torch import nn

ADAPTER = 1  # raise it when adapt gives another graph for the same file


@dataclass(frozen=True)
class OnnxBackbone:
    """A trunk in an ONNX file; `build` makes the same mapping in torch where that is known."""

    card: Card
    file: Path
    ends: Ends = field(default_factory=Ends)
    build: Callable[[], nn.Module] | None = None

    def graph(self) -> bytes:
        """The trunk, weights inside: images float32 (N, 3, S, S) -> features float32 (N, D)."""
        card, size_px = self.card, self.card.preprocess.crop_px
        key = digest([card.architecture, card.weights, size_px, self.ends.input, self.ends.output, "onnx", ADAPTER])
        graph = weights.load_graph(key)
        if graph is None:
            from topwork.backbones.onnx_adapt import adapt
            from topwork.backbones.onnx_read import read
            from topwork.nn import onnx_graph

            graph = onnx_graph.to_bytes(adapt(read(self.file), self.ends, size_px, self.file))
            with contextlib.suppress(StoreError):  # a cache that cannot be written costs time, nothing else
                weights.save_graph(key, graph)
        return graph

    def module(self) -> nn.Module:
        """The trunk in torch, where its card names an architecture that can be built."""
        from topwork.backbones.torch_backbone import need_train

        if self.build is None:
            raise BadSetting(
                f"Backbone '{self.card.spec}' is an ONNX file: it can be used frozen, but not trained further"
            )
        need_train(f"Training backbone '{self.card.spec}'")
        return self.build().eval()
