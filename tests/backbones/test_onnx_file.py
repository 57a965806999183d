"""Frozen trunks in ONNX files of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from topwork.backbones.onnx_file import OnnxBackbone
from topwork.errors import BadWeights
from topwork.nn.session import session
from topwork.types import Card, Preprocess

CARD = Card("local:x", "x", "x", Preprocess(4, 4, (0.0,) * 3, (1.0,) * 3), "ab")
X = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


def backbone(folder: Path, text: str, input: str = "x", output: str = "y") -> OnnxBackbone:
    path = folder / "model.onnx"
    path.write_bytes(parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}').SerializeToString())
    return OnnxBackbone(CARD, path, input, output)


TWO = """g (float[N, 3, 4, 4] x) => (float[N, 48] y, float[N, 48] logits)
<float[48] w = {%s}> { images = Flatten (x) features = Neg (images) y = Exp (features) logits = Mul (y, w) }"""


def test_one_output_is_kept_under_our_names_even_where_they_are_taken(tmp_path):
    graph = backbone(tmp_path, TWO % ", ".join(["1.0"] * 48)).graph()
    running = session(graph, 1)
    assert [v.name for v in running.get_inputs()] == ["images"]
    (features,) = running.run(["features"], {"images": X})
    assert np.allclose(features, np.exp(-X.reshape(2, 48)), rtol=1e-5)
    kept = onnx.load_from_string(graph)
    assert [node.op_type for node in kept.graph.node] == ["Flatten", "Neg", "Exp"]
    assert not kept.graph.initializer


def test_what_does_not_fit_is_said(tmp_path):
    text = TWO % ", ".join(["1.0"] * 48)
    with pytest.raises(BadWeights, match=r"no input 'images'\. It has: x"):
        backbone(tmp_path, text, input="images").graph()
    with pytest.raises(BadWeights, match=r"no output 'z'\. It has: y, logits"):
        backbone(tmp_path, text, output="z").graph()
    with pytest.raises(BadWeights, match="batches of 1 only"):
        backbone(tmp_path, "g (float[1, 3, 4, 4] x) => (float[1, 48] y) { y = Flatten (x) }").graph()
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(BadWeights, match="not a readable ONNX file"):
        OnnxBackbone(CARD, tmp_path / "model.onnx", "x", "y").graph()
