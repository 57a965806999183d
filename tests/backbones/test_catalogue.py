"""The catalogue is true: against the installed libraries; and the doors to it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from topwork.backbones import catalogue
from topwork.backbones.catalogue import Wanted, entries
from topwork.cli import app
from topwork.errors import BadSetting, UnknownName

RECIPE = Path(__file__).parents[2] / "recipes/catalogue.py"
BY_PLACE = {place: [e for e in entries() if e.spec.startswith(f"{place}:")] for place in ("timm", "torchvision", "hf")}


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recipe():
    for needed in ("timm", "torch", "torchvision", "transformers"):
        pytest.importorskip(needed, reason="needs the train and transformers extras")
    found = importlib.util.spec_from_file_location("recipe_catalogue", RECIPE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def run(*words: str):
    done = CliRunner().invoke(app, list(words))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_every_entry_is_whole():
    assert len(entries()) >= 60
    assert len({entry.spec for entry in entries()}) == len(entries())
    for entry in entries():
        assert entry.parameters > 0
        assert entry.features > 0
        assert entry.multiply_adds > 0
        assert entry.family
        assert entry.trained_on
        assert 2012 <= entry.year <= 2026
        assert not entry.here
        assert (entry.input_px is not None) == (entry.modality == "image") == bool(entry.mean) == bool(entry.std)
        assert entry.top1 is None or 50 < entry.top1 < 92
    assert {entry.modality for entry in entries()} == {"image", "text", "audio"}


@pytest.mark.parametrize("entry", BY_PLACE["timm"], ids=lambda e: e.spec)
def test_timm_says_the_same(entry, recipe):
    config = recipe.resolve_data_config(pretrained_cfg=recipe.timm.get_pretrained_cfg(entry.spec[5:]).to_dict())
    facts = recipe.timm.get_pretrained_cfg(entry.spec[5:])
    assert facts.hf_hub_id == f"timm/{entry.spec[5:]}"
    assert (entry.input_px, entry.mean, entry.std) == (config["input_size"][1], config["mean"], config["std"])
    assert entry.licence == (facts.license or "")


@pytest.mark.parametrize("entry", BY_PLACE["torchvision"], ids=lambda e: e.spec)
def test_torchvision_says_the_same(entry, recipe):
    record = recipe.torchvision.models.get_model_weights(entry.spec[12:]).DEFAULT
    assert entry.parameters == record.meta["num_params"]
    assert entry.top1 == record.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert entry.multiply_adds == pytest.approx(record.meta["_ops"] * 1e9, rel=2e-3, abs=6e5)  # its own count, rounded
    assert (entry.input_px, entry.url) == (record.transforms().crop_size[0], record.url)


QUICK = (
    "timm:mobilenetv3_small_050.lamb_in1k",
    "timm:resnet10t.c3_in1k",
    "torchvision:squeezenet1_1",
    "hf:sentence-transformers/all-MiniLM-L6-v2",
    "hf:openai/whisper-tiny",
    "hf:microsoft/resnet-18",
)


@pytest.mark.parametrize("spec", QUICK)
def test_counted_again(spec, recipe):
    again(spec, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [entry.spec for entry in entries() if entry.spec not in QUICK])
def test_all_counted_again(spec, recipe):
    again(spec, recipe)


def again(spec: str, recipe) -> None:
    place, _, name = spec.partition(":")
    made = {
        "timm": lambda: recipe.of_timm(name, {}),
        "torchvision": lambda: recipe.of_torchvision(name),
        "hf": lambda: recipe.of_transformers(name),
    }[place]()
    entry = catalogue.record(spec)
    for key, value in made.items():
        if key != "top1":
            known = tuple(value) if isinstance(value, list) else value
            assert getattr(entry, key) == known or (known is None and not getattr(entry, key)), key


def test_minilm_is_what_its_real_configuration_says(recipe):
    """The config.json that the genuine weights come with: sizes written here as they stand there."""
    entry = catalogue.record("hf:sentence-transformers/all-MiniLM-L6-v2")
    hidden, layers, inner, vocabulary, positions, types = 384, 6, 1536, 30522, 512, 2
    embeddings = (vocabulary + positions + types) * hidden + 2 * hidden
    layer = 4 * (hidden**2 + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    assert entry.parameters == embeddings + layers * layer + hidden**2 + hidden


def test_filters():
    found = catalogue.listing(Wanted(max_params="3M", licence="Apache-2.0", modality="image", depthwise=True))
    assert {"timm:lcnet_050.ra2_in1k", "timm:mobilenetv3_small_050.lamb_in1k", "bundled"} <= {e.spec for e in found}
    assert all(e.parameters <= 3e6 and e.depthwise and e.modality == "image" for e in found)
    assert all(e.bytes <= 20e6 for e in catalogue.listing(Wanted(max_size="20 MB")))
    assert all(e.here for e in catalogue.listing(Wanted(local=True)))
    for wanted in (Wanted(max_params="ten"), Wanted(max_size="-1MB"), Wanted(max_size="3 lightyears")):
        with pytest.raises(BadSetting, match="expected a number"):
            catalogue.listing(wanted)
    with pytest.raises(UnknownName, match="Did you mean 'image'"):
        catalogue.listing(Wanted(modality="images"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("10M", 1e7), ("20MB", 2e7), ("1.5 GB", 1.5e9), ("500k", 5e5), ("7", 7), ("1,000", 1000), ("2b", 2e9)],
)
def test_amounts(text, value):
    assert catalogue.amount(text, "--x") == value


def test_what_lies_here_is_seen_without_being_opened(tmp_path, monkeypatch):
    def put(path: str, text: str = "x") -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("hub/models--timm--resnet18.a1_in1k/snapshots/ab/model.safetensors", "12345")
    put("hub/models--org--other/snapshots/ab/model.safetensors")
    put("hub/models--org--empty/snapshots/ab/config.json", "{}")
    put("torch/hub/checkpoints/resnet18-f37072fd.pth", "1234567")
    put("torch/hub/checkpoints/resnet18-00000000.pth")
    put("mine/card.json", json.dumps({
        "file": "w.safetensors", "architecture": "timm.create_model('mobilenetv2_100')", "num_parameters": 5,
        "licence": "MIT", "input_size": [3, 96, 96]}))  # fmt: skip
    put("broken/card.json", "{")
    put("weights/text/config.json", json.dumps({"model_type": "bert"}))
    put("weights/text/model.safetensors", "123")
    found = {entry.spec: entry for entry in catalogue.here()}
    assert set(found) >= {"bundled", "timm:resnet18.a1_in1k", "torchvision:resnet18", "hf:org/other", "local:mine"}
    assert not {"hf:org/empty", "local:broken"} & found.keys()
    assert found["timm:resnet18.a1_in1k"].bytes == 5
    assert found["timm:resnet18.a1_in1k"].top1  # the catalogue's facts
    assert found["torchvision:resnet18"].bytes == 7
    mine = found["local:mine"]
    assert (mine.family, mine.depthwise, mine.parameters, mine.input_px) == ("mobilenetv2", True, 5, 96)
    assert found["local:weights/text"].modality == "text"

    shown = json.loads(run("list", "backbones", "--local", "--json"))
    assert {entry["spec"] for entry in shown} == set(found)
    assert all(entry["here"] for entry in shown)
    assert "here local:mine" in run("list", "backbones", "--max-params", "100")
    assert str(tmp_path / "torch") in run("backbones", "show", "torchvision:resnet18")


def test_show():
    text = run("backbones", "show", "timm:mobilenetv3_small_050.lamb_in1k")
    for part in ("not here", "https://", "224 x 224 px", "1,593,224", "depthwise      yes", "apache-2.0", "57.9 %"):
        assert part in text
    facts = json.loads(run("backbones", "show", "bundled", "--json"))
    assert facts["here"] is True
    assert facts["spec"] == "bundled"
    assert "not stated" in run("backbones", "show", "openai/clip-vit-base-patch32")
    with pytest.raises(UnknownName, match=r"Near it: .*timm:resnet50\.a1_in1k"):
        run("backbones", "show", "timm:resnet51.a1_in1k")
    with pytest.raises(UnknownName, match="does not exist"):
        run("backbones", "show", "local:nowhere")


def test_the_list_of_rooms_stays_as_it_is():
    rooms = json.loads(run("list", "--json"))
    assert {"bundled", "hf", "local", "onnx", "timm", "torchvision"} <= rooms["backbones"].keys()
    assert "timm:resnet50.a1_in1k" in run("list", "backbones")
    with pytest.raises(BadSetting, match="narrow a list of backbones"):
        run("list", "probes", "--local")


def test_none_of_it_loads_a_library():
    code = (
        "import sys; from typer.testing import CliRunner; from topwork.cli import app; "
        "assert CliRunner().invoke(app, ['list', 'backbones']).exit_code == 0; "
        "assert CliRunner().invoke(app, ['backbones', 'show', 'bundled']).exit_code == 0; "
        "assert not {'torch', 'timm', 'onnx', 'onnxruntime', 'numpy', 'huggingface_hub'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
