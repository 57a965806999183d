"""The verb from end to end: a folder of photos becomes a backbone that fit can use."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import topwork as tw
from topwork.errors import BadData, BadSetting, StoreError, UnknownName
from topwork.types import Watch

pytest.importorskip("timm")
TINY = {"arch": "test_resnet", "size": 16, "batch_size": 16}


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("TOPWORK_THREADS", "1")
    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")


def sha256(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_from_photos_to_a_backbone_that_fit_uses(photos, tmp_path):
    said = []
    out = tmp_path / "mine"
    card = tw.pretrain(photos, method="supervised", out=out, steps=8, watch=Watch(say=said.append), **TINY)
    assert not (tmp_path / "mine.run").exists()
    written = json.loads((out / "card.json").read_text())
    assert written["architecture"] == "timm.create_model('test_resnet', num_classes=0)"
    assert written["input_size"] == [3, 16, 16]
    assert written["method"]["spec"] == ["supervised"]
    assert written["method"]["steps"] == 8
    assert written["data"]["items"] == 60
    assert written["data"]["sources"][0]["classes"] == 3
    assert written["losses"].keys() == {"cross_entropy"}
    assert written["scores"]["n"] == 1797
    for side in ("random", "trained"):
        assert 0.5 < written["scores"][side]["low"] < written["scores"][side]["accuracy"] < 1
    assert written["scores"] == card["scores"]
    assert len((out / "log.jsonl").read_text().splitlines()) == 8
    for choice in ("device cpu: ", "input size 16: ", "frames 20: ", "batch size 16: as asked", "learning rate "):
        assert any(line.startswith(choice) for line in said), said
    features = tw.extract(photos, f"local:{out}")
    assert features.x.shape == (60, written["num_features"])
    model = tw.fit(photos, backbone=f"local:{out}", steps=("majority", "probe"), out=tmp_path / "model")
    assert model.report["kept"] if "kept" in model.report else model.folder.exists()


@pytest.fixture(scope="module")
def command(photos, tmp_path_factory):
    """The same training as a command, with a folder to write to."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "TOPWORK_CACHE": str(cache), "TOPWORK_THREADS": "1", "TOPWORK_DEVICE": "cpu"}

    def run(out, *more):
        line = [sys.executable, "-m", "topwork", "pretrain", str(photos), "--method", "supervised", "--out", str(out)]
        line += [
            "--arch",
            "test_resnet",
            "--size",
            "16",
            "--batch-size",
            "16",
            "--steps",
            "150",
            "--save-every",
            "0.3",
            *more,
        ]
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return run


