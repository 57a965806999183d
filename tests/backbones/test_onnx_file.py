"""Frozen trunks in ONNX files of others: what is bridged, against plain numpy; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from topwork import backbones
from topwork.backbones.onnx_ends import Ends
from topwork.backbones.onnx_file import OnnxBackbone
from topwork.errors import BadSetting, BadWeights, WeightsNotHere
from topwork.nn.session import session
from topwork.types import Card, Preprocess

CARD = Card("local:x", "x", "x", Preprocess(4, 4, (0.0,) * 3, (1.0,) * 3), "ab")
X = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
PLAIN = "mean=0, std=1"
ONES = ", ".join(["1.0"] * 48)
TWO = """g (float[N, 3, 4, 4] x) => (float[N, 48] y, float[N, 48] logits)
<float[48] w = {ONES}>
{ images = Flatten (x) features = Neg (images) y = Exp (features) logits = Mul (y, w) }""".replace("ONES", ONES)


def write(folder: Path, text: str, opset: int = 18) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]> {text}').SerializeToString())
    return path


def found(path: Path, options: str = "size=4") -> OnnxBackbone:
    return backbones.find(f"onnx:{path}({PLAIN}, {options})")


def run(backbone, images=X) -> np.ndarray:
    running = session(backbone.graph(), 1)
    assert [v.name for v in running.get_inputs()] == ["images"]
    return running.run(["features"], {"images": images})[0]


def test_one_output_is_kept_under_our_names_even_where_they_are_taken(tmp_path):
    backbone = OnnxBackbone(CARD, write(tmp_path, TWO), Ends("x", "y"))
    assert np.allclose(run(backbone), np.exp(-X.reshape(2, 48)), rtol=1e-5)
    kept = onnx.load_from_string(backbone.graph())
    assert [node.op_type for node in kept.graph.node] == ["Flatten", "Neg", "Exp"]
    assert not kept.graph.initializer


def test_inner_tensors_have_names_too(tmp_path):
    path = write(tmp_path, TWO)
    assert np.allclose(run(found(path, "size=4, output='images'")), X.reshape(2, 48))
    assert np.allclose(run(found(path)), -X.reshape(2, 48))  # two outputs, but one tensor called features


def test_what_does_not_fit_is_said(tmp_path):
    path = write(tmp_path, TWO)
    with pytest.raises(BadWeights, match=r"no input 'pixels'\. It has: x \(N, 3, 4, 4\)"):
        found(path, "size=4, input='pixels'").graph()
    with pytest.raises(BadWeights, match=r"no output 'z'\. It has: y \(N, 48\), logits \(N, 48\)"):
        found(path, "size=4, output='z'").graph()
    with pytest.raises(BadWeights, match=r"takes images of 4 x 4 px only, but 6 x 6"):
        found(path, "size=6").graph()
    text = "g (float[N, 3, 4, 4] x) => (float[N, 48] a, float[N, 48] b) { a = Flatten (x) b = Exp (a) }"
    with pytest.raises(BadWeights, match=r"no output 'features'\. It has: a \(N, 48\), b.*output='"):
        found(write(tmp_path, text)).graph()
    text = "g (float[N, 3, 4, 4] x, float[N, 48] z) => (float[N, 48] y) { a = Flatten (x) y = Add (a, z) }"
    with pytest.raises(BadWeights, match=r"has 2 inputs: x \(N, 3, 4, 4\), z"):
        found(write(tmp_path, text)).graph()
    with pytest.raises(BadWeights, match="also depends on the inputs z"):
        found(write(tmp_path, text), "size=4, input='x'").graph()


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(tmp_path, channels):
    text = f"g (float[N, {channels}, 8, 8] x) => (float[N, D] y) {{ y = Flatten (x) }}"
    with pytest.raises(BadWeights, match=f"takes {channels} channels; images here have 3"):
        found(write(tmp_path, text), "size=8").graph()


def test_other_inputs(tmp_path):
    with pytest.raises(BadWeights, match=r"no batch of images"):
        found(write(tmp_path, "g (float[N, 48] x) => (float[N, 48] y) { y = Exp (x) }")).graph()
    text = "g (uint8[N, 3, 4, 4] x) => (float[N, 48] y) { a = Cast <to = 1> (x) y = Flatten (a) }"
    with pytest.raises(BadWeights, match="takes UINT8, expected float32"):
        found(write(tmp_path, text)).graph()


def test_channels_last_maps_are_pooled(tmp_path):
    text = "g (float[N, 4, 4, 3] x) => (float[N, 4, 4, 3] y) { y = Exp (x) }"
    backbone = found(write(tmp_path, text))
    assert np.allclose(run(backbone), np.exp(X).mean((2, 3)), rtol=1e-5)


def test_channels_first_maps_are_pooled_even_where_the_images_are_channels_last(tmp_path):
    text = """g (float[N, 4, 4, 3] x) => (float[N, D] y)
    { a = Transpose <perm = [0, 3, 1, 2]> (x) maps = Exp (a) y = Flatten (maps) }"""
    path = write(tmp_path, text)
    assert np.allclose(run(found(path, "output='maps'")), np.exp(X).mean((2, 3)), rtol=1e-5)  # size: from the file
    assert np.allclose(run(found(path)), np.exp(X).reshape(2, 48), rtol=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 17, 19, 21])
def test_ages_of_operator_sets(tmp_path, opset):
    text = "g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Exp (x) }"
    assert np.allclose(run(found(write(tmp_path, text, opset))), np.exp(X).mean((2, 3)), rtol=1e-5)


@pytest.mark.parametrize("opset", [3, 99])
def test_operator_sets_that_nobody_reads(tmp_path, opset):
    path = write(tmp_path, "g (float[N, 3, 4, 4] x) => (float[N, 48] y) { y = Flatten (x) }", opset)
    with pytest.raises(BadWeights, match=f"operator set {opset}; 7 to "):
        found(path).graph()


def test_colours_and_scale_as_caffe_has_them(tmp_path):
    """(255 pixel - mean) / std with blue first, against numpy on pixels."""
    from topwork.modalities.image_graph import normalise
    from topwork.nn.onnx_graph import chain, to_bytes

    path = write(tmp_path, "g (float[N, 3, 4, 4] x) => (float[N, 48] y) { y = Flatten (x) }")
    mean, std = (103.9, 116.8, 123.7), (1.0, 2.0, 4.0)
    backbone = backbones.find(f"onnx:{path}(mean={mean}, std={std}, scale=255, order='BGR')")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    blue_first = (pixels[..., ::-1].astype(np.float32) - mean) / std
    graph = to_bytes(chain(normalise(backbone.card.preprocess), onnx.load_from_string(backbone.graph())))
    running = session(graph, 1)
    features = running.run(None, {running.get_inputs()[0].name: pixels})[0]
    assert np.allclose(features, blue_first.transpose(0, 3, 1, 2).reshape(2, -1), atol=1e-3)


def test_half_precision(tmp_path):
    text = "g (float16[N, 3, 4, 4] x) => (float16[N, 48] y) { a = Exp (x) y = Flatten (a) }"
    features = run(found(write(tmp_path, text)))
    assert features.dtype == np.float32
    assert np.allclose(features, np.exp(X.astype(np.float16)).reshape(2, 48), rtol=2e-3)


TOKENS = "g (float[N, 3, 4, 4] x) => (float[N, 3, 16] y) <int64[3] s = {0, 3, 16}> { y = Reshape (x, s) }"


def test_tokens_are_pooled_as_asked(tmp_path):
    path = write(tmp_path, TOKENS)
    with pytest.raises(BadSetting, match=r"gives tokens \(N, 3, 16\)"):
        found(path).graph()
    assert np.allclose(run(found(path, "pool='mean'")), X.reshape(2, 3, 16).mean(1), atol=1e-6)
    assert np.allclose(run(found(path, "pool='first'")), X.reshape(2, 3, 16)[:, 0])
    assert found(path, "pool='first'").card.key != found(path, "pool='mean'").card.key


@pytest.mark.parametrize("k", [1, 2])
def test_fixed_batches_are_freed_and_proven(tmp_path, k):
    text = f"""g (float[{k}, 3, 4, 4] x) => (float[{k}, 48] y) <int64[2] s = {{{k}, 48}}>
    {{ a = Exp (x) y = Reshape (a, s) }}"""
    images = np.random.default_rng(2).normal(size=(5, 3, 4, 4)).astype(np.float32)
    assert np.allclose(run(found(write(tmp_path, text)), images), np.exp(images).reshape(5, 48), rtol=1e-5)


def test_fixed_batches_that_cannot_be_freed(tmp_path):
    mixed = """g (float[2, 3, 4, 4] x) => (float[2, 48] y) <int64[1] ax = {0}>
    { a = Flatten (x) m = ReduceMean <keepdims = 1> (a, ax) y = Sub (a, m) }"""
    with pytest.raises(BadWeights, match=r"batches of 2 only, and freeing|other features alone"):
        found(write(tmp_path, mixed)).graph()
    breaks = """g (float[1, 3, 4, 4] x) => (float[1, 96] y) <float[1, 48] w = {ONES}>
    { a = Flatten (x) y = Concat <axis = 1> (a, w) }""".replace("ONES", ONES)
    with pytest.raises(BadWeights, match="batches of 1 only, and freeing its first dimension breaks it"):
        found(write(tmp_path, breaks)).graph()


def test_networks_in_training_mode_are_noticed(tmp_path):
    text = """g (float[N, 3, 4, 4] x) => (float[N, 48] y) <int64[1] ax = {0}>
    { a = Flatten (x) m = ReduceMean <keepdims = 1> (a, ax) y = Sub (a, m) }"""
    with pytest.raises(BadWeights, match="other features alone than in a batch"):
        found(write(tmp_path, text)).graph()


def test_custom_operators_are_code(tmp_path):
    node = helper.make_node("Magic", ["x"], ["y"], domain="my.ops")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 4, 4]) for n in "xy"]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.ops", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=opsets), path)
    with pytest.raises(BadWeights, match=r"custom operators \(my\.ops:Magic\), which are code"):
        found(path).graph()


def linear(weight: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 3, 4, 4] x) => (float[N, D] y) '
        "{ a = Flatten (x) y = MatMul (a, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


W = np.random.default_rng(3).normal(size=(48, 5)).astype(np.float32)


def test_weights_outside_the_file(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(linear(W), path, save_as_external_data=True, location="w.bytes", size_threshold=0)
    assert np.allclose(run(found(path)), X.reshape(2, 48) @ W, atol=1e-5)
    key = found(path).card.key
    (tmp_path / "w.bytes").write_bytes((2 * W).tobytes())
    assert found(path).card.key != key
    assert np.allclose(run(found(path)), 2 * X.reshape(2, 48) @ W, atol=1e-5)
    (tmp_path / "w.bytes").unlink()
    with pytest.raises(WeightsNotHere, match=r"'w\.bytes', which is not beside it\. Copy it to"):
        found(path, "size=4, output='a'").graph()


@pytest.mark.parametrize("place", ["../w.bytes", "/etc/hostname", "a/../../w.bytes"])
def test_weights_outside_the_folder_are_not_read(tmp_path, place):
    (tmp_path / "w.bytes").write_bytes(W.tobytes())
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    model = linear(W)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadWeights, match="outside its own folder: they are not read"):
        found(path).graph()


def test_links_out_of_the_folder_are_not_read(tmp_path):
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    onnx.save(linear(W), path, save_as_external_data=True, location="w.bytes", size_threshold=0)
    (path.parent / "w.bytes").rename(tmp_path / "w.bytes")
    (path.parent / "w.bytes").symlink_to(tmp_path / "w.bytes")
    with pytest.raises(BadWeights, match="outside its own folder"):
        found(path).graph()


def test_damaged_files(tmp_path):
    path = tmp_path / "model.onnx"
    data = linear(W).SerializeToString()
    for broken in (b"junk", b"", data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(BadWeights, match=r"not a readable ONNX file|damaged"):
            found(path).graph()
    bad = W.copy()
    bad[1, 2] = np.nan
    path.write_bytes(linear(bad).SerializeToString())
    with pytest.raises(BadWeights, match="'w' hold values that are not finite"):
        found(path).graph()


def test_specs(tmp_path):
    path = write(tmp_path, TWO)
    for spec, message in (
        (f"onnx:{path}", "needs mean and std"),
        (f"onnx:{path}(mean=0)", "lacks std"),
        (f"onnx:{path}({PLAIN}, sise=4)", "no option sise. Its options: mean, std"),
        (f"onnx:{path}({PLAIN}, scale=2)", "scale 2"),
        (f"onnx:{path}({PLAIN}, layout='HWC')", "layout 'HWC'. Expected one of: NCHW, NHWC"),
        (f"onnx:{path}(mean=(1, 2), std=1)", "a number or three"),
        (f"onnx:{path}({PLAIN}, size=__import__('os'))", "not a spec"),
        ("onnx:", "names no file that ends in .onnx"),
    ):
        with pytest.raises(BadSetting, match=message.replace("(", r"\(").replace(")", r"\)")):
            backbones.find(spec)
    with pytest.raises(WeightsNotHere, match="does not exist"):
        backbones.find(f"onnx:{tmp_path}/none.onnx({PLAIN})")
    free = write(tmp_path, "g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Exp (x) }")
    with pytest.raises(BadWeights, match="images of any size"):
        backbones.find(f"onnx:{free}({PLAIN})")
    assert np.allclose(run(found(free)), np.exp(X).mean((2, 3)), rtol=1e-5)


def test_the_graph_is_kept_and_other_files_are_other_graphs(tmp_path, monkeypatch):
    path = write(tmp_path, TWO)
    graph = found(path).graph()
    from topwork.backbones import onnx_read

    monkeypatch.setattr(onnx_read, "read", lambda file: pytest.fail("read again"))
    assert found(path).graph() == graph
    monkeypatch.undo()
    write(tmp_path, TWO.replace("Exp", "Abs").replace("Neg", "Abs"))
    assert found(path).graph() != graph


def test_from_a_keras_like_file_to_a_proven_model(tmp_path, photos):
    """Channels last, pixels 0..255, batches of one: frozen backbone, head, artefact, proof in a new process."""
    import topwork as tw

    weight = np.random.default_rng(5).normal(size=(16, 3, 5, 5)).astype(np.float32)
    text = """g (float[1, 32, 32, 3] x) => (float[1, 16] y) <int64[2] s = {1, 16}>
    { a = Transpose <perm = [0, 3, 1, 2]> (x) b = Conv <strides = [2, 2]> (a, w) c = Relu (b)
      p = GlobalAveragePool (c) y = Reshape (p, s) }"""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {text}')
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    spec = f"onnx:{path}(mean=0, std=1, scale=255)"
    assert tw.extract(photos, spec).x.shape == (60, 16)
    fitted = tw.fit(photos, backbone=spec, steps="logistic", out=tmp_path / "out")
    assert fitted.predict(str(photos / "moss" / "00.png")).label in ("amber", "moss", "slate")


def test_weights_that_do_not_fit_end_it_before_the_data_are_read(tmp_path):
    import topwork as tw

    spec = f"onnx:{write(tmp_path, TWO)}(mean=0, std=1, size=6)"
    for verb in (tw.extract, tw.fit):
        with pytest.raises(BadWeights, match="takes images of 4 x 4 px only"):
            verb("/no/such/data", backbone=spec)
