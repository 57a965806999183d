"""Write a timm image trunk as a backbone folder: model.safetensors (fp16), model.onnx, card.json.

The graph holds no weights: each initialiser is float16 external data that points at its tensor's bytes inside
model.safetensors, followed by a Cast to float32 (onnxruntime folds it when the session starts).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from topwork.backbones.folder_write import multiply_adds
from topwork.backbones.trunk import TimmTrunk

GRIDS = {1: 4, 2: 4, 3: 2}  # stage: cells a side


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then move the file into place."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically."""
    write_atomically(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n"))


def export(student: nn.Module, name: str, size_px: int, out: Path, facts: dict) -> None:
    """Write model.safetensors (fp16), model.onnx (its weights point into that file) and card.json, the card last."""
    out.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in student.state_dict().items() if v.is_floating_point()}
    if bad := [k for k, v in half.items() if not v.isfinite().all()]:
        raise OverflowError(f"{bad} do not fit float16.")
    student = timm.create_model(name, pretrained=False, num_classes=0)
    student.load_state_dict({k: v.float() for k, v in half.items()})
    weights = out / "model.safetensors"
    write_atomically(weights, lambda p: save_file(half, p, metadata={"format": "pt"}))

    trunk = TimmTrunk(student, GRIDS).eval()
    program = torch.onnx.export(trunk, (torch.zeros(2, 3, size_px, size_px),), dynamo=True, optimize=False,
                                input_names=["images"], output_names=["features"], opset_version=18,
                                dynamic_shapes=({0: "N"},), verbose=False)  # fmt: skip
    proto = program.model_proto
    prefix_off(proto.graph, "network.")
    header_bytes = int.from_bytes(weights.read_bytes()[:8], "little")
    header = json.loads(weights.read_bytes()[8 : 8 + header_bytes])
    casts, kept = [], []
    for tensor in proto.graph.initializer:
        if tensor.name not in half:
            kept.append(tensor)
            continue
        begin, end = header[tensor.name]["data_offsets"]
        stored = onnx.TensorProto(name=f"{tensor.name}.fp16", data_type=onnx.TensorProto.FLOAT16, dims=tensor.dims)
        stored.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", 8 + header_bytes + begin), ("length", end - begin)):
            stored.external_data.add(key=key, value=str(value))
        kept.append(stored)
        casts.append(onnx.helper.make_node("Cast", [stored.name], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes = casts + living_nodes(proto.graph)
    for field, values in (("initializer", kept), ("node", nodes)):
        proto.graph.ClearField(field)
        getattr(proto.graph, field).extend(values)
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]  # stack traces with the exporting machine's paths
        node.doc_string = ""
    write_atomically(out / "model.onnx", lambda p: p.write_bytes(proto.SerializeToString()))

    used = {n for node in proto.graph.node for n in node.input}
    if missing := [k for k in half if f"{k}.fp16" not in used or k not in used]:
        raise RuntimeError(f"The exporter folded {missing}; the graph must read every tensor of the state dict.")
    with torch.no_grad():
        x = torch.rand(5, 3, size_px, size_px) * 2 - 1
        ours = ort.InferenceSession(out / "model.onnx").run(None, {"images": x.numpy()})[0]
        gap = float(np.abs(ours - trunk(x).numpy()).max())
    print(f"onnxruntime against torch: {gap:.1e}", flush=True)

    macs = multiply_adds(student, x[:1])
    files = {}
    for file in ("model.safetensors", "model.onnx"):
        content = (out / file).read_bytes()
        files[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card = {
        "name": "topwork-image-small",
        "file": weights.name,
        **{k: files[weights.name][k] for k in ("sha256", "bytes")},
        "architecture": f"timm.create_model('{name}', pretrained=False, num_classes=0)",
        "grids": {str(stage): cells for stage, cells in GRIDS.items()},
        "task": "image features (no classifier)",
        "input_size": [3, size_px, size_px],
        "resize_short_side": size_px,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "colour_order": "RGB, values 0..1 before normalisation",
        "interpolation": "bilinear",
        "num_parameters": sum(p.numel() for p in student.parameters()),
        "multiply_adds": macs,
        "num_features": ours.shape[1],
        "trained_on": "30,000 photos of 100 classes, 64 px (300 a class of Tiny ImageNet, Stanford CS231n; ImageNet "
        "terms), their labels, and the features of mobilenetv2_100 (ImageNet ILSVRC2012, Apache-2.0) on crops of them",
        "onnx": {"file": "model.onnx", "input": "images", "output": "features"},
        "files": files,
    } | facts
    write_json(out / "card.json", card)


def prefix_off(graph: onnx.GraphProto, prefix: str) -> None:
    """Name the weights as the state dict does, not as the trunk around the network does."""
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix(prefix)
    for node in graph.node:
        node.input[:] = [name.removeprefix(prefix) for name in node.input]


def living_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of the unoptimised export without its computed zero biases, which keep BatchNorm from folding into Conv.

    The exporter's own optimisation would fold BatchNorm into new weights that no state dict knows; onnxruntime folds it
    when the session starts, 3 to 5 times faster than with the zero biases in the way.
    """
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] not in stored:
            del node.input[2]
    needed, living = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            living.append(node)
    return living[::-1]
