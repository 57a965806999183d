"""local:FOLDER and hf:ORG/NAME in the layout of transformers: features are what the model's own classifier reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from topwork import backbones
from topwork.backbones.transformers_folder import FEATURES
from topwork.errors import BadSetting, BadWeights, WeightsNotHere
from topwork.nn.session import session

torch = pytest.importorskip("torch", reason="needs the train extra")
transformers = pytest.importorskip("transformers", reason="needs the transformers extra")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}
CLASSES = {  # model type: class with a classifier, its configuration, the classifier's name
    "vit": ("ViTForImageClassification", SMALL | {"patch_size": 16}, "classifier"),
    "deit": ("DeiTForImageClassification", SMALL | {"patch_size": 16}, "classifier"),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4}, "classifier"),
    "convnextv2": (
        "ConvNextV2ForImageClassification",
        {"hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4},
        "classifier",
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "classifier",
    ),
    "swin": (
        "SwinForImageClassification",
        {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "window_size": 4},
        "classifier",
    ),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.1, "image_size": 32}, "classifier"),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", {"depth_multiplier": 0.1, "image_size": 32}, "classifier"),
    "dinov3_vit": ("DINOv3ViTModel", SMALL | {"patch_size": 16}, ""),
    "dinov2": ("Dinov2Model", SMALL | {"patch_size": 16}, ""),
    "clip_vision_model": ("CLIPVisionModel", SMALL | {"patch_size": 16}, ""),
    "siglip_vision_model": ("SiglipVisionModel", SMALL | {"patch_size": 16}, ""),
}
PROCESSOR = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7],
}  # fmt: skip


def save(folder: Path, kind: str, processor: dict | None = None):
    torch.manual_seed(0)
    name, options, top = CLASSES[kind]
    maker = getattr(transformers, name)
    network = maker(maker.config_class(**options, num_labels=3)).eval()
    for buffer in network.state_dict().values():
        if not buffer.requires_grad and buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 1.5)  # statistics of BatchNorm too, which a file must bring along
    network.save_pretrained(folder, safe_serialization=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor or PROCESSOR))
    return network, top


def edit(path: Path, **changes):
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}))


@pytest.mark.parametrize("kind", CLASSES)
def test_features_are_what_its_own_classifier_reads(tmp_path, kind):
    network, top = save(tmp_path / "m", kind)
    images = torch.randn(2, 3, 32, 32)
    read = []
    if top:
        network.get_submodule(top).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].flatten(1)))
    with torch.no_grad():
        out = network(pixel_values=images)
        features = backbones.find(f"local:{tmp_path}/m").module()(images)
    if kind == "dinov2":  # its classifier reads the class token and the mean of the others
        read.append(out.last_hidden_state[:, 0])
    elif not top:
        read.append(out.pooler_output)
    assert torch.allclose(features, read[-1], atol=1e-5)
    assert kind in FEATURES


def test_finding_needs_no_torch_and_reads_the_processor(tmp_path):
    save(tmp_path / "m", "vit")
    p = backbones.find(f"local:{tmp_path}/m").card.preprocess
    assert (p.resize_px, p.crop_px, p.mean, p.std, p.interpolation, p.fit) == (
        32, 32, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7), "bicubic", "squash",
    )  # fmt: skip
    code = (
        f"import sys; from topwork import backbones; backbones.find('local:{tmp_path}/m'); "
        "assert not {'torch', 'timm', 'onnx', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 32}, (32, 32, "squash")),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, (40, 32, "crop")),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, (40, 32, "crop")),
        ({"size": {"shortest_edge": 28}, "crop_pct": 0.875}, (32, 28, "crop")),
        ({"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextImageProcessor"}, (384, 384, "squash")),
    ],
)
def test_geometry(tmp_path, changes, expected):
    save(tmp_path / "m", "vit", PROCESSOR | changes)
    p = backbones.find(f"local:{tmp_path}/m").card.preprocess
    assert (p.resize_px, p.crop_px, p.fit) == expected


@pytest.mark.parametrize(
    "changes",
    [{}, {"rescale_factor": 1 / 127.5, "rescale_offset": True}, {"do_rescale": False}, {"do_normalize": False}],
)
def test_numbers_that_reach_the_network(tmp_path, changes):
    """(pixel / 255 - mean) / std with the card's numbers, against the processor's own words."""
    said = PROCESSOR | changes
    save(tmp_path / "m", "vit", said)
    p = backbones.find(f"local:{tmp_path}/m").card.preprocess
    pixels = np.array([0.0, 100.0, 255.0])
    value = pixels * (said["rescale_factor"] if said["do_rescale"] else 1) - (1 if "rescale_offset" in said else 0)
    if said["do_normalize"]:
        value = (value - said["image_mean"]) / said["image_std"]
    assert np.allclose((pixels / 255 - p.mean) / p.std, value)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "config.json",
            {"model_type": "whisper"},
            "'whisper' is no image encoder that is known here. Known are: clip, ",
        ),
        ("config.json", {"model_type": None}, "None is no image encoder"),
        ("config.json", {"hidden_size": "x"}, "cannot build"),
        ("config.json", {"num_hidden_layers": 3}, r"16 tensors missing \(.*config.json must"),
        ("config.json", {"num_hidden_layers": 1}, r"tensors unknown to the architecture \(.*layer"),
        ("config.json", {"intermediate_size": 64}, "of another shape"),
        ("preprocessor_config.json", {"do_flip_channel_order": True}, "blue comes first"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 48}}, "Expected a square"),
        ("preprocessor_config.json", {"image_mean": ...}, "image_mean None"),
        ("preprocessor_config.json", {"resample": 1}, "resample 1"),
    ],
)
def test_folders_that_lie(tmp_path, file, changes, message):
    save(tmp_path / "m", "vit")
    edit(tmp_path / "m" / file, **changes)
    with pytest.raises(BadWeights, match=message.replace("known here.", r"known here\.")):
        backbones.find(f"local:{tmp_path}/m").module()


def test_code_that_a_folder_brings_along_is_not_run(tmp_path):
    save(tmp_path / "m", "vit")
    (tmp_path / "m/evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    edit(tmp_path / "m/config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    backbones.find(f"local:{tmp_path}/m").module()
    assert not (tmp_path / "owned").exists()


def test_an_image_size_that_the_network_does_not_take(tmp_path):
    save(tmp_path / "m", "vit", PROCESSOR | {"size": {"height": 48, "width": 48}})
    with pytest.raises(BadWeights, match="does not take images of 48 x 48 px"):
        backbones.find(f"local:{tmp_path}/m").graph()


def test_nothing_is_taken_for_granted(tmp_path):
    save(tmp_path / "m", "vit")
    (tmp_path / "m/preprocessor_config.json").unlink()
    with pytest.raises(WeightsNotHere, match=r"no preprocessor_config\.json, which says how images must look"):
        backbones.find(f"local:{tmp_path}/m")
    (tmp_path / "m/processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    assert backbones.find(f"local:{tmp_path}/m").card.preprocess.crop_px == 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "convnext", "resnet", "dinov2", "swin", "clip_vision_model", "dinov3_vit"])
def test_graphs_give_the_same(tmp_path, kind):
    save(tmp_path / "m", kind)
    backbone = backbones.find(f"local:{tmp_path}/m")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = backbone.module()(images).numpy()
    (features,) = session(backbone.graph(), 1).run(None, {"images": images.numpy()})
    assert np.allclose(features, expected, atol=1e-4)


class TestHub:
    """hf:ORG/NAME from the hub's cache; the network is a closed port."""

    @pytest.fixture
    def hub(self, tmp_path, monkeypatch) -> Path:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        return tmp_path / "hub"

    def put(self, hub: Path, kind: str = "vit") -> Path:
        """A repository in the hub's own layout: blobs, refs/main, snapshots/COMMIT -> blobs."""
        home, commit = hub / "models--org--tiny", "0123456789" * 4
        save(hub / "made", kind)
        (home / "blobs").mkdir(parents=True)
        (home / "snapshots" / commit).mkdir(parents=True)
        (home / "refs").mkdir()
        (home / "refs/main").write_text(commit)
        for i, file in enumerate(sorted((hub / "made").iterdir())):
            shutil.move(file, home / "blobs" / f"{i}")
            (home / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{i}")
        return home / "snapshots" / commit

    def test_from_the_cache(self, hub, monkeypatch):
        from topwork.backbones.sources.hf import Hf

        self.put(hub)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        backbone = backbones.find("hf:org/tiny")
        assert backbone.card.spec == "hf:org/tiny"
        assert backbone.module()(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
        assert Hf().cards() == (backbone.card,)

    def test_a_model_of_sound_is_said_to_be_one_before_its_weights_are_fetched(self, hub):
        home = self.put(hub)
        (home / "model.safetensors").unlink()
        edit(home / "config.json", model_type="whisper")
        with pytest.raises(BadWeights, match="'whisper' is no image encoder"):
            backbones.find("hf:org/tiny")

    @pytest.mark.parametrize("offline", [False, True])
    def test_a_dead_network_costs_five_seconds_at_most(self, hub, monkeypatch, offline):
        if offline:
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        begun = time.monotonic()
        with pytest.raises(WeightsNotHere, match=r"hf:org/none.*org/none/resolve/main/config\.json at "):
            backbones.find("hf:org/none")
        assert time.monotonic() - begun < 5

    @pytest.mark.parametrize("name", ["", "tiny", "a/b/c", "../x", "a/..", "a b/c", "a/b?c"])
    def test_names(self, hub, name):
        with pytest.raises(BadSetting, match="hf:ORG/NAME"):
            backbones.find(f"hf:{name}")