def until_step(run, least, process):
    """Wait for a checkpoint of at least so many steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        found = [int(file.stem.removeprefix("state-")) for file in run.glob("state-*.safetensors")]
        if max(found, default=0) >= least:
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint came")


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bits(command, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _, told = command(whole).communicate(timeout=300)
    assert (whole / "card.json").exists(), told
    for least in (1, 60):
        process = command(cut)
        until_step(tmp_path / "cut.run", least, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not cut.exists()
    _, told = command(cut).communicate(timeout=300)
    assert "going on with the training in" in told
    assert sha256(cut) == sha256(whole)
    whole_losses, cut_losses = (
        [(line["step"], line["cross_entropy"]) for line in map(json.loads, (f / "log.jsonl").read_text().splitlines())]
        for f in (whole, cut)
    )
    assert cut_losses == whole_losses


def test_killed_in_process_and_resumed_gives_the_same_bits(photos, tmp_path):
    """The same without waiting for three interpreters: an error in the middle instead of a signal."""

    class Killed(BaseException):
        pass

    def kill(stage, done, _total):
        if stage == "pretrain" and done == 7:
            raise Killed

    wish = {"method": "supervised", "steps": 12, **TINY}
    tw.pretrain(photos, out=tmp_path / "whole", **wish)
    with pytest.raises(Killed):
        tw.pretrain(photos, out=tmp_path / "cut", save_seconds=0, watch=Watch(progress=kill), **wish)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(BadSetting, match=r"holds a training with other settings \(seed: was 0, is 1\)"):
        tw.pretrain(photos, out=tmp_path / "cut", **{**wish, "seed": 1})
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    shutil.copy(photos / "moss" / "00.png", more / "moss" / "new.png")
    with pytest.raises(BadSetting, match=r"other settings \(data: was"):
        tw.pretrain(more, out=tmp_path / "cut", **wish)
    tw.pretrain(photos, out=tmp_path / "cut", **wish)
    assert sha256(tmp_path / "cut") == sha256(tmp_path / "whole")


def test_a_budget_of_time_becomes_steps_that_a_resume_keeps(photos, tmp_path):
    said, began = [], time.monotonic()
    card = tw.pretrain(photos, method="supervised", out=tmp_path / "a", time=4, watch=Watch(say=said.append), **TINY)
    (line,) = [line for line in said if line.startswith("steps ")]
    assert int(line.split()[1].rstrip(":")) == card["method"]["steps"] > 5
    assert "left of --time" in line
    assert time.monotonic() - began < 60


def test_start_goes_on_from_a_backbone(photos, tmp_path):
    tw.pretrain(photos, method="supervised", out=tmp_path / "one", steps=3, **TINY)
    wish = {**TINY, "arch": None}
    card = tw.pretrain(
        photos, method="supervised", out=tmp_path / "two", steps=1, rate=1e-9, start=f"local:{tmp_path}/one", **wish
    )
    assert card["start"]["spec"] == f"local:{tmp_path}/one"
    assert {"random", "start", "trained"} <= card["scores"].keys()
    one, two = (tw.extract(photos, f"local:{tmp_path}/{name}", engine="torch").x for name in ("one", "two"))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9  # its batch norms have moved a little


def test_the_default_network_is_written_read_and_gone_on_with(photos, tmp_path):
    wish = {**TINY, "arch": None, "method": "supervised", "steps": 2}
    card = tw.pretrain(photos, out=tmp_path / "one", **wish)
    written = json.loads((tmp_path / "one" / "card.json").read_text())
    assert written["architecture"].startswith("timm.create_model('resnet10t', channels=[24, 48, 128, 384]")
    assert "start" not in card["scores"]
    one = tw.extract(photos, f"local:{tmp_path}/one")
    assert one.x.shape == (60, written["num_features"]) == (60, 384)
    more = tw.pretrain(photos, out=tmp_path / "two", start=f"local:{tmp_path}/one", **wish)
    assert json.loads((tmp_path / "two" / "card.json").read_text())["architecture"] == written["architecture"]
    assert {"random", "start", "trained"} <= more["scores"].keys()


@pytest.mark.slow
def test_the_default_network_pays_within_a_minute(tmp_path):
    """Real effect: fractals alone make its frozen features better than random ones on digits."""
    card = tw.pretrain("fractals:", method="simclr", out=tmp_path / "net", steps=60, size=64)
    gain = card["scores"]["gain over random"]
    assert float(gain.partition("[")[2].partition(",")[0]) > 0, gain  # the lower end of its interval


def test_unlabelled_photos_a_teacher_and_a_probe_of_ones_own(photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in photos.rglob("*.png"):
        shutil.copy(file, flat / f"{file.parent.name}{file.name}")
    other = tmp_path / "other"
    for label in ("light", "dark"):
        (other / label).mkdir(parents=True)
        from PIL import Image

        for i in range(8):
            Image.new("RGB", (20, 20), (200 + i,) * 3 if label == "light" else (20 + i,) * 3).save(
                other / label / f"{i}.png"
            )
    card = tw.pretrain(
        flat, method="distillation(teacher='bundled:pixels')", out=tmp_path / "a", steps=2, probe=str(other), **TINY
    )
    assert card["losses"].keys() == {"feature", "distance", "angle"}
    assert card["scores"]["n"] == 16
    with pytest.raises(BadSetting, match="shares 60 images with what is learnt from"):
        tw.pretrain(flat, method="distillation", out=tmp_path / "b", steps=2, probe=str(photos), **TINY)
    with pytest.raises(BadData, match="60 images but no class folders"):
        tw.pretrain(flat, method="supervised", out=tmp_path / "b", steps=2, **TINY)
    assert not (tmp_path / "b.run").exists()


def test_several_labelled_sets_and_composed_methods(photos, tmp_path):
    card = tw.pretrain(
        photos, photos / ".." / "photos", method=["multi_source", "distillation(teacher='bundled:pixels', angle=0)"],
        out=tmp_path / "a", steps=2, **TINY,
    )  # fmt: skip
    assert set(card["losses"]) == {
        "multisource.source0", "multisource.source1", "distillation.feature", "distillation.distance",
    }  # fmt: skip
    assert card["data"]["items"] == 120


def test_what_is_called_test_is_left_alone(photos, tmp_path):
    data = tmp_path / "split"
    for label in ("amber", "moss"):
        for split, some in (("train", range(8)), ("test", range(8, 12))):
            (data / split / label).mkdir(parents=True)
            for i in some:
                shutil.copy(photos / label / f"{i:02}.png", data / split / label)
    for method in ("supervised", "distillation(teacher='bundled:pixels')"):
        card = tw.pretrain(data, method=method, out=tmp_path / method[:4], steps=1, **{**TINY, "batch_size": 8})
        assert card["data"]["items"] == 16


WRONG = {
    "no time": ({"steps": None}, BadSetting, "either --time, such as 60m, or --steps"),
    "both": ({"time": "1m"}, BadSetting, "either --time"),
    "time": ({"steps": None, "time": "soon"}, BadSetting, "--time soon: expected"),
    "endless": ({"steps": None, "time": "none"}, BadSetting, "--time none never ends"),
    "steps": ({"steps": 0, "size": 4}, BadSetting, "--steps 0 is less than 1; --size 4 is less than 16"),
    "rate": ({"rate": float("nan")}, BadSetting, "--rate nan is not a positive number"),
    "method": ({"method": "superwised"}, UnknownName, "Did you mean 'supervised'?"),
    "option": ({"method": "supervised(smooth=1)"}, BadSetting, "Its options: smoothing"),
    "no method": ({"method": ()}, BadSetting, "No --method"),
    "architecture": ({"arch": "resnot18"}, UnknownName, "Did you mean 'resnet18'?"),
    "batch": ({"batch_size": 100}, BadSetting, "--batch-size 100 is more than the 60 images"),
    "size": ({"arch": "test_vit2", "size": 17}, BadSetting, "does not take images of 17 px"),
    "start": ({"start": "local:nowhere"}, Exception, "does not exist"),
    "start of another kind": ({"start": "bundled:pixels"}, BadSetting, "only plain timm networks"),
    "teacher": ({"method": "distillation(teacher='local:nowhere')"}, Exception, "does not exist"),
    "two sets": ({"data": 2}, BadSetting, "multi_source learns from several"),
    "probe": ({"probe": "nowhere"}, BadData, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_stop_before_work_begins(photos, tmp_path, wrong):
    changes, kind, words = WRONG[wrong]
    wish = {"method": "supervised", "out": tmp_path / "out", "steps": 2, **TINY, **changes}
    data = [photos] * wish.pop("data", 1)
    with pytest.raises(kind) as caught:
        tw.pretrain(*data, watch=Watch(progress=lambda *_: pytest.fail("work began")), **wish)
    assert words in str(caught.value)
    assert not (tmp_path / "out.run").exists()
    assert not (tmp_path / "out").exists()


def test_an_out_that_exists_or_data_that_are_too_few_stop_it(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card.json").write_text("{}")
    with pytest.raises(StoreError, match="holds a finished backbone"):
        tw.pretrain(photos, method="supervised", out=tmp_path / "out", steps=2, **TINY)
    few = tmp_path / "few"
    few.mkdir()
    for i in range(5):
        shutil.copy(photos / "moss" / f"{i:02}.png", few)
    with pytest.raises(BadData, match="5 images"):
        tw.pretrain(few, method="distillation", out=tmp_path / "new", steps=2, **TINY)


def test_the_command_line_tells_it(photos, tmp_path):
    from typer.testing import CliRunner

    from topwork.cli import app

    out = tmp_path / "net"
    line = ["pretrain", str(photos), "--method", "supervised", "--out", str(out), "--steps", "2", "--size", "16"]
    done = CliRunner().invoke(app, [*line, "--arch", "test_resnet", "--batch-size", "16", "-q"])
    assert done.exit_code == 0, done.output
    assert f"topwork fit DATA --backbone local:{out}" in done.output
    assert "over random" in done.output
