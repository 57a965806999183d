"""Read ONNX files of strangers: refuse what cannot be run or would not be true, before anything is run.

    model = read(file)              weights inside, external ones too

Refused, in one line each: what is no ONNX, weights that lie elsewhere and are not there, weights outside the file's own
folder, operators that onnxruntime does not bring along, operator sets of another age, values that are not finite.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topwork.errors import BadWeights, WeightsNotHere
from topwork.nn import onnx_graph
from topwork.store.weights import refuse_pickle
from topwork.store.weights import sha256 as hash_of
from topwork.types import digest

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # what onnxruntime brings along
OLDEST_OPSET = 7
_LOCATION = b"\x0a\x08location"  # how protobuf writes the key that tells where external weights lie


def read(file: Path) -> onnx.ModelProto:
    """The model in a file, checked."""
    model = _load(file)
    onnx_graph.check_size(model)
    _check_opset(model, file)
    _check_operators(model, file)
    _check_values(model, file)
    return model


def _load(file: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_model

    refuse_pickle(file)
    try:
        if os.path.getsize(file) > onnx_graph.LARGEST_BYTES:
            raise BadWeights(
                f"{file} takes {os.path.getsize(file) / 1e9:.2f} GB; at most {onnx_graph.LARGEST_BYTES / 1e9:.1f} GB "
                "can be used here. Choose a smaller backbone"
            )
        model = onnx.load(file, load_external_data=False)
        if not model.graph.node:
            raise BadWeights(f"{file} is not a readable ONNX file: it holds no operators")
        for place in sorted({place for tensor in _tensors(model.graph) if (place := _place(tensor))}):
            _check_place(file, place)
        load_external_data_for_model(model, str(file.parent))
    except BadWeights:
        raise
    except FileNotFoundError as error:
        raise WeightsNotHere(f"{file} does not exist") from error
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadWeights(f"{file} is not a readable ONNX file: {error}") from error
    return model


def content(file: Path, sha256: str) -> str:
    """A name for all that a model depends on: its own sha256, and those of the files that hold its weights."""
    if _LOCATION not in file.read_bytes():
        return sha256
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(file, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise BadWeights(f"{file} is not a readable ONNX file: {error}") from error
    places = sorted({place for tensor in _tensors(model.graph) if (place := _place(tensor))})
    for place in places:
        _check_place(file, place)
    return digest([sha256, *(hash_of(file.parent / place) for place in places)]) if places else sha256


def _check_place(file: Path, place: str) -> None:
    """Where a tensor's bytes lie: a plain file in the model's own folder."""
    path = file.parent / place
    if Path(place).is_absolute() or ".." in Path(place).parts or path.resolve() != file.parent.resolve() / place:
        raise BadWeights(f"{file} wants weights from '{place}', outside its own folder: they are not read")
    refuse_pickle(path)
    if not path.is_file():
        raise WeightsNotHere(f"{file} keeps its weights in '{place}', which is not beside it. Copy it to {path}")


def _check_opset(model: onnx.ModelProto, file: Path) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    found = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not OLDEST_OPSET <= found <= newest:
        raise BadWeights(
            f"{file} is written in operator set {found}; {OLDEST_OPSET} to {newest} can be read. Export it again with "
            f"operator set {onnx_graph.OPSET}"
        )


def _check_operators(model: onnx.ModelProto, file: Path) -> None:
    own = {(f.domain, f.name) for f in model.functions}
    nodes = [*_nodes(model.graph), *(node for f in model.functions for node in f.node)]
    strange = sorted(
        {f"{n.domain}:{n.op_type}" for n in nodes if n.domain not in DOMAINS and (n.domain, n.op_type) not in own}
    )
    if strange:
        raise BadWeights(
            f"{file} needs custom operators ({', '.join(strange[:5])}), which are code and are not loaded. Export it "
            "with standard ONNX operators only"
        )


def _check_values(model: onnx.ModelProto, file: Path) -> None:
    from onnx import numpy_helper

    for tensor in _tensors(model.graph):
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:  # fewer bytes than its shape says
            raise BadWeights(f"{file}: the tensor '{tensor.name}' is damaged: {error}") from error
        if values.dtype.kind == "f" and not np.isfinite(values).all() and values.size > 1:  # a lone inf is a bound
            raise BadWeights(f"{file}: the weights '{tensor.name}' hold values that are not finite. Copy it again")


def _place(tensor: onnx.TensorProto) -> str:
    """The file that holds a tensor's bytes; "" if the model itself does."""
    if tensor.data_location != tensor.EXTERNAL:
        return ""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All stored tensors, those of subgraphs and of Constant nodes too."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
        for inner in _subgraphs(node):
            yield from _tensors(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
