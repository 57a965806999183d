"""timm:NAME from the hub's cache layout, and its answers when the cache is empty."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from topwork import backbones
from topwork.errors import BadSetting, BadWeights, UnknownName, WeightsNotHere
from topwork.nn.session import session

timm = pytest.importorskip("timm", reason="needs the train extra")
torch = pytest.importorskip("torch", reason="needs the train extra")
safetensors_torch = pytest.importorskip("safetensors.torch")

NAME = "test_resnet.r160_in1k"
SPEC = f"timm:{NAME}"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False).eval()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty hub cache and an empty cache of ours; the network is a closed port."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "hub"


def put(hub: Path, network, name: str = "model.safetensors", blob: str | None = None) -> Path:
    """A repository in the hub's own layout: blobs by sha256, refs/main, snapshots/COMMIT -> blobs."""
    folder, commit = hub / f"models--timm--{NAME}", "0123456789" * 4
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    data = safetensors_torch.save({k: v.contiguous() for k, v in network.state_dict().items()})
    stored = folder / "blobs" / (blob or hashlib.sha256(data).hexdigest())
    stored.write_bytes(data)
    (folder / "refs/main").write_text(commit)
    link = folder / "snapshots" / commit / name
    link.symlink_to(os.path.relpath(stored, link.parent))
    return stored


def test_graph_gives_timms_own_features(hub, network, tmp_path):
    stored = put(hub, network)
    backbone = backbones.find(SPEC)
    p = backbone.card.preprocess
    assert (p.resize_px, p.crop_px, p.interpolation, p.fit) == (168, 160, "bilinear", "crop")  # floor(160 / 0.95)
    assert backbone.card.weights == stored.name
    images = torch.randn(3, 3, 160, 160)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(images), pre_logits=True).numpy()
        assert np.allclose(backbone.module()(images).numpy(), expected, atol=1e-6)
    graph = backbone.graph()
    (features,) = session(graph, 1).run(None, {"images": images.numpy()})
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()

    stored.unlink()  # the graph and the card were kept: neither weights nor timm nor torch are needed now
    code = (
        f"import sys; from topwork import backbones; b = backbones.find({SPEC!r}); "
        "assert b.card.weights and len(b.graph()) > 1000; "
        "assert not {'torch', 'timm', 'onnx'} & sys.modules.keys()"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "TOPWORK_CACHE": str(tmp_path / "cache")}
    )


def test_a_file_that_is_not_what_its_blob_name_says(hub, network):
    put(hub, network, blob="0" * 64)
    with pytest.raises(BadWeights, match=f"sha256 [0-9a-f]{{64}}, expected {'0' * 64}"):
        backbones.find(SPEC)


def test_weights_of_another_architecture(hub, network):
    put(hub, timm.create_model("test_byobnet", pretrained=False))
    with pytest.raises(BadWeights, match=r"tensors missing \(.*tensors unknown"):
        backbones.find(SPEC).module()


def test_dead_network_answers_within_five_seconds_and_its_advice_works(hub, network):
    begun = time.monotonic()
    with pytest.raises(WeightsNotHere) as caught:
        backbones.find(SPEC)
    assert time.monotonic() - begun < 5
    text = str(caught.value)
    assert "no network" in text
    assert f"/timm/{NAME}/resolve/main/model.safetensors" in text
    place = Path(text.rpartition(" at ")[2])  # do what the line says
    place.parent.mkdir(parents=True)
    safetensors_torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, place)
    assert backbones.find(SPEC).card.preprocess.crop_px == 160


def test_a_network_that_never_answers_is_given_up(hub, monkeypatch):
    from huggingface_hub import constants

    from topwork.backbones import fetch

    assert fetch.WAIT_SECONDS <= 4
    monkeypatch.setattr(fetch, "WAIT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(WeightsNotHere, match=r"no answer within 0\.5 s|timed out"):
            backbones.find(SPEC)
        assert time.monotonic() - begun < 1.5


def test_offline_asks_nobody(hub, monkeypatch):
    from topwork.backbones import fetch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(fetch, "_silence_of", lambda url: pytest.fail("asked"))
    with pytest.raises(WeightsNotHere, match="HF_HUB_OFFLINE=1"):
        backbones.find(SPEC)


def test_unknown_names(hub):
    with pytest.raises(UnknownName, match=r"No 'resnt50' among .* Near it: .*resnet50"):
        backbones.find("timm:resnt50")
    with pytest.raises(UnknownName, match=r"Near it: resnet50\.a1_in1k"):
        backbones.find("timm:resnet50.zzz")
    with pytest.raises(UnknownName):
        backbones.find("timm:hf-hub:someone/something")


def test_preprocessing_that_we_cannot_do_is_refused():
    from topwork.backbones.sources.timm import _facts, _preprocess

    border = next(n for n in timm.list_pretrained() if timm.get_pretrained_cfg(n).crop_mode == "border")
    with pytest.raises(BadSetting, match="crop_mode 'border'"):
        _preprocess(_facts(border), border)
    bicubic = _preprocess(_facts("resnet50.a1_in1k"), "timm:resnet50.a1_in1k")
    assert (bicubic.resize_px, bicubic.crop_px, bicubic.interpolation) == (235, 224, "bicubic")
