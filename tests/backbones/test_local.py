"""local:FOLDER: real weights, and folders that lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from topwork import backbones
from topwork.backbones.folder import open_onnx_of_card
from topwork.errors import BadSetting, BadWeights, TopworkError, WeightsNotHere
from topwork.nn.session import session

REAL = Path(__file__).parents[3] / "shared/weights"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real weights at {REAL}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that is right but for what a test changes: one tensor, a card."""
    from safetensors.numpy import save_file

    path = tmp_path / "weights"
    path.mkdir()
    save_file({"w": np.zeros((2, 3), np.float32)}, path / "model.safetensors")
    change(path, name="w", file="model.safetensors", architecture="timm.create_model('test_resnet')",
           input_size=[3, 64, 64], resize_short_side=72, mean=[0.5] * 3, std=[0.5] * 3)  # fmt: skip
    return path


def change(folder: Path, **facts) -> None:
    path = folder / "card.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in (old | facts).items() if v is not ...}))


def test_card(folder):
    change(folder, interpolation="Bicubic (PIL, antialiased)", features="forward(x) -> 12", num_parameters=6)
    card = backbones.find(f"local:{folder}").card
    assert card.preprocess.resize_px == 72
    assert card.preprocess.interpolation == "bicubic"
    assert (card.features, card.parameters, card.architecture) == (12, 6, "timm:test_resnet()")
    key = card.key
    change(folder, resize_short_side=80)
    assert backbones.find(f"local:{folder}").card.key != key


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"mean": ..., "file": ...}, "lacks file, mean. A card needs"),
        ({"sha256": "ab" * 32}, "sha256 [0-9a-f]{64}, expected (ab){32}"),
        ({"files": {"model.safetensors": {"sha256": "cd" * 32}}}, "expected (cd){32}"),
        ({"file": "gone.safetensors"}, "gone.safetensors does not exist"),
        ({"file": "model.bin"}, "is a pickle.*safetensors.torch.save_file"),
        ({"input_size": [1, 64, 64]}, r"input_size is \[1, 64, 64\]"),
        ({"input_size": [3, 64, 32]}, "input_size"),
        ({"colour_order": "BGR"}, "only ONNX files"),
        ({"colour_order": "grey"}, "expected RGB or BGR"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos'"),
        ({"resize_short_side": 32}, "resize_short_side of at least"),
        ({"std": [1, 0, 1]}, "std above 0"),
        ({"mean": "grey"}, "three numbers"),
        ({"architecture": "a network"}, "no known architecture"),
        ({"onnx": {"file": "gone.onnx", "input": "x", "output": "y"}}, "gone.onnx does not exist"),
        ({"onnx": {"input": "x"}}, "lacks 'file'"),
        ({"onnx": {"file": "model.safetensors", "input": "x", "outputs": "a [1], b [2]"}}, "names 2 tensors"),
    ],
)
def test_cards_that_lie(folder, facts, message):
    change(folder, **facts)
    with pytest.raises(BadWeights, match=message):
        backbones.find(f"local:{folder}")


def test_folders_that_are_none(folder, tmp_path):
    for spec, kind in (
        ("local:", BadSetting),
        ("local:/no/such", WeightsNotHere),
        (f"local:{tmp_path}", WeightsNotHere),
    ):
        with pytest.raises(kind):
            backbones.find(spec)
    (folder / "card.json").write_text("{")
    with pytest.raises(BadWeights, match="not readable JSON"):
        backbones.find(f"local:{folder}")
    (folder / "weights.pth").write_bytes(b"")
    with pytest.raises(BadWeights, match="is a pickle"):
        backbones.find(f"local:{folder}/weights.pth")


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadWeights, match="not a readable safetensors file"):
        backbones.find(f"local:{folder}")


def test_weights_of_another_network(folder):
    pytest.importorskip("timm", reason="needs the train extra")
    with pytest.raises(BadWeights, match=r"model\.safetensors does not fit its architecture: \d+ tensors missing"):
        backbones.find(f"local:{folder}").graph()


