"""A frozen backbone that is an ONNX file already: one input, one of its outputs, no torch.

The chosen output becomes "features", the input "images"; nodes that only other outputs need are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from topwork.errors import BadSetting, BadWeights
from topwork.types import Card

if TYPE_CHECKING:
    import onnx
    from torch import nn


@dataclass(frozen=True)
class OnnxBackbone:
    """A trunk in an ONNX file; `build` makes the same mapping in torch where that is known."""

    card: Card
    file: Path
    input: str
    output: str
    build: Callable[[], nn.Module] | None = None

    def graph(self) -> bytes:
        """The trunk, weights inside: images float32 (N, 3, S, S) -> features float32 (N, D)."""
        from topwork.nn import onnx_graph

        model = _read(self.file)
        onnx_graph.check_size(model)
        trunk = _cut(model, self.input, self.output, self.file)
        trunk.graph.name = "trunk"
        return onnx_graph.to_bytes(onnx_graph.plain(trunk))

    def module(self) -> nn.Module:
        """The trunk in torch, where its card names an architecture that can be built."""
        from topwork.backbones.torch_backbone import need_train

        if self.build is None:
            raise BadSetting(
                f"Backbone '{self.card.spec}' is an ONNX file: it can be used frozen, but not trained further"
            )
        need_train(f"Training backbone '{self.card.spec}'")
        return self.build().eval()


def _read(file: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(file)  # external tensors (weights in the safetensors file beside it) are read into the model
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadWeights(f"{file} is not a readable ONNX file: {error}") from error


def _cut(model: onnx.ModelProto, source: str, target: str, file: Path) -> onnx.ModelProto:
    """The part of the graph between source and target, its two ends named; raises where they are not there."""
    from onnx import utils

    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in stored}
    outputs = {value.name: value for value in model.graph.output}
    for name, found, what in ((source, inputs, "input"), (target, outputs, "output")):
        if name not in found:
            raise BadWeights(f"{file} has no {what} '{name}'. It has: {', '.join(found)}")
    shape = inputs[source].type.tensor_type.shape.dim
    if shape and shape[0].HasField("dim_value"):
        raise BadWeights(f"{file} takes batches of {shape[0].dim_value} only. Export it with a dynamic first dimension")
    part = utils.Extractor(model).extract_model([source], [target])
    names = {source: "images", target: "features"}
    _rename(part.graph, {name: f"{name}.inner" for name in names.values()} | names)
    return part


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
