"""The main job from door to door, on small photos: `fit`, its artefact, and what happens when it is disturbed."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import topwork as tw
from topwork import ladder, verbs
from topwork.errors import BadData, BadSetting, BadWeights, StoreError, UnknownName
from topwork.ground import divide

BITS = ("model.onnx", "model.safetensors", "statistics.safetensors", "snapshot.safetensors", "model.json")


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    """A model of the small photos, and everything it said on the way."""
    base = tmp_path_factory.mktemp("fitted")
    os.environ["TOPWORK_CACHE"] = str(base / "cache")
    heard: list[str] = []
    model = verbs.fit(photos, out=base / "model", watch=tw.verbs.Watch(say=heard.append))
    return model, heard


def command(*words, cache, **more):
    env = os.environ | {"TOPWORK_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-m", "topwork", *map(str, words)], capture_output=True, text=True, env=env, **more
    )


def test_artefact_is_whole(fitted):
    model, _ = fitted
    names = {path.name for path in model.folder.iterdir()}
    written = {"model.json", "model.onnx", "model.safetensors", "statistics.safetensors", "snapshot.safetensors"}
    assert names == written | {"report.html", "report.json", "README.md"}
    report = model.report
    for metric in report["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["n"] == 60
    assert [step["name"] for step in report["steps"]] == ["majority", "pixels", "probe"]
    assert all({"name", "metrics", "seconds"} <= step.keys() for step in report["steps"])
    assert report["proof"]["agreement"] == 1.0
    assert report["proof"]["items"] == 60
    assert report["skipped"] == []
    assert report["evaluated_on"]["kind"] == "cross-validation"


def test_choices_are_said_with_their_reason(fitted):
    _, heard = fitted
    assert any(line.startswith("backbone bundled: ") for line in heard)
    assert any("cross-validation" in line for line in heard)
    assert any(line.startswith("proof: same label for 60 of 60") for line in heard)


def test_predicts_what_it_learnt(fitted, photos):
    model, _ = fitted
    paths = sorted(photos.rglob("*.png"))
    said = model.predict([str(path) for path in paths])
    assert np.mean([one.label == path.parent.name for one, path in zip(said, paths, strict=True)]) > 0.9
    one = tw.predict(model.folder, Image.open(paths[0]))
    assert one.label == said[0].label
    assert one.probability == pytest.approx(said[0].probability, abs=1e-5)


def test_evaluate_a_saved_model(fitted, photos):
    model, _ = fitted
    numbers = tw.evaluate(model, photos)
    assert numbers["metrics"]["accuracy"]["n"] == 60
    assert numbers["metrics"]["accuracy"]["value"] > 0.9
    with pytest.raises(BadData, match="labels that the model does not know"):
        tw.evaluate(model, _folder_of(photos, model.folder.parent / "other", {"granite": 2, "moss": 2}))


def _folder_of(photos, target, counts):
    source = sorted(photos.rglob("*.png"))
    for label, count in counts.items():
        (target / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (target / label / f"{i}.png").write_bytes(source[i * 7].read_bytes())
    return target


def test_second_fit_runs_nothing_again_and_gives_the_same_bits(fitted, photos, tmp_path, monkeypatch):
    model, _ = fitted
    monkeypatch.setenv("TOPWORK_CACHE", str(model.folder.parent / "cache"))
    again = tw.fit(photos, out=tmp_path / "again" / "model")
    assert again.report["extraction"]["forward_passes"] == 0
    assert again.report["proof"]["reused"]
    for name in BITS:
        assert (again.folder / name).read_bytes() == (model.folder / name).read_bytes()


def test_test_data_of_their_own(photos, tmp_path):
    test = _folder_of(photos, tmp_path / "test", {"amber": 1})
    model = tw.fit(photos, test=test, out=tmp_path / "model", steps="probe")
    assert model.report["evaluated_on"]["kind"] == "test"
    assert model.report["metrics"]["accuracy"]["n"] == 1
    leaked = [f for f in model.report["findings"] if f["kind"] == "leakage"]
    assert leaked
    assert model.report["data"]["items"] == 60  # 60 photos, one of them also the test item: left out of training


def test_held_out_items_do_not_choose(photos, tmp_path):
    found = tw.inspect(photos)
    ground = divide(found.dataset, "stratified(test=0.5)", 0)
    assert not set(ground.train) & set(ground.held)
    assert len(ground.train) + len(ground.held) == 60
    model = tw.fit(photos, split="stratified(test=0.5)", steps="logistic(l2=0.1)", out=tmp_path / "model")
    assert model.report["evaluated_on"]["kind"] == "test"
    assert "logistic(l2=0.1)" in model.report["steps"][0]["spec"]


def test_multilabel_table(photos, tmp_path):
    rows = []
    for path in sorted(photos.rglob("*.png")):
        labels = [path.parent.name] + (["bright"] if path.parent.name != "slate" else [])
        rows.append(json.dumps({"image": str(path), "labels": labels}))
    (tmp_path / "photos.jsonl").write_text("\n".join(rows))
    model = tw.fit(tmp_path / "photos.jsonl", out=tmp_path / "model")
    assert model.multilabel
    assert model.labels == ("amber", "bright", "moss", "slate")
    assert model.report["metrics"]["map"]["value"] > 0.9
    answer = model.predict(str(next(photos.glob("amber/*.png"))))
    assert set(answer.labels) == {"amber", "bright"}


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"budget": "soon"}, BadSetting, "90s, 5m, 2h"),
        ({"steps": "prob"}, UnknownName, "Did you mean 'probe'"),
        ({"steps": "logistic(c=1)"}, BadSetting, "has no option c"),
        ({"steps": ""}, BadSetting, "--steps is empty"),
        ({"split": "stratifed(test=0.2)"}, UnknownName, "Did you mean 'stratified'"),
        ({"backbone": "bundle"}, UnknownName, "bundled"),
        ({"backbone": "local:/nowhere"}, (BadData, BadWeights), "/nowhere"),
        ({"task": "image-segmentation"}, UnknownName, "image-classification"),
    ],
)
def test_bad_settings_stop_before_the_data_are_read(settings, error, words, tmp_path):
    with pytest.raises(error, match=".*" + words.replace("(", r"\(")):
        tw.fit(tmp_path / "not there", out=tmp_path / "model", **settings)
    assert not (tmp_path / "model").exists()


def test_foreign_output_is_not_touched(photos, tmp_path):
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear diary")
    with pytest.raises(StoreError, match="not a Topwork folder"):
        tw.fit(photos, out=tmp_path / "diary")
    assert (tmp_path / "diary" / "monday.txt").read_text() == "dear diary"


@pytest.mark.parametrize(
    ("counts", "words"),
    [({}, "empty"), ({"amber": 5}, "one"), ({"amber": 3, "moss": 1}, None)],
)
def test_data_that_cannot_be_learnt(photos, tmp_path, counts, words):
    folder = _folder_of(photos, tmp_path / "few", counts) if counts else tmp_path / "few"
    folder.mkdir(exist_ok=True)
    if words is None:  # a class with one image is a finding, not an error
        model = tw.fit(folder, out=tmp_path / "model")
        assert any("moss" in f["message"] for f in model.report["findings"])
        return
    with pytest.raises(BadData, match=words):
        tw.fit(folder, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_broken_images_are_skipped_and_listed(photos, broken, tmp_path):
    folder = _folder_of(photos, tmp_path / "mixed", {"amber": 4, "moss": 4})
    for path in (broken / "images").iterdir():
        (folder / "moss" / path.name).write_bytes(path.read_bytes())
    model = tw.fit(folder, out=tmp_path / "model", steps="probe")
    skipped = {os.path.basename(one["item"]) for one in model.report["skipped"]}
    assert {"truncated.jpg", "zero_bytes.jpg", "text_named.png", "bomb_20000x20000.png"} <= skipped
    assert not skipped & {"cmyk.jpg", "grey16.png", "animated.gif", "exif_orientation6.jpg", "png_named.jpg"}


def test_budget_leaves_out_what_does_not_fit(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "SLICES", (2, 2, 8))
    monkeypatch.setattr(ladder, "SAMPLED", 12)
    model = tw.fit(photos, budget="0s", out=tmp_path / "model")
    steps = {step["name"]: step for step in model.report["steps"]}
    assert "budget" in steps["probe"]["verdict"]
    assert not steps["probe"]["kept"]
    assert steps["majority"]["kept"]


def test_pace_leaves_out_what_opening_the_backbone_costs_and_counts_the_sample(photos):
    from topwork.types import Features

    def part(computed, seconds):
        return Features(np.zeros((0, 1)), np.zeros(0, int), "", "", seconds, computed, 0)

    sample = [part(32, 60.0), part(32, 2.0), part(160, 2.0 + 1.28)]  # a minute to open, 10 ms an image
    deadline = time.monotonic() + 30
    assert ladder._too_long(sample, 2224, deadline) is None  # 20 s
    assert "about 40 s" in ladder._too_long(sample, 4224, deadline)
    assert ladder._too_long([part(0, 0.1)] * 3, 10**9, deadline) is None  # known already
    whole = ladder._with_sample(dataclasses.replace(part(776, 7.0), cached=224), sample)
    assert (whole.computed, whole.cached) == (1000, 0)


def test_killed_at_random_moments_and_run_again(photos, tmp_path):
    """SIGKILL leaves no artefact or a whole one; the next run gives the bits of an undisturbed one."""
    calm = tw.fit(photos, engine="onnxruntime", out=tmp_path / "calm" / "model")  # torch may be loaded here, not there
    draw = random.Random(3)
    env = os.environ | {"TOPWORK_CACHE": str(tmp_path / "cache of the killed")}
    words = [
        sys.executable,
        "-m",
        "topwork",
        "fit",
        str(photos),
        "--out",
        str(tmp_path / "killed" / "model"),
        "--steps",
        "majority,pixels,probe",
        "-q",
        "--engine",
        "onnxruntime",
    ]
    for _ in range(4):
        process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.3, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "killed" / "model").exists():
            tw.load(tmp_path / "killed" / "model")  # whole: checksums hold
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in BITS:
        assert (tmp_path / "killed" / "model" / name).read_bytes() == (calm.folder / name).read_bytes()
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["model"]  # nothing half-written is left


def test_ctrl_c_stops_within_a_second_and_says_how_to_go_on(photos, tmp_path):
    env = os.environ | {"TOPWORK_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "topwork", "fit", str(photos), "--out", str(tmp_path / "model")]
    words += ["--steps", "majority,pixels,probe"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("majority"):  # it is at work
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 2  # one second of ours, one for a busy machine
    assert "goes on where it was" in said
    assert "Traceback" not in said


def test_command_line(fitted, photos):
    model, _ = fitted
    cache = model.folder.parent / "cache"
    image = str(next(photos.glob("amber/*.png")))
    said = command("predict", model.folder, image, "--json", cache=cache)
    assert said.returncode == 0, said.stderr
    (answer,) = json.loads(said.stdout)
    assert answer.keys() >= {"input", "label", "probability", "top"}
    assert answer["label"] == "amber"
    assert answer["top"][0] == ["amber", answer["probability"]]
    folder = command("predict", model.folder, photos, "--csv", cache=cache)
    assert len(folder.stdout.splitlines()) == 61
    piped = command("predict", model.folder, "-", cache=cache, input=f"{image}\n/nowhere.png\n")
    assert "amber" in piped.stdout
    assert "/nowhere.png" in piped.stderr
    numbers = json.loads(command("evaluate", model.folder, photos, "--json", cache=cache).stdout)
    assert numbers["metrics"]["accuracy"]["value"] > 0.9
    looked = json.loads(command("inspect", photos, "--json", cache=cache).stdout)
    assert looked["skipped"] == []


def test_command_line_errors_are_one_line_with_exit_code_2(fitted, tmp_path):
    model, _ = fitted
    for words in (
        ("fit", tmp_path / "nowhere"),
        ("fit", tmp_path, "--backbone", "timm"),
        ("predict", tmp_path, "a.png"),
        ("predict", model.folder, "nowhere.png"),
        ("evaluate", model.folder, tmp_path / "nowhere"),
        ("inspect", tmp_path / "nowhere"),
        ("list", "rooms"),
    ):
        said = command(*words, cache=tmp_path / "cache", cwd=tmp_path)
        assert said.returncode == 2, (words, said.stderr)
        assert said.stderr.splitlines()[-1].startswith("topwork: "), (words, said.stderr)
        assert "Traceback" not in said.stderr


def test_split_and_extract_write_tables(photos, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    done = command("split", photos, "--out", tmp_path / "split.csv", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    table = pyarrow.csv.read_csv(tmp_path / "split.csv")
    assert table.column_names == ["path", "label", "split"]
    again = tw.read(tmp_path / "split.csv")
    assert len(again) == 60
    assert len(again.rows_of("test")) == 12
    done = command("extract", photos, "--out", tmp_path / "x.parquet", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").num_rows == 60


def test_predict_loads_no_torch_and_no_table_library(fitted, photos):
    model, _ = fitted
    code = f"import topwork, sys; topwork.load({str(model.folder)!r}).predict({str(next(photos.rglob('*.png')))!r})\n"
    code += "assert not {'torch', 'pyarrow', 'sklearn', 'scipy', 'onnx', 'lmdb'} & set(sys.modules), sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