@needs_real
def test_onnx_block_runs_without_torch_and_gives_the_features():
    """Against the whole file in onnxruntime, its own second output."""
    import onnxruntime as ort

    folder = REAL / "mobilenetv1_025"
    backbone = backbones.find(f"local:{folder}")
    images = np.random.default_rng(0).normal(size=(3, 3, 224, 224)).astype(np.float32)
    whole = ort.InferenceSession(folder / "mobilenetv1_025.onnx", providers=["CPUExecutionProvider"])
    (expected,) = whole.run(["features"], {"input": images})
    (features,) = session(backbone.graph(), 1).run(["features"], {"images": images})
    assert features.shape == (3, 256)
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert len(backbone.graph()) < 1_000_000  # the classifier is gone
    with pytest.raises(BadSetting, match="not trained further"):
        backbone.module()


@needs_real
def test_onnx_that_changed_is_noticed(tmp_path):
    folder = tmp_path / "v1"
    shutil.copytree(REAL / "mobilenetv1_025", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    with (folder / "mobilenetv1_025.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BadWeights, match=r"mobilenetv1_025\.onnx is not the file that"):
        backbones.find(f"local:{folder}")


@needs_real
def test_finding_imports_no_torch():
    specs = [f"local:{REAL / name}" for name in ("mobilenetv1_025", "mobilenetv2_100", "squeezenet1_0")]
    code = (
        f"import sys; from topwork import backbones; cards = [backbones.find(s).card for s in {specs!r}]; "
        "assert [c.features for c in cards] == [256, 1280, 512]; "
        "assert not {'torch', 'timm', 'torchvision', 'onnx', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


@needs_real
def test_real_weights_through_the_cached_graph(tmp_path):
    """SqueezeNet: export, then the same from the cache; a damaged cache is exported again."""
    pytest.importorskip("torchvision", reason="needs the train extra")
    import torch
    from safetensors.torch import load_file
    from torchvision import models

    folder = REAL / "squeezenet1_0"
    backbone = backbones.find(f"local:{folder}")
    graph = backbone.graph()
    (kept,) = (tmp_path / "cache/graphs").glob("*.onnx")
    assert kept.read_bytes() == graph == backbone.graph()
    kept.write_bytes(graph[:-100])
    assert backbone.graph() == graph == kept.read_bytes()

    network = models.squeezenet1_0(weights=None)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = network.eval().features(images).mean((2, 3)).numpy()
    (features,) = session(graph, 1).run(None, {"images": images.numpy()})
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


@needs_real
def test_a_card_about_an_onnx_file_needs_no_block():
    """A face embedding: its one output against the whole file in onnxruntime."""
    import onnxruntime as ort

    folder = REAL / "mobilefacenet"
    backbone = backbones.find(f"local:{folder}")
    p = backbone.card.preprocess
    assert (p.resize_px, p.crop_px) == (112, 112)
    images = np.random.default_rng(0).normal(size=(2, 3, 112, 112)).astype(np.float32)
    whole = ort.InferenceSession(folder / "mobilefacenet.onnx", providers=["CPUExecutionProvider"])
    (expected,) = whole.run(["embedding"], {"input": images})
    (features,) = session(backbone.graph(), 1).run(["features"], {"images": images})
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    for spec in (f"local:{folder}/mobilefacenet.onnx", f"onnx:{folder}/mobilefacenet.onnx"):
        again = backbones.find(spec)
        assert again.card.key == backbone.card.key
    with pytest.raises(BadWeights, match=r"is about mobilenetv1_025\.onnx, model\.safetensors, not"):
        open_onnx_of_card(REAL / "mobilenetv1_025/other.onnx", "x")


@needs_real
def test_other_real_folders_say_what_is_wrong():
    with pytest.raises(TopworkError, match="lacks mean, std"):
        backbones.find(f"local:{REAL / 'speech_embedding'}")
