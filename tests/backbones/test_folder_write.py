"""What is written as a folder opens as the same backbone, and the card counts right."""

from __future__ import annotations

import json

import pytest

from topwork import backbones
from topwork.errors import BadSetting, BadWeights, ProofFailed, StoreError
from topwork.types import Preprocess

timm = pytest.importorskip("timm", reason="needs the train extra")
torch = pytest.importorskip("torch", reason="needs the train extra")

P = Preprocess(72, 64, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7), "bicubic")


@pytest.fixture
def write():
    from topwork.backbones import folder_write

    return folder_write.write


@pytest.mark.parametrize("half", [False, True])
def test_opens_as_the_same_network(write, tmp_path, half):
    network = timm.create_model("test_resnet", num_classes=5).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write(tmp_path / "a", network, "test_resnet", P, {"name": "mine", "trained_on": "noise"}, half=half)
    assert network.training
    assert network.num_classes == 5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    backbone = backbones.find(f"local:{tmp_path}/a")
    card = backbone.card
    assert (card.name, card.trained_on, card.preprocess) == ("mine", "noise", P)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval().forward_head(network.forward_features(images), pre_logits=True)
        features = backbone.module()(images)
    assert features.shape[1] == card.features
    assert torch.allclose(features, expected, atol=2e-2 if half else 1e-6)
    network.reset_classifier(0)
    assert card.parameters == sum(p.numel() for p in network.parameters())
    size = (tmp_path / "a/model.safetensors").stat().st_size
    assert 0.9 < size / (card.parameters * (2 if half else 4)) < 1.2
    assert json.loads((tmp_path / "a/card.json").read_text())["bytes"] == size


def test_grids_count_as_features(write, tmp_path):
    network = timm.create_model("test_resnet", num_classes=0)
    write(tmp_path / "a", network, "test_resnet", P, {})
    write(tmp_path / "b", network, "test_resnet", P, {"grids": {"1": 4}})
    plain, grids = (backbones.find(f"local:{tmp_path}/{name}").card.features for name in "ab")
    assert grids == plain + 16 * network.feature_info[1]["num_chs"]


def test_what_is_not_true_is_not_written(write, tmp_path):
    network = timm.create_model("test_resnet", num_classes=0)
    with pytest.raises((BadWeights, ProofFailed), match=r"does not fit|other features"):
        write(tmp_path / "a", network, "test_byobnet", P, {})
    padded = timm.create_model("mobilenetv3_small_050", pad_type="same", num_classes=0)
    with pytest.raises(ProofFailed, match="every option that the network was built with"):
        write(tmp_path / "a", padded, "mobilenetv3_small_050", P, {})
    write(tmp_path / "b", padded, "timm.create_model('mobilenetv3_small_050', pad_type='same', num_classes=0)", P, {})
    with pytest.raises(BadSetting, match="facts must not hold num_features"):
        write(tmp_path / "a", network, "test_resnet", P, {"num_features": 3})
    with pytest.raises(BadSetting, match="Only timm networks"):
        write(tmp_path / "a", network, "torchvision.models.resnet18()", P, {})
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = 1e30
    with pytest.raises(BadWeights, match="above float16's largest"):
        write(tmp_path / "a", network, "test_resnet", P, {}, half=True)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(BadWeights, match="not finite: the training diverged"):
        write(tmp_path / "a", network, "test_resnet", P, {})
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["b"]


def test_only_ones_own_folders_are_replaced(write, tmp_path):
    network = timm.create_model("test_resnet", num_classes=0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/photo.png").write_bytes(b"x")
    with pytest.raises(StoreError, match="not a Topwork folder"):
        write(tmp_path / "a", network, "test_resnet", P, {})
    for _ in range(2):
        write(tmp_path / "b", network, "test_resnet", P, {})


def test_multiply_adds_by_hand():
    from torch import nn

    from topwork.backbones.folder_write import multiply_adds

    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Flatten(),
                           nn.Linear(8 * 16, 10))  # fmt: skip
    layers.train()
    layers[1].eval()
    assert multiply_adds(layers, torch.zeros(1, 3, 8, 8)) == 16 * 8 * 3 * 9 + 16 * 8 * 9 + 8 * 16 * 10
    assert [layer.training for layer in layers] == [True, False, True, True]
    assert all(p.requires_grad for p in layers.parameters())
