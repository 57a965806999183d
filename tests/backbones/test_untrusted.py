"""Folders of strangers: whatever lies in them, one line says what is wrong, and nothing outside is touched."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from topwork import backbones
from topwork.backbones.card_json import inside
from topwork.errors import BadWeights, TopworkError, WeightsNotHere

CARD = {
    "file": "model.safetensors",
    "architecture": "timm.create_model('test_resnet', num_classes=0)",
    "input_size": [3, 64, 64],
    "resize_short_side": 64,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "weights"
    path.mkdir()
    save_file({"w": np.zeros((2, 3), np.float32)}, path / "model.safetensors")
    (path / "card.json").write_text(json.dumps(CARD))
    return path


def header(text: str, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text.encode()


TENSOR = '{"w": {"dtype": "F32", "shape": %s, "data_offsets": %s}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        header("", claimed=2**63),
        header("{", claimed=90_000_000),
        header("{" + " " * 2_000_000),
        header("[" * 100_000),
        header(TENSOR % ("[2, 3]", "[0, 24]")),  # no data follow
        header(TENSOR % ("[1000000000, 1000000000]", "[0, 24]")) + bytes(24),
        header(TENSOR % ("[2, 3]", "[0, 999999999999]")) + bytes(24),
        header(TENSOR % ("[2, 3]", "[24, 0]")) + bytes(24),
        save({"w": np.zeros(6, np.float32)})[:-4],
    ],
    ids=range(11),
)
def test_safetensors_that_lie_about_themselves(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(BadWeights, match="is not a readable safetensors file"):
        backbones.find(f"local:{folder}")


def test_a_zip_is_no_safetensors(folder):
    """torch's own files are zips of pickles; whatever they are called, nothing is unpacked."""
    with zipfile.ZipFile(folder / "model.safetensors", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + bytes(5_000_000))
    with pytest.raises(BadWeights, match="is not a readable safetensors file"):
        backbones.find(f"local:{folder}")


@pytest.mark.parametrize("name", ["../../etc/hostname", "/etc/hostname", "a/../../x.safetensors", "..", "x\0y"])
def test_names_that_lead_out_of_the_folder(folder, name):
    for change in ({"file": name}, {"onnx": {"file": name, "input": "x", "output": "y"}}):
        (folder / "card.json").write_text(json.dumps(CARD | change))
        with pytest.raises(BadWeights, match="not inside its folder"):
            backbones.find(f"local:{folder}")


def test_links_that_lead_out_of_the_folder(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(BadWeights, match=r"is a link to .* outside its folder"):
        backbones.find(f"local:{folder}")


def test_links_within_a_folder_and_into_the_hubs_blobs_are_fine(tmp_path):
    home = tmp_path / "models--a--b" / "snapshots" / "0123"
    home.mkdir(parents=True)
    blob = tmp_path / "models--a--b" / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_text("x")
    (home / "one").symlink_to("../../blobs/abc")
    (home / "two").symlink_to("one")
    assert inside(home, "one", home / "card.json").read_text() == "x"
    assert inside(home, "two", home / "card.json").read_text() == "x"


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_are_refused_by_name_with_the_way_out(folder, name):
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    (folder / "card.json").write_text(json.dumps(CARD | {"file": name}))
    for spec in (f"local:{folder}", f"local:{folder}/{name}"):
        with pytest.raises(BadWeights, match=r"is a pickle.*safetensors\.torch\.save_file"):
            backbones.find(spec)
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("config", ["timm", "transformers"])
def test_folders_of_the_hub_that_hold_a_pickle_only(tmp_path, config):
    facts = {"timm": {"architecture": "resnet18"}, "transformers": {"model_type": "vit"}}[config]
    (tmp_path / "config.json").write_text(json.dumps(facts))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadWeights, match=r"pytorch_model\.bin is a pickle"):
        backbones.find(f"local:{tmp_path}")
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsNotHere, match=r"model\.safetensors"):
        backbones.find(f"local:{tmp_path}")


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000, '{"file": {}}', "\xff"])
def test_cards_that_are_none(folder, text):
    (folder / "card.json").write_text(text)
    with pytest.raises(TopworkError) as caught:
        backbones.find(f"local:{folder}")
    assert "card.json" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": [3, 10**9, 10**9], "resize_short_side": 10**9},
        {"input_size": [3, "64", "64"]},
        {"num_features": "many"},
        {"num_parameters": -1},
        {"files": "none", "sha256": 7},
        {"std": [float("nan")] * 3},
        {"mean": [float("inf")] * 3},
    ],
)
def test_facts_that_cannot_be(folder, change):
    (folder / "card.json").write_text(json.dumps(CARD | change))
    with pytest.raises(BadWeights):
        backbones.find(f"local:{folder}")


class TestNetworks:
    """What only shows when the network is built: before any image is read all the same."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("timm", reason="needs the train extra")

    def put(self, folder: Path, change: dict, state_of: str = "test_resnet", edit=lambda state: state, **options):
        import timm
        from safetensors import torch as st

        state = timm.create_model(state_of, **options).state_dict()
        st.save_file({k: v.contiguous() for k, v in edit(state).items()}, folder / "model.safetensors")
        (folder / "card.json").write_text(json.dumps(CARD | change))
        return backbones.find(f"local:{folder}")

    def test_nan_weights(self, folder):
        def spoil(state):
            state["conv1.0.weight" if "conv1.0.weight" in state else next(iter(state))].view(-1)[0] = float("nan")
            return state

        backbone = self.put(folder, {}, num_classes=0, edit=spoil)
        with pytest.raises(BadWeights, match=r"1 of .* tensors hold values that are not finite, the first "):
            backbone.graph()

    def test_a_card_that_lies_about_the_input_size(self, folder):
        vit = {"architecture": "timm.create_model('vit_tiny_patch16_224', depth=1, num_classes=0)"}
        backbone = self.put(folder, vit, "vit_tiny_patch16_224", depth=1, num_classes=0)
        with pytest.raises(BadWeights, match="does not take images of 64 x 64 px with 3 channels, whatever its card"):
            backbone.graph()

    def test_other_channels(self, folder):
        backbone = self.put(folder, {}, in_chans=1, num_classes=0)
        with pytest.raises(BadWeights, match="trained on images of 1 channels"):
            backbone.module()
        grey = {"architecture": "timm.create_model('test_resnet', num_classes=0, in_chans=1)"}
        backbone = self.put(folder, grey, in_chans=1, num_classes=0)
        with pytest.raises(BadWeights, match="does not take images of 64 x 64 px with 3 channels"):
            backbone.graph()

    def test_the_fix_is_named(self, folder):
        backbone = self.put(folder, {"architecture": "timm.create_model('test_resnet')"}, num_classes=7)
        with pytest.raises(BadWeights, match=r"of another shape.*file \[7, .*architecture \[1000, .*num_classes=7"):
            backbone.module()
        backbone = self.put(
            folder, {}, num_classes=0, edit=lambda state: {f"module.{name}": value for name, value in state.items()}
        )
        with pytest.raises(BadWeights, match=r"tensors missing .*unknown.*names begin with 'module\.': save them"):
            backbone.module()
        backbone = self.put(folder, {}, "test_vit", num_classes=0)
        with pytest.raises(
            BadWeights, match=r"The architecture has \d+ tensors \(.*; the file has \d+ tensors \(blocks"
        ):
            backbone.module()
