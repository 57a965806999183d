"""One ONNX graph from raw pixels, or from the numbers of a text, to probabilities: model.onnx.

    pixels uint8 (N, H, W, 3), any H, W -> geometry -> normalise -> trunk -> head ->
        probabilities float32 (N, C), logits float32 (N, C), features float32 (N, D)
        of numbers: values float32 (N, 1) in place of the probabilities
    ids int64 (W, L), weights float32 (W, L), all windows of one text -> trunk -> mean over the windows -> head ->
        the same with N = 1

Geometry and normalise are the graphs that extraction ran, so nothing is written twice. Temperature and activation are
inside; labels (a JSON list) and task are in the file's metadata. The same parts give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from topwork.errors import BadWeights
from topwork.types import WRITTEN, Backbone, Head

if TYPE_CHECKING:
    import onnx

INPUTS = ("ids", "weights")  # of texts

_WINDOWS = """
<ir_version: 9, opset_import: ["" : 19]>
windows (float[W, D] features) => (float[1, D] text)
{
    axis = Constant <value = int64[1] {0}> ()
    text = ReduceMean <keepdims = 1> (features, axis)
}"""


def compose(backbone: Backbone, head: Head, labels: Sequence[str], task: str | None = None) -> bytes:
    """The whole model as one serialised graph; `task` is classification of what the backbone reads if not named."""
    import onnx

    from topwork.nn import onnx_graph

    classes = head.arrays["weight" if head.kind == "linear" else "votes"].shape[1]
    if classes != len(labels):
        raise BadWeights(f"The head tells {classes} classes apart, but there are {len(labels)} labels")
    trunk = onnx.load_from_string(backbone.graph())
    trunk.graph.name = "trunk"
    task = task or f"{backbone.card.modality}-classification"
    if backbone.card.modality in WRITTEN:
        return _of_texts(trunk, head, labels, task)
    from topwork.modalities.image_graph import geometry, normalise

    preprocess = backbone.card.preprocess
    model = onnx_graph.chain(geometry(preprocess), normalise(preprocess), trunk, onnx_graph.head(head))
    return _finished(model, f"trunk/{trunk.graph.output[0].name}", head, labels, task)


def _of_texts(trunk: onnx.ModelProto, head: Head, labels: Sequence[str], task: str) -> bytes:
    from onnx import parser

    from topwork.nn import onnx_graph

    inputs = tuple(given.name for given in trunk.graph.input)
    if inputs != INPUTS:
        raise BadWeights(f"The trunk reads {', '.join(inputs) or 'nothing'}. Expected {' and '.join(INPUTS)} of a text")
    windows = parser.parse_model(_WINDOWS)
    model = onnx_graph.chain(trunk, windows, onnx_graph.head(head))
    end = f"windows/{windows.graph.output[0].name}"
    if head.kind == "linear" and _is_scattered(trunk.graph):
        _add_rows(model.graph, end)
    return _finished(model, end, head, labels, task)


def _is_scattered(trunk: onnx.GraphProto) -> bool:
    """Whether the features are nothing but the weights, added up at the ids: n-grams."""
    last = trunk.node[-1]
    reduced = any(entry.name == "reduction" and entry.s == b"add" for entry in last.attribute)
    onto = next((node.op_type for node in trunk.node if last.input and node.output[0] == last.input[0]), "")
    return last.op_type == "ScatterElements" and reduced and (*last.input[1:],) == INPUTS and onto == "ConstantOfShape"


def _add_rows(graph: onnx.GraphProto, features: str) -> None:
    """x W + b with a few hundred of 100,000 features above zero: the rows of W at the ids, weighed and added up."""
    from onnx import helper, numpy_helper

    at, gemm = next((i, node) for i, node in enumerate(graph.node) if node.op_type == "Gemm" and features in node.input)
    _, weight, bias = gemm.input
    graph.initializer.extend([numpy_helper.from_array(np.array([i]), f"head/axis{i}") for i in (0, 1)])
    nodes = [
        helper.make_node("Gather", [weight, "ids"], ["head/rows"], axis=0),  # (W, L, C)
        helper.make_node("Unsqueeze", ["weights", "head/axis1"], ["head/line"]),  # (W, 1, L)
        helper.make_node("MatMul", ["head/line", "head/rows"], ["head/windows"]),  # (W, 1, C)
        helper.make_node("Squeeze", ["head/windows", "head/axis1"], ["head/each"]),
        helper.make_node("ReduceMean", ["head/each", "head/axis0"], ["head/sum"], keepdims=1),
        helper.make_node("Add", ["head/sum", bias], list(gemm.output)),
    ]
    before, after = list(graph.node[:at]), list(graph.node[at + 1 :])
    graph.ClearField("node")
    graph.node.extend([*before, *nodes, *after])


def regraft(model: bytes, head: Head, labels: Sequence[str]) -> bytes:
    """A whole model with another head: what lies below its features stays as it is, and so does the task."""
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
    task = next((entry.value for entry in below.metadata_props if entry.key == "task"), "")
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

    from topwork.nn import onnx_graph

    if not any(name in node.output for node in model.graph.node):
        raise BadWeights(f"The joined graph has no tensor '{name}': the trunk's output was lost on the way")
    model.graph.node.append(helper.make_node("Identity", [name], ["features"], name="features"))
    known = {output.name: output for output in model.graph.output}
    known["features"] = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", _width(head)])
    ordered = [known[output] for output in (onnx_graph.answer_of(head), "logits", "features")]
    model.graph.ClearField("output")
    model.graph.output.extend(ordered)
