"""Small ONNX graphs joined to one: geometry, normalise, trunk, head.

    chain(a, b, c)   outputs of a feed the inputs of b, in order, and so on; opset 19, IR 9
    head(h)          features float32 (N, D) -> logits (N, C), probabilities (N, C) = activation(logits / temperature)
                                                of numbers: logits (N, 1) and values (N, 1), which are the same

The same graphs give the same bytes: names come from the graphs alone ("trunk/conv1.weight"), and what an exporter
leaves about its machine (stack traces, paths, versions) is dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from topwork.errors import BadWeights
from topwork.nn.heads import NORM_FLOOR
from topwork.types import Head

if TYPE_CHECKING:
    import onnx

OPSET = 19
IR_VERSION = 9
LARGEST_BYTES = 1_500_000_000  # protobuf ends at 2 GB, and copies are made on the way

_HEAD = """
<ir_version: 9, opset_import: ["" : 19]>
head (float[N, %(D)d] features) => (float[N, %(C)d] logits, float[N, %(C)d] %(answer)s)
{%(logits)s
    scaled = Div (logits, temperature)
    %(answer)s = %(activation)s (scaled)
}"""

_LINEAR = """
    logits = Gemm (features, weight, bias)"""

_KNN = """
    axis = Constant <value = int64[1] {1}> ()
    k = Constant <value = int64[1] {%(k)d}> ()
    norm = ReduceL2 <keepdims = 1> (features, axis)
    length = Max (norm, norm_floor)
    unit = Div (features, length)
    similarity = Gemm <transB = 1> (unit, bank)
    best, nearest = TopK <axis = 1, largest = 1, sorted = 1> (similarity, k)
    heard = Gather <axis = 0> (votes, nearest)
    share = ReduceMean <keepdims = 0> (heard, axis)%(z)s"""

_LOG = """
    logits = Log (share)"""

_LOG_ODDS = """
    one = Constant <value = float[1] {1.0}> ()
    log_share = Log (share)
    rest = Sub (one, share)
    log_rest = Log (rest)
    logits = Sub (log_share, log_rest)"""

_NUMBERS = """
    logits = Identity (share)"""

_SHARES = {"softmax": _LOG, "sigmoid": _LOG_ODDS, "identity": _NUMBERS}
_ACTIVATIONS = {"softmax": "Softmax <axis = 1>", "sigmoid": "Sigmoid", "identity": "Identity"}


def answer_of(head: Head) -> str:
    """What the answer of a head is called."""
    return "values" if head.activation == "identity" else "probabilities"


def chain(*models: onnx.ModelProto) -> onnx.ModelProto:
    """Join models end to end: outputs of one feed the inputs of the next, in order."""
    from onnx import compose

    opset = max([OPSET, *(_opset(model) for model in models)])
    joined: onnx.ModelProto | None = None
    taken: list[str] = []
    for i, model in enumerate(models):
        stage = plain(model, opset)
        prefix = _prefix(stage.graph.name or "model", taken)
        last = i == len(models) - 1
        stage = compose.add_prefix(stage, prefix, rename_inputs=i > 0, rename_outputs=not last)
        if joined is None:
            joined = stage
            continue
        ends, starts = [o.name for o in joined.graph.output], [s.name for s in stage.graph.input]
        if len(ends) != len(starts):
            raise BadWeights(
                f"{len(ends)} outputs ({', '.join(ends)}) cannot feed {len(starts)} inputs ({', '.join(starts)})"
            )
        joined = compose.merge_models(joined, stage, io_map=list(zip(ends, starts, strict=True)))
    assert joined is not None
    joined.graph.name = "-".join(taken)
    return plain(joined, opset)


def head(h: Head) -> onnx.ModelProto:
    """A head as a graph: features (N, D) -> logits (N, C), probabilities (N, C); `heads.py` in other words."""
    from onnx import numpy_helper, parser

    tensors = {name: np.asarray(value, np.float32) for name, value in h.arrays.items()}
    tensors["temperature"] = np.array([h.temperature], np.float32)
    if h.kind == "linear":
        text, (D, C) = _LINEAR, tensors["weight"].shape
    else:
        (M, D), C = tensors["bank"].shape, tensors["votes"].shape[1]
        text = _KNN % {"k": min(int(h.settings["k"]), M), "z": _SHARES[h.activation]}
        tensors["norm_floor"] = np.array([NORM_FLOOR], np.float32)
    filled = {"D": D, "C": C, "logits": text, "activation": _ACTIVATIONS[h.activation], "answer": answer_of(h)}
    model = parser.parse_model(_HEAD % filled)
    model.graph.initializer.extend(numpy_helper.from_array(tensors[name], name) for name in sorted(tensors))
    return model


def plain(model: onnx.ModelProto, opset: int = OPSET) -> onnx.ModelProto:
    """The same graph without local functions and without an exporter's traces, at one opset."""
    import onnx
    from onnx import inliner, version_converter

    check_size(model)
    if model.functions:
        model = inliner.inline_local_functions(model)
    if _opset(model) < opset:
        model = version_converter.convert_version(model, opset)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for field in ("doc_string", "metadata_props", "producer_version", "model_version", "domain", "training_info"):
        result.ClearField(field)  # type: ignore[arg-type]
    result.ir_version, result.producer_name = IR_VERSION, "topwork"
    imports = {entry.domain: entry.version for entry in model.opset_import}  # merging repeats them
    result.ClearField("opset_import")
    result.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in sorted(imports.items()))
    _strip(result.graph)
    return result


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Serialise: the same graph gives the same bytes."""
    check_size(model)
    return model.SerializeToString(deterministic=True)


def check_size(model: onnx.ModelProto) -> None:
    """Refuse what one protobuf message cannot hold, before anything crashes on it."""
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    if size > LARGEST_BYTES:
        raise BadWeights(
            f"The weights of this graph take {size / 1e9:.2f} GB; one ONNX file holds at most "
            f"{LARGEST_BYTES / 1e9:.1f} GB here. Choose a smaller backbone"
        )


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _prefix(name: str, taken: list[str]) -> str:
    """A readable prefix that no earlier stage has."""
    name = re.sub(r"[^\w.-]", "_", name)
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}{number}", number + 1
    taken.append(unique)
    return f"{unique}/"


def _strip(graph: onnx.GraphProto) -> None:
    """Drop what the exporter wrote for its own readers; subgraphs too."""
    for field in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
        graph.ClearField(field)  # type: ignore[arg-type]
    for thing in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        thing.ClearField("doc_string")
        thing.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _strip(inner)
