"""local:FOLDER in the layout of timm on the hub, written by timm itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from topwork import backbones
from topwork.errors import BadWeights
from topwork.nn.session import session

timm = pytest.importorskip("timm", reason="needs the train extra")
torch = pytest.importorskip("torch", reason="needs the train extra")


@pytest.fixture
def folder(tmp_path):
    """A fine-tuned network of 7 classes with an option of its own, as timm saves it."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=7, output_stride=16).eval()
    save_for_hf(network, str(tmp_path / "mine"), safe_serialization=True, model_args={"output_stride": 16})
    return tmp_path / "mine", network


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_features_are_timms_own(folder):
    path, network = folder
    backbone = backbones.find(f"local:{path}")
    p = backbone.card.preprocess
    assert (p.resize_px, p.crop_px, p.interpolation, p.fit) == (168, 160, "bilinear", "crop")  # floor(160 / 0.95)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(images), pre_logits=True).numpy()
        assert np.allclose(backbone.module()(images).numpy(), expected, atol=1e-6)


def test_preprocessing_is_what_timm_makes_of_the_same_config(folder):
    from timm.data.config import resolve_data_config
    from timm.models._hub import load_model_config_from_hf  # noqa: F401  # the layout is timm's

    path, _ = folder
    config = json.loads((path / "config.json").read_text())
    for change in ({}, {"crop_mode": "squash", "crop_pct": 1.0}, {"interpolation": "bicubic", "crop_pct": 0.875}):
        cfg = config["pretrained_cfg"] | change
        edit(path, pretrained_cfg=cfg)
        p, said = backbones.find(f"local:{path}").card.preprocess, resolve_data_config(pretrained_cfg=cfg)
        assert (p.crop_px, p.mean, p.std, p.interpolation) == (
            said["input_size"][1], tuple(said["mean"]), tuple(said["std"]), said["interpolation"],
        )  # fmt: skip
        assert p.fit == ("squash" if said["crop_mode"] == "squash" else "crop")
        assert p.resize_px == int(p.crop_px / said["crop_pct"])


def test_finding_needs_no_torch(folder):
    code = (
        f"import sys; from topwork import backbones; assert backbones.find('local:{folder[0]}').card.features; "
        "assert not {'torch', 'timm', 'onnx'} & sys.modules.keys()"
    )
    edit(folder[0], model_args={})
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "os.system"}, "names no network of timm"),
        ({"architecture": 7}, "names no network of timm"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "must not use checkpoint_path"),
        ({"pretrained_cfg": {"input_size": [1, 64, 64]}}, "input_size is"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct 0"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode 'border'"),
        ({"pretrained_cfg": {"mean": [1, 2]}}, "three numbers"),
    ],
)
def test_configs_that_lie(folder, changes, message):
    edit(folder[0], **changes)
    with pytest.raises(BadWeights, match=message):
        backbones.find(f"local:{folder[0]}")


def test_weights_of_another_network(folder):
    path, _ = folder
    edit(path, architecture="no_such_network")
    with pytest.raises(BadWeights, match="cannot build"):
        backbones.find(f"local:{path}").module()
    edit(path, architecture="test_byobnet", model_args={})
    with pytest.raises(BadWeights, match=r"tensors missing \(.*tensors unknown.*The architecture has"):
        backbones.find(f"local:{path}").module()


@pytest.mark.slow
def test_the_graph_gives_the_same(folder):
    path, network = folder
    backbone = backbones.find(f"local:{path}")
    images = torch.randn(2, 3, 160, 160)
    (features,) = session(backbone.graph(), 1).run(None, {"images": images.numpy()})
    assert np.allclose(features, backbone.module()(images).detach().numpy(), atol=1e-5)
    assert features.shape[1] == network.num_features
