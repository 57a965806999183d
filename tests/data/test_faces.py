"""Detectors as ONNX: small graphs whose "faces" are red squares, in every form that is known."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from topwork.data.faces import CELLS, Detector, _decoded, _distinct, blurred
from topwork.errors import BadSetting, BadWeights, WeightsNotHere


def saved(path, nodes, tensors, outputs, shape=(1, 3, 240, 320), kind=TensorProto.FLOAT):
    x = helper.make_tensor_value_info("x", kind, shape)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(
        nodes, "faces", [x], made, [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def red_square(path, form="boxes", shape=(1, 3, 240, 320)):
    """A graph that looks: red = x[0] - x[1] > 0.5; its box is where rows and columns hold some; score: is there any."""
    node = helper.make_node
    H, W = shape[2:]
    nodes = [
        node("Split", ["x"], ["r", "g", "b"], axis=1),
        node("Sub", ["r", "g"], ["d"]),
        node("Greater", ["d", "half"], ["red"]),
        node("Cast", ["red"], ["m"], to=TensorProto.FLOAT),
        node("ReduceMax", ["m"], ["cols"], axes=[0, 1, 2], keepdims=0),
        node("ReduceMax", ["m"], ["rows"], axes=[0, 1, 3], keepdims=0),
        node("Mul", ["cols", "xs"], ["cx"]),
        node("Mul", ["rows", "ys"], ["ry"]),
        node("ReduceMax", ["cx"], ["right"], axes=[0], keepdims=1),
        node("ReduceMax", ["ry"], ["bottom"], axes=[0], keepdims=1),
        node("Sub", ["one", "cols"], ["nc"]),
        node("Sub", ["one", "rows"], ["nr"]),
        node("Mul", ["nc", "far"], ["fc"]),
        node("Mul", ["nr", "far"], ["fr"]),
        node("Add", ["fc", "x0"], ["ac"]),
        node("Add", ["fr", "y0"], ["ar"]),
        node("ReduceMin", ["ac"], ["left"], axes=[0], keepdims=1),
        node("ReduceMin", ["ar"], ["top"], axes=[0], keepdims=1),
        node("ReduceMax", ["m"], ["any"], axes=[0, 1, 2, 3], keepdims=0),
        node("Reshape", ["any", "s1"], ["score"]),
    ]
    f = np.float32
    tensors = {
        "half": f(0.5),
        "one": f(1),
        "far": f(1e5),
        "x0": np.arange(W, dtype=f),
        "y0": np.arange(H, dtype=f),
        "two": f(2),
        "xs": np.arange(1, W + 1, dtype=f),
        "ys": np.arange(1, H + 1, dtype=f),
        "s1": np.array([1]),
        "b4": np.array([1, 1, 4]),
        "s11": np.array([1, 1, 1]),
        "wh": np.array([W, H, W, H], f),
        "col": np.array([[0.1]], f),
        "b5": np.array([1, 5, 1]),
        "pad": np.zeros((1, 5, 7), f),
    }
    if form == "boxes":
        nodes += [
            node("Concat", ["left", "top", "right", "bottom"], ["box"], axis=0),
            node("Div", ["box", "wh"], ["part"]),
            node("Reshape", ["part", "b4"], ["boxes"]),
            node("Reshape", ["score", "s11"], ["p"]),
            node("Sub", ["one", "p"], ["q"]),
            node("Concat", ["q", "p"], ["scores"], axis=2),
        ]
        return saved(path, nodes, tensors, ["scores", "boxes"], shape)
    nodes += [
        node("Add", ["left", "right"], ["sx"]),
        node("Div", ["sx", "two"], ["mx"]),
        node("Add", ["top", "bottom"], ["sy"]),
        node("Div", ["sy", "two"], ["my"]),
        node("Sub", ["right", "left"], ["w"]),
        node("Sub", ["bottom", "top"], ["h"]),
        node("Concat", ["mx", "my", "w", "h", "score"], ["one5"], axis=0),
        node("Reshape", ["one5", "b5"], ["five"]),
        node("Concat", ["five", "pad"], ["v8"], axis=2),
    ]
    if form == "yolov5":
        nodes += [node("Transpose", ["v8"], ["t"], perm=[0, 2, 1]), node("Concat", ["t", "cls"], ["v5"], axis=2)]
        tensors["cls"] = np.ones((1, 8, 1), f)
    return saved(path, nodes, tensors, ["v5" if form == "yolov5" else "v8"], shape)


def photo(box=(40, 30, 100, 110), size=(300, 200)):
    """Noise, and in its box a red square with a pattern that tells who it is."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 120, (size[1], size[0], 3)).astype(np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = np.where(rng.random((y1 - y0, x1 - x0, 1)) < 0.5, [250, 10, 10], [200, 20, 40])
    return pixels


@pytest.mark.parametrize(
    ("form", "shape"), [("boxes", (1, 3, 240, 320)), ("yolov8", (1, 3, 256, 256)), ("yolov5", (1, 3, 256, 256))]
)
def test_finds_and_blurs(tmp_path, form, shape):
    detector = Detector.of(f"local:{red_square(tmp_path / 'd.onnx', form, shape)}")
    assert detector.form == form
    box, pixels = (40, 30, 100, 110), photo()
    found = detector.boxes(pixels)
    assert found.shape == (1, 4)
    assert np.abs(found[0] - box).max() < 3  # pixels of the picture
    new = blurred(pixels, found)
    np.testing.assert_array_equal(new[150:], pixels[150:])
    before, after = pixels[30:110, 40:100].astype(float), new[30:110, 40:100].astype(float)
    fine = np.abs(np.diff(after, axis=1)).mean() / np.abs(np.diff(before, axis=1)).mean()
    assert fine < 0.2
    grey = np.full((200, 300, 3), 128, np.uint8)
    assert len(detector.boxes(grey)) == 0
    np.testing.assert_array_equal(blurred(grey, detector.boxes(grey)), grey)


