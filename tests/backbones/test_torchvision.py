"""torchvision:NAME from torch's own cache folder."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from topwork import backbones
from topwork.errors import BadWeights, UnknownName, WeightsNotHere
from topwork.nn.session import session

torch = pytest.importorskip("torch", reason="needs the train extra")
models = pytest.importorskip("torchvision.models", reason="needs the train extra")

SPEC = "torchvision:squeezenet1_1"


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "torch/hub/checkpoints"


def put(checkpoints: Path, monkeypatch, state) -> Path:
    """Save a state dict under a name with its hash, and let torchvision's record point there."""
    checkpoints.mkdir(parents=True)
    path = checkpoints / "part"
    torch.save(state, path)
    name = f"squeezenet1_1-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    entry = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setattr(
        entry, "_value_", entry.value.__class__(f"http://127.0.0.1:9/{name}", entry.transforms, entry.meta)
    )
    return path.rename(checkpoints / name)


def test_graph_gives_pooled_features(checkpoints, monkeypatch):
    torch.manual_seed(0)
    network = models.squeezenet1_1(weights=None).eval()
    put(checkpoints, monkeypatch, network.state_dict())
    backbone = backbones.find(f"{SPEC}.IMAGENET1K_V1")
    p = backbone.card.preprocess
    assert (p.resize_px, p.crop_px, p.interpolation) == (256, 224, "bilinear")
    assert backbone.card.parameters == sum(v.numel() for v in network.parameters())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = network.features(images).mean((2, 3)).numpy()
    (features,) = session(backbone.graph(), 1).run(None, {"images": images.numpy()})
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_damaged_file_is_found_by_the_hash_in_its_name(checkpoints, monkeypatch):
    path = put(checkpoints, monkeypatch, models.squeezenet1_1(weights=None).state_dict())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadWeights, match="not the file that its own name describes"):
        backbones.find(SPEC)


def test_a_pickle_with_more_than_tensors_is_not_run(checkpoints, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    put(checkpoints, monkeypatch, {"x": Evil()})
    with pytest.raises(BadWeights, match="more than tensors"):
        backbones.find(SPEC).module()
    assert not (tmp_path / "ran").exists()


def test_no_network_no_file(checkpoints, monkeypatch):
    entry = models.ResNet18_Weights.IMAGENET1K_V1
    url = "http://127.0.0.1:9/resnet18-f37072fd.pth"
    monkeypatch.setattr(entry, "_value_", entry.value.__class__(url, entry.transforms, entry.meta))
    begun = time.monotonic()
    with pytest.raises(WeightsNotHere, match=f"no network.*Put {url} at {checkpoints}/resnet18-f37072fd.pth"):
        backbones.find("torchvision:resnet18")
    assert time.monotonic() - begun < 5
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotHere, match="HF_HUB_OFFLINE=1"):
        backbones.find("torchvision:resnet18")


def test_unknown_names(checkpoints):
    with pytest.raises(UnknownName, match="Near it: resnet18"):
        backbones.find("torchvision:resnet81")
    with pytest.raises(UnknownName, match="IMAGENET1K_V1"):
        backbones.find("torchvision:resnet18.IMAGENET1K_V9")
