"""One ONNX graph from raw pixels to probabilities: model.onnx.

    pixels uint8 (N, H, W, 3), any H, W -> geometry -> normalise -> trunk -> head ->
        probabilities float32 (N, C), logits float32 (N, C), features float32 (N, D)

Geometry and normalise are the graphs that extraction ran, so nothing is written twice. Temperature and activation are
inside; labels (a JSON list) and task are in the file's metadata. The same parts give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from topwork.errors import BadWeights
from topwork.types import Backbone, Head

if TYPE_CHECKING:
    import onnx

OUTPUTS = ("probabilities", "logits", "features")


def compose(backbone: Backbone, head: Head, labels: Sequence[str], task: str = "image-classification") -> bytes:
    """The whole model as one serialised graph."""
    import onnx

    from topwork.modalities.image_graph import geometry, normalise
    from topwork.nn import onnx_graph

    classes = head.arrays["weight" if head.kind == "linear" else "votes"].shape[1]
    if classes != len(labels):
        raise BadWeights(f"The head tells {classes} classes apart, but there are {len(labels)} labels")
    preprocess = backbone.card.preprocess
    trunk = onnx.load_from_string(backbone.graph())
    trunk.graph.name = "trunk"
    model = onnx_graph.chain(geometry(preprocess), normalise(preprocess), trunk, onnx_graph.head(head))
    return _finished(model, f"trunk/{trunk.graph.output[0].name}", head, labels, task)


def regraft(model: bytes, head: Head, labels: Sequence[str], task: str = "image-classification") -> bytes:
    """A whole model with another head: what lies below its features stays as it is."""
    import onnx
    from onnx import compose as joining

    from topwork.nn import onnx_graph

    below = onnx.load_from_string(model)
    shown = next((node for node in below.graph.node if node.name == "features"), None)
    if shown is None:
        raise BadWeights("model.onnx shows no features. Expected one that `topwork fit` wrote")
    end = shown.input[0]
    wanted, kept = {end}, []
    for node in reversed(below.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    tensors = [tensor for tensor in below.graph.initializer if tensor.name in wanted]
    output = onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, ["N", _width(head)])
    name = below.graph.name
    graph = onnx.helper.make_graph(kept[::-1], name, list(below.graph.input), [output], tensors)
    opset = below.opset_import
    trunk = onnx.helper.make_model(graph, opset_imports=opset, ir_version=below.ir_version)
    version = next(entry.version for entry in opset if entry.domain in ("", "ai.onnx"))
    top = joining.add_prefix(onnx_graph.plain(onnx_graph.head(head), version), "head/", rename_outputs=False)
    joined = joining.merge_models(trunk, top, io_map=[(end, top.graph.input[0].name)], name=name)
    return _finished(onnx_graph.plain(joined, version), end, head, labels, task)


def _finished(model: onnx.ModelProto, features: str, head: Head, labels: Sequence[str], task: str) -> bytes:
    """Outputs in their order, and what the file says of itself."""
    import onnx

    from topwork.nn import onnx_graph

    _expose(model, features, head)
    facts = {"labels": json.dumps(list(labels), ensure_ascii=False), "task": task}
    for key in sorted(facts):
        model.metadata_props.add(key=key, value=facts[key])
    onnx.checker.check_model(model)
    return onnx_graph.to_bytes(model)


def _width(head: Head) -> int:
    """D."""
    return head.arrays["weight"].shape[0] if head.kind == "linear" else head.arrays["bank"].shape[1]


def _expose(model: onnx.ModelProto, name: str, head: Head) -> None:
    """Show the features beside the head's outputs, under their plain name, and fix the order of the outputs."""
    from onnx import TensorProto, helper

    if not any(name in node.output for node in model.graph.node):
        raise BadWeights(f"The joined graph has no tensor '{name}': the trunk's output was lost on the way")
    model.graph.node.append(helper.make_node("Identity", [name], ["features"], name="features"))
    known = {output.name: output for output in model.graph.output}
    known["features"] = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", _width(head)])
    ordered = [known[output] for output in OUTPUTS]
    model.graph.ClearField("output")
    model.graph.output.extend(ordered)
