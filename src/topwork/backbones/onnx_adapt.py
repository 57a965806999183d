"""Any ONNX image model -> the trunk that this house runs: images float32 (N, 3, S, S) -> features float32 (N, D).

    adapt(model, Ends(output="features"), 224, file)

What others write differently is bridged, and the result is proven by running it:

    channels last (N, S, S, 3), as TensorFlow and Keras write      a Transpose in front
    blue first (BGR), as Caffe writes                              a Gather in front
    float16 or double images                                       a Cast at both ends
    a fixed batch of k                                             N made free; compared with the original on k images
    maps (N, D, h, w) or (N, h, w, D)                              their mean
    tokens (N, T, D)                                               their mean or the first, as `pool` says
    an output that is no output of the file                        any inner tensor, by name

Nodes that only other outputs need are dropped.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.backbones.onnx_ends import Ends, Layout, Order
from topwork.errors import BadSetting, BadWeights
from topwork.nn import onnx_graph
from topwork.nn.session import session

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # of the largest feature
FLOATS = {1: "FLOAT", 10: "FLOAT16", 11: "DOUBLE"}  # of onnx.TensorProto


def adapt(model: onnx.ModelProto, ends: Ends, size_px: int, file: Path) -> onnx.ModelProto:
    """The part of a model between its ends, in the form that this house runs; proven."""
    ends.check(str(file))
    source = _source(model, ends.input, file)
    target = _target(model, ends.output, source.name, file)
    layout = _check_input(source, ends.layout, size_px, file)
    part = _cut(model, source.name, target, file)
    fixed = source.type.tensor_type.shape.dim[0].dim_value  # 0: free
    original = _outside(part, layout, ends.order)
    part = _outside(_free_batch(part, fixed), layout, ends.order) if fixed else original
    shapes = _try(part, size_px, file, fixed)
    _pool(part, shapes, layout, ends, target, file)
    result = _plain(part, file)
    if fixed:
        _pool(original, shapes, layout, ends, target, file)
        _prove_batch(result, original, fixed, size_px, file)
    _prove(result, size_px, file)
    return result


def inputs(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """What must be fed: inputs that are no stored weights."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {value.name: value for value in model.graph.input if value.name not in stored}


def side_px(model: onnx.ModelProto, ends: Ends, file: Path) -> int:
    """Side of the square images that a model takes; 0 where any will do."""
    ends.check(str(file))
    source = _source(model, ends.input, file)
    shape = _shape(source)
    at = 1 if _layout(source, ends.layout, file) == "NHWC" else 2
    return side if isinstance(side := shape[at], int) else 0


def _source(model: onnx.ModelProto, name: str, file: Path) -> onnx.ValueInfoProto:
    """The input of this name, or the only one."""
    found = inputs(model)
    if name in found or (not name and len(found) == 1):
        return found[name or next(iter(found))]
    if name:
        raise BadWeights(f"{file} has no input '{name}'. It has: {', '.join(map(_text, found.values()))}")
    raise BadWeights(f"{file} has {len(found)} inputs: {', '.join(map(_text, found.values()))}. Name one: input='...'")


def _target(model: onnx.ModelProto, name: str, source: str, file: Path) -> str:
    """The tensor of this name, or the only output, or the one called features."""
    outputs = {value.name: value for value in model.graph.output}
    if not name and len(outputs) == 1:
        return next(iter(outputs))
    name = name or "features"
    inner = [output for node in model.graph.node for output in node.output if output]
    if name in outputs or name in inner:
        return name
    listed = ", ".join(map(_text, outputs.values()))
    if name == "features" and not difflib.get_close_matches(name, inner, n=1):
        raise BadWeights(f"{file} has no output '{name}'. It has: {listed}. Name one, or an inner one: output='...'")
    near = difflib.get_close_matches(name, [*outputs, *inner], n=3, cutoff=0.5)
    last = near or [output for output in inner if output not in outputs and output != source][-3:]
    hint = f"; inner ones near it: {', '.join(last)}" if last else ""
    raise BadWeights(f"{file} has no output '{name}'. It has: {listed}{hint}")


def _check_input(source: onnx.ValueInfoProto, layout: Layout, size_px: int, file: Path) -> Layout:
    """Kind, channels and size of the images that a model takes; its layout."""
    kind = source.type.tensor_type.elem_type
    if kind not in FLOATS:
        import onnx

        raise BadWeights(
            f"{file}: its input '{source.name}' takes {onnx.TensorProto.DataType.Name(kind)}, expected float32, "
            "float16 or double. Export it without the cast in front"
        )
    layout = _layout(source, layout, file)
    shape = _shape(source)
    sides = shape[1:3] if layout == "NHWC" else shape[2:]
    if any(isinstance(side, int) and side != size_px for side in sides):
        raise BadWeights(
            f"{file} takes images of {sides[0]} x {sides[1]} px only, but {size_px} x {size_px} are to come. The "
            "card's input_size (or size=...) must say what the model takes"
        )
    return layout


