"""Backbones inside the package, on the base install."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from topwork import backbones
from topwork.backbones.sources.bundled import FOLDERS
from topwork.errors import UnknownName
from topwork.modalities import image_graph
from topwork.nn import onnx_graph
from topwork.nn.session import session

needs_trained = pytest.mark.skipif(not list(FOLDERS.glob("*/card.json")), reason=f"no bundled backbone in {FOLDERS}")


def test_pixels_are_the_squashed_image():
    from PIL import Image

    backbone = backbones.find("bundled:pixels")
    p = backbone.card.preprocess
    parts = (image_graph.geometry(p), image_graph.normalise(p), onnx.load_from_string(backbone.graph()))
    image = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8)
    (features,) = session(onnx_graph.to_bytes(onnx_graph.chain(*parts)), 1).run(None, {"pixels": image})
    assert features.shape == (2, backbone.card.features)
    for row, pixels in zip(features, image, strict=True):
        small = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR), np.float32) / 255
        assert np.abs(row.reshape(3, 16, 16) - small.transpose(2, 0, 1)).max() <= 1.5 / 255


@needs_trained
def test_default_backbone_keeps_its_half_precision_weights_inside_one_file():
    import onnxruntime as ort

    backbone = backbones.find("bundled")
    p = backbone.card.preprocess
    graph = onnx.load_from_string(backbone.graph())
    whole = onnx_graph.chain(image_graph.normalise(p), graph)
    tensors = [t for t in whole.graph.initializer if t.ByteSize() > 1000]
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in whole.graph.initializer)
    assert {t.data_type for t in tensors} == {onnx.TensorProto.FLOAT16}
    images = np.random.default_rng(0).normal(size=(3, 3, p.crop_px, p.crop_px)).astype(np.float32)
    beside = ort.InferenceSession(FOLDERS / "image_small/model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = beside.run(None, {beside.get_inputs()[0].name: images})
    (features,) = session(backbone.graph(), 1).run(None, {"images": images})
    assert features.shape == (3, backbone.card.features)
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()


@needs_trained
def test_onnxruntime_folds_every_batch_norm(tmp_path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(backbones.find("bundled").graph(), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not kinds & {"BatchNormalization", "Cast", "Expand", "Pad"}


@needs_trained
def test_module_is_the_same_mapping():
    torch = pytest.importorskip("torch", reason="needs the train extra")
    pytest.importorskip("timm", reason="needs the train extra")

    backbone = backbones.find("bundled")
    size = backbone.card.preprocess.crop_px
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = backbone.module()(images).numpy()
    (features,) = session(backbone.graph(), 1).run(None, {"images": images.numpy()})
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()


@needs_trained
def test_nothing_of_it_imports_torch():
    code = (
        "import sys; from topwork import backbones; [backbones.find('bundled' + s).graph() for s in ('', ':pixels')]; "
        "assert not {'torch', 'timm', 'sklearn', 'pyarrow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_unknown_names():
    with pytest.raises(UnknownName, match="pixels"):
        backbones.find("bundled:pixel")
