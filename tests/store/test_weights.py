"""Weights files without torch, and what is kept about them."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from topwork.errors import BadWeights
from topwork.store import weights
from topwork.types import Card, Preprocess


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.ones(4, np.float32)}, path)
    return path


def test_shapes_and_hash(file):
    assert weights.shapes(file) == {"a": (2, 3), "b": (4,)}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights.sha256(file) == digest == weights.check_hash(file, digest[:8].upper(), "card")
    for wrong in ("0" * 64, ""):
        with pytest.raises(BadWeights, match=f"sha256 {digest}, expected {wrong}"):
            weights.check_hash(file, wrong, "card")


def test_files_that_are_not_weights(file, tmp_path):
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BadWeights, match="not a readable safetensors"):
        weights.shapes(file)
    with pytest.raises(BadWeights, match="not a readable safetensors"):
        weights.shapes(tmp_path / "absent.safetensors")
    with pytest.raises(BadWeights, match="cannot be read"):
        weights.sha256(tmp_path / "absent.safetensors")
    for suffix in (".bin", ".PT", ".pth", ".pkl"):
        with pytest.raises(BadWeights, match="is a pickle"):
            weights.shapes(tmp_path / f"model{suffix}")


def test_both_sides_of_a_mismatch_are_named():
    own = {f"layer{i}.weight": (1,) for i in range(5)} | {"head": (3, 4)}
    weights.check_shapes(own, dict(own), "file")
    with pytest.raises(BadWeights) as caught:
        weights.check_shapes(own, {"x": (1,), "head": (4, 3)}, "file")
    text = str(caught.value)
    assert "5 tensors missing (layer0.weight, layer1.weight, layer2.weight, ...)" in text
    assert "1 tensors unknown to the architecture (x)" in text
    assert "head: file [4, 3], architecture [3, 4]" in text


@pytest.mark.parametrize("damage", ["cut", "flip", "no hash", "gone"])
def test_a_damaged_graph_counts_as_absent(cache, damage):
    assert weights.load_graph("k") is None
    weights.save_graph("k", b"graph")
    assert weights.load_graph("k") == b"graph"
    path = cache / "graphs/k.onnx"
    if damage == "cut":
        path.write_bytes(b"grap")
    elif damage == "flip":
        path.write_bytes(b"grapH")
    elif damage == "no hash":
        (cache / "graphs/k.onnx.sha256").unlink()
    else:
        path.unlink()
    assert weights.load_graph("k") is None
    weights.save_graph("k", b"new")
    assert weights.load_graph("k") == b"new"


def test_cards_are_kept_until_their_weights_change(cache, file):
    card = Card(
        "timm:x", "x", "timm:x()", Preprocess(9, 8, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "bicubic"), "ab", features=7
    )
    assert weights.recall("timm:x") is None
    weights.remember(card, file)
    assert weights.recall("timm:x") == card
    assert weights.recall("timm:y") is None
    file.write_bytes(b"other")
    assert weights.recall("timm:x") is None
    file.unlink()  # the graph outlives the weights
    assert weights.recall("timm:x") == card
    (path,) = (cache / "cards").glob("*.json")
    kept = json.loads(path.read_text())
    for broken in ("{", "[]", json.dumps(kept | {"card": kept["card"] | {"new_field": 1}})):
        path.write_text(broken)
        assert weights.recall("timm:x") is None