def _layout(source: onnx.ValueInfoProto, layout: Layout, file: Path) -> Layout:
    """Channels first or last; three of them."""
    shape = _shape(source)
    if len(shape) != 4:
        raise BadWeights(f"{file}: its input {_text(source)} is no batch of images (N, 3, S, S) or (N, S, S, 3)")
    if not layout:
        layout = "NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW"
    channels = shape[3 if layout == "NHWC" else 1]
    if isinstance(channels, int) and channels != 3:
        raise BadWeights(f"{file}: its input {_text(source)} takes {channels} channels; images here have 3 (RGB)")
    return layout


def _cut(model: onnx.ModelProto, source: str, target: str, file: Path) -> onnx.ModelProto:
    """The part of the graph between source and target, its two ends named images.inner and features.inner."""
    import onnx
    from onnx import utils

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    if target not in {value.name for value in whole.graph.output}:
        whole.graph.output.append(onnx.ValueInfoProto(name=target))
    whole.graph.ClearField("value_info")
    whole.graph.ClearField("quantization_annotation")
    try:
        part = utils.Extractor(whole).extract_model([source], [target])
    except ValueError as error:
        raise BadWeights(f"{file} cannot be cut between '{source}' and '{target}': {error}") from error
    fed = {name for node in part.graph.node for name in node.input}
    others = sorted(inputs(whole).keys() & fed - {source})
    if others:
        raise BadWeights(f"{file}: '{target}' also depends on the inputs {', '.join(others)}; expected images only")
    if source not in fed:
        raise BadWeights(f"{file}: '{target}' does not depend on the input '{source}'")
    _rename(part.graph, {source: "images.inner", target: "features.inner"})
    return part


def _rename(graph: onnx.GraphProto, ends: dict[str, str]) -> None:
    """Other names for the two ends; whoever had these names, or those that we give later, makes way."""
    taken = {*ends.values(), "images", "features"}
    names = {name: f"{name}.other" for name in taken} | ends
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _free_batch(part: onnx.ModelProto, fixed: int) -> onnx.ModelProto:
    """A copy whose first dimension is free: constant shapes of Reshapes that begin with k take it as it comes."""
    import onnx
    from onnx import numpy_helper

    free = onnx.ModelProto()
    free.CopyFrom(part)
    graph = free.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    constant = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for i, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] in stored or node.input[0] in constant:
            continue
        shape = stored.get(node.input[1], constant.get(node.input[1]))
        if shape is None:
            continue
        wanted = numpy_helper.to_array(shape).copy()
        if wanted.ndim == 1 and len(wanted) and wanted[0] == fixed:
            wanted[0] = 0  # "as in the input"
            name = f"{node.input[1]}.free{i}"
            graph.initializer.append(numpy_helper.from_array(wanted, name))
            node.input[1] = name
    for value in graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return free