def test_only_means_are_left_of_a_face():
    pixels = photo((40, 40, 140, 140))
    low, high = 40 + 100 / 7 + 1e-6, 140 - 100 / 7 - 1e-6  # with a fifth around it: 100 x 100
    box = np.array([[low, low, high, high]])
    new = blurred(pixels, box)
    cells = pixels[40:140, 40:140].reshape(CELLS, 20, CELLS, 20, 3).mean((1, 3))
    shuffled = pixels.copy()
    rng = np.random.default_rng(1)
    for i in range(CELLS):
        for j in range(CELLS):
            cell = shuffled[40 + 20 * i : 60 + 20 * i, 40 + 20 * j : 60 + 20 * j].reshape(-1, 3)
            shuffled[40 + 20 * i : 60 + 20 * i, 40 + 20 * j : 60 + 20 * j] = rng.permutation(cell).reshape(20, 20, 3)
    other = blurred(shuffled, box)[40:140, 40:140].astype(float)
    assert np.abs(other - new[40:140, 40:140]).max() <= 2  # rounding, twice: what was inside a cell is gone
    assert np.abs(new[50, 50].astype(float) - cells[0, 0]).max() < 12


def test_retinaface_offsets_are_decoded_by_anchors(tmp_path):
    """Against the formula, anchor by anchor, and through a graph whose outputs have its three widths."""
    W, H = 64, 48
    anchors = [
        (cx, cy, side)
        for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
        for cy in np.arange(-(-H // stride)) * stride + stride / 2
        for cx in np.arange(-(-W // stride)) * stride + stride / 2
        for side in sides
    ]
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(len(anchors), 4)).astype(np.float32)
    got = _decoded(offsets, (W, H), tmp_path)
    for (cx, cy, side), (dx, dy, dw, dh), box in zip(anchors[::17], offsets[::17], got[::17], strict=True):
        mx, my, w, h = cx + 0.1 * dx * side, cy + 0.1 * dy * side, side * np.exp(0.2 * dw), side * np.exp(0.2 * dh)
        np.testing.assert_allclose(box, [mx - w / 2, my - h / 2, mx + w / 2, my + h / 2], rtol=1e-5)
    confidence = np.zeros((len(anchors), 2), np.float32)
    confidence[5, 1] = 0.9
    tensors = {"loc0": offsets[None], "conf0": confidence[None], "land0": np.zeros((1, len(anchors), 10), np.float32)}
    nodes = [helper.make_node("Identity", [f"{name}0"], [name]) for name in ("loc", "conf", "land")]
    path = saved(tmp_path / "r.onnx", nodes, tensors, ["loc", "conf", "land"], (1, 3, H, W))
    detector = Detector.of(str(path))
    assert detector.form == "retinaface"
    found = detector.boxes(np.zeros((2 * H, 2 * W, 3), np.uint8))
    np.testing.assert_allclose(found, 2 * got[5:6], rtol=1e-4)
    with pytest.raises(BadWeights, match=r"offsets for \d+ anchors"):
        _decoded(offsets[1:], (W, H), tmp_path)


def test_plain_boxes_in_pixels_bytes_in_and_the_file_beside(tmp_path):
    boxes = np.array([[10, 20, 30, 40], [11, 21, 31, 41], [50, 50, 60, 60]], np.float32)
    tensors = {"b0": boxes, "s0": np.array([0.9, 0.8, 0.3], np.float32)}
    nodes = [helper.make_node("Identity", ["b0"], ["b"]), helper.make_node("Identity", ["s0"], ["s"])]
    path = saved(tmp_path / "d.onnx", nodes, tensors, ["b", "s"], (1, 100, 200, 3), TensorProto.UINT8)
    np.testing.assert_allclose(Detector.of(str(path)).boxes(np.zeros((200, 200, 3), np.uint8)), [[10, 40, 30, 80]])
    (tmp_path / "d.json").write_text(json.dumps({"threshold": 0.2}))
    assert len(Detector.of(str(path)).boxes(np.zeros((200, 200, 3), np.uint8))) == 2
    for wrong in ('{"form": "mtcnn"}', '{"colour": 1}', "[1]"):
        (tmp_path / "d.json").write_text(wrong)
        with pytest.raises(BadSetting, match="expected some of form, size"):
            Detector.of(str(path))


def test_of_boxes_that_overlap_the_surest_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 10.5]], float)
    assert sorted(_distinct(boxes, np.array([0.5, 0.9, 0.1, 0.8]))) == [1, 2]


def test_what_is_no_detector_is_said(tmp_path):
    with pytest.raises(BadSetting, match="expected a detector as ONNX"):
        Detector.of("local:faces.pt")
    with pytest.raises(WeightsNotHere, match="does not exist"):
        Detector.of(str(tmp_path / "nowhere.onnx"))
    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    with pytest.raises(BadWeights, match=r"gives \[1, 3\]: no form that is known"):
        Detector.of(str(saved(tmp_path / "c.onnx", nodes, {}, ["y"])))