def _outside(part: onnx.ModelProto, layout: Layout, order: Order) -> onnx.ModelProto:
    """A copy with `images` float32 (N, 3, S, S) in front, and float32 at the end."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(part)
    graph = model.graph
    kind = graph.input[0].type.tensor_type.elem_type
    nodes, at = [], "images"

    def then(op: str, *more: str, **attributes: Any) -> None:
        nonlocal at
        nodes.append(helper.make_node(op, [at, *more], [f"images.{op}"], name=f"images.{op}", **attributes))
        at = f"images.{op}"

    if order == "BGR":
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "images.order"))
        then("Gather", "images.order", axis=1)
    if layout == "NHWC":
        then("Transpose", perm=[0, 2, 3, 1])
    if kind != TensorProto.FLOAT:
        then("Cast", to=kind)
    if nodes:
        nodes[-1].output[0] = "images.inner"
        kept = list(graph.node)
        graph.ClearField("node")
        graph.node.extend([*nodes, *kept])
    else:
        _replace(graph, "images.inner", "images")
    size = list(graph.input[0].type.tensor_type.shape.dim)
    sides = [size[1], size[2]] if layout == "NHWC" else [size[2], size[3]]
    shape = ["N", 3, *(side.dim_value or f"S{i}" for i, side in enumerate(sides))]
    if size[0].dim_value:
        shape[0] = size[0].dim_value
    graph.ClearField("input")
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, shape))
    graph.ClearField("output")
    if kind != TensorProto.FLOAT:
        graph.node.append(helper.make_node("Cast", ["features.inner"], ["features"], to=TensorProto.FLOAT))
    else:
        _replace(graph, "features.inner", "features")
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
    graph.name = "trunk"
    return model


def _replace(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def _pool(model: onnx.ModelProto, shape: tuple[int, ...], layout: Layout, ends: Ends, target: str, file: Path) -> None:
    """Bring `features` to (N, D), in place."""
    from onnx import TensorProto, helper, numpy_helper

    graph, D = model.graph, shape[-1]
    if len(shape) == 3 and not ends.pool:
        raise BadSetting(
            f"{file}: '{target}' gives tokens (N, {shape[1]}, {shape[2]}). Say which: pool='first' (a class token) or "
            "pool='mean'"
        )
    if len(shape) not in (2, 3, 4):
        raise BadWeights(f"{file}: '{target}' gives {list(shape)}, expected (N, D), (N, T, D) or (N, D, h, w)")
    if len(shape) > 2:
        _replace(graph, "features", "features.whole")
        whole = ["features.whole"]
        if len(shape) == 3 and ends.pool == "first":
            graph.initializer.append(numpy_helper.from_array(np.array(0), "features.first"))
            graph.node.append(helper.make_node("Gather", [*whole, "features.first"], ["features"], axis=1))
        elif len(shape) == 3:
            graph.node.append(helper.make_node("ReduceMean", whole, ["features"], axes=[1], keepdims=0))
        else:
            square_last, square_first = shape[2] == shape[3], shape[1] == shape[2]  # images are square, so are maps
            last = square_first and (not square_last or layout == "NHWC")
            axes, D = ([1, 2], shape[3]) if last else ([2, 3], shape[1])
            graph.node.append(helper.make_node("ReduceMean", whole, ["features"], axes=axes, keepdims=0))
        _axes_as_input(model)
    graph.ClearField("output")
    rows = graph.input[0].type.tensor_type.shape.dim[0]
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, [rows.dim_value or "N", D]))


def _axes_as_input(model: onnx.ModelProto) -> None:
    """From operator set 18 on, ReduceMean takes its axes as an input."""
    from onnx import numpy_helper

    if max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < 18:
        return
    node = model.graph.node[-1]
    axes = [attribute for attribute in node.attribute if attribute.name == "axes"]
    if node.op_type == "ReduceMean" and axes:
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes[0].ints), "features.axes"))
        node.attribute.remove(axes[0])
        node.input.append("features.axes")


def _plain(model: onnx.ModelProto, file: Path) -> onnx.ModelProto:
    try:
        return onnx_graph.plain(model)
    except RuntimeError as error:  # of onnx's version converter
        raise BadWeights(
            f"{file} cannot be brought to operator set {onnx_graph.OPSET}: {(str(error).splitlines() or [''])[0]}. "
            f"Export it again with operator set {onnx_graph.OPSET}"
        ) from error


def _try(model: onnx.ModelProto, size_px: int, file: Path, fixed: int) -> tuple[int, ...]:
    """Shape of what a model gives for two images."""
    try:
        return _run(model, _noise(2, size_px)).shape
    except BadWeights as error:
        raise _does_not_run(file, fixed, size_px, error) from error


def _prove(model: onnx.ModelProto, size_px: int, file: Path) -> None:
    """Features are (N, D), finite, and the same alone as in company."""
    images = _noise(3, size_px)
    together = _run(model, images)
    alone = _run(model, images[1:2])
    if together.ndim != 2 or together.dtype != np.float32 or not np.isfinite(together).all():
        raise BadWeights(f"{file} gives features that are not finite numbers (N, D) for random images")
    if not _near(alone[0], together[1]):
        raise BadWeights(
            f"{file} gives an image other features alone than in a batch: it was exported in training mode, or its "
            "first dimension is not the batch. Export it in inference mode with a free first dimension"
        )


def _prove_batch(free: onnx.ModelProto, original: onnx.ModelProto, fixed: int, size_px: int, file: Path) -> None:
    """The freed graph gives, for one image in a batch of another size, what the original gives for its own size."""
    images = _noise(fixed, size_px)
    expected = _run(original, images)
    found = _run(free, np.concatenate([images, _noise(2, size_px, seed=1)]))[:fixed]
    if not _near(found, expected):
        raise BadWeights(
            f"{file} takes batches of {fixed} only, and freeing its first dimension changes what it gives. Export it "
            "with a dynamic first dimension"
        )


def _run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    running = session(onnx_graph.to_bytes(model))
    try:
        return np.asarray(running.run(None, {"images": images})[0])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise BadWeights((str(error).splitlines() or [type(error).__name__])[0]) from error


def _does_not_run(file: Path, fixed: int, size_px: int, error: Exception) -> BadWeights:
    if fixed:
        return BadWeights(
            f"{file} takes batches of {fixed} only, and freeing its first dimension breaks it. Export it with a "
            f"dynamic first dimension ({error})"
        )
    return BadWeights(f"{file} does not run on images of {size_px} x {size_px} px, whatever its card says: {error}")


def _noise(n: int, size_px: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, 3, size_px, size_px)).astype(np.float32)


def _near(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= TOLERANCE * max(float(np.abs(b).max()), 1e-12))


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]


def _text(value: onnx.ValueInfoProto) -> str:
    return f"{value.name} ({', '.join(map(str, _shape(value)))})"
