"""Numbers from door to door on the base path: ladder, report, artefact, prediction with its range, refusals."""

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import topwork as tw
from topwork.cli import app
from topwork.errors import BadData, BadSetting, TopworkError, UnknownName
from topwork.types import Skipped

WORDS = {"red": 30.0, "green": -20.0, "big": 50.0, "sad": -40.0}
FILLERS = ["the", "a", "one", "over", "under", "near", "old", "new", "small", "with"]


def write_texts(path, count=240, seed=0, noise=5.0):
    draw = np.random.default_rng(seed)
    lines = ["text,price"]
    for _ in range(count):
        words = [*draw.choice(FILLERS, 6), *draw.choice(list(WORDS), 2)]
        price = 1000 + sum(WORDS.get(word, 0) for word in words) + noise * draw.normal()
        lines.append(f"{' '.join(draw.permutation(words))},{price:.3f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Grey pictures under noise; how bright they are is the number, in a unit of its own."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pics").mkdir()
    draw, lines = np.random.default_rng(0), ["path,glow"]
    for i in range(90):
        level = draw.uniform(40, 200)
        picture = draw.normal(level, 30, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "pics" / f"{i:02}.png")
        lines.append(f"pics/{i:02}.png,{5000 + 20 * level + 50 * draw.normal():.2f}")
    (folder / "glow.csv").write_text("\n".join(lines) + "\n")
    return folder / "glow.csv"


@pytest.fixture(scope="module")
def fitted(images, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = tw.fit(images, steps="mean,pixels,probe", out=tmp_path_factory.mktemp("models") / "glow")
    return model


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    data = write_texts(folder / "houses.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(folder / "cache"))
        return data, tw.fit(data, steps="mean,ngrams,probe", out=folder / "houses")


def test_images_climb_from_the_mean(fitted):
    report = fitted.report
    assert (report["task"], report["numeric"], report["multilabel"]) == ("image-regression", True, False)
    assert report["data"]["labels"] == ["glow"]
    names = [step["name"] for step in report["steps"]]
    assert names == ["mean", "pixels", "probe"]
    r2 = [step["metrics"]["r2"]["value"] for step in report["steps"]]
    assert abs(r2[0]) < 0.1
    assert r2[1] > 0.9
    assert report["steps"][1]["gain"]["metric"] == "r2"
    assert "points of R²" in report["steps"][1]["verdict"]
    assert set(report["metrics"]) == {"r2", "mae", "rmse", "spearman"}
    for metric in report["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert report["metrics"]["mae"]["value"] < 200
    assert 0.75 < report["numbers"]["band"]["value"] <= 1
    assert len(report["gallery"]["most_wrong"]) == 24
    assert "calibration" not in report
    assert "confusion" not in report
    assert "same number for 90 of 90 images" in report["proof"]["text"]


def test_prediction_has_a_range(fitted, images):
    manifest = fitted.manifest
    assert manifest["task"] == "image-regression"
    about = manifest["calibration"]
    assert about["band"] == 0.9
    assert about["low"] < 0 < about["high"]
    answers = fitted.predict([images.parent / "pics" / f"{i:02}.png" for i in range(90)])
    truth = tw.read(images).targets()
    held = 0
    for answer, y in zip(answers, truth, strict=True):
        assert answer.label == "glow"
        assert answer.low == pytest.approx(answer.value + about["low"])
        assert answer.high == pytest.approx(answer.value + about["high"])
        assert answer.to_json().keys() == {"input", "label", "value", "low", "high"}
        held += answer.low <= y <= answer.high
    assert held >= 76
    assert np.corrcoef([answer.value for answer in answers], truth)[0, 1] > 0.95
    assert not isinstance(fitted.predict(images.parent / "pics/00.png"), Skipped)


def test_the_graph_alone_gives_the_number(fitted, images):
    graph = onnxruntime.InferenceSession(fitted.folder / "model.onnx")
    assert [out.name for out in graph.get_outputs()] == ["values", "logits", "features"]
    picture = images.parent / "pics/05.png"
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB"))[None]
    values, logits = graph.run(["values", "logits"], {graph.get_inputs()[0].name: pixels})
    assert values.shape == (1, 1)
    np.testing.assert_array_equal(values, logits)
    assert values[0, 0] == pytest.approx(fitted.predict(picture).value, rel=1e-4)


def test_texts_climb_and_words_are_told(of_texts):
    data, model = of_texts
    report = model.report
    assert report["task"] == "text-regression"
    assert report["metrics"]["r2"]["value"] > 0.8
    assert report["metrics"]["mae"]["value"] < 15
    page = (model.folder / "report.html").read_text()
    assert "makes the number higher" in page
    assert "makes it lower" in page
    assert "commonest" not in page
    higher, lower = (model.predict(f"the old {word} one over a").value for word in ("big", "sad"))
    assert higher > lower + 40
    told = tw.evaluate(model, data)
    assert told["numeric"]
    assert told["metrics"]["r2"]["value"] > 0.8
    assert told["numbers"]["band"]["n"] == 240
    values = [answer.value for answer in model.predict(tw.read(data).inputs())]
    assert np.abs(np.array(values) - tw.read(data).targets()).mean() == pytest.approx(told["metrics"]["mae"]["value"])


def test_the_same_fit_gives_the_same_bits(of_texts, tmp_path):
    data, model = of_texts
    again = tw.fit(data, steps="mean,ngrams,probe", out=tmp_path / "again")
    for name in ("model.onnx", "model.safetensors"):
        assert (again.folder / name).read_bytes() == (model.folder / name).read_bytes()
    assert again.report["metrics"] == model.report["metrics"]


def test_held_out_numbers_do_not_choose(tmp_path):
    """Other numbers in the test split change no bit of the model."""
    lines = write_texts(tmp_path / "a.csv").read_text().splitlines()
    weights = []
    for name, factor in (("one", 1.0), ("two", 100.0)):
        rows = ["text,price,split"]
        for i, line in enumerate(lines[1:]):
            text, price = line.split(",")
            rows.append(f"{text},{float(price) * (factor if i >= 200 else 1):.3f},{'test' if i >= 200 else 'train'}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        model = tw.fit(tmp_path / f"{name}.csv", steps="mean,ngrams", out=tmp_path / name)
        weights.append((model.folder / "model.safetensors").read_bytes())
        assert model.report["evaluated_on"]["kind"] == "test"
    assert weights[0] == weights[1]


def test_a_tampered_head_is_refused(of_texts, tmp_path):
    import shutil

    from topwork.artefact.proof import prove

    data, model = of_texts
    folder = tmp_path / "copy"
    shutil.copytree(model.folder, folder)
    texts = tw.read(data).inputs()[:30]
    expected = np.array([[answer.value] for answer in model.predict(texts)], np.float32)
    assert prove(folder, texts, expected).agreement == 1
    expected[3] += 0.1 * (expected.max() - expected.min())
    with pytest.raises(TopworkError, match=r"1 of 30 numbers differ by more than 0\.0.*: saved price \d{3,4}\."):
        prove(folder, texts, expected)
    near = np.abs(expected).max() * 1e-6  # what float32 rounds is no other model
    assert prove(folder, texts[4:], expected[4:] + np.float32(near)).agreement == 1


def test_the_card_and_manifest_speak_of_a_number(fitted, of_texts):
    for model, what in ((fitted, "glow"), (of_texts[1], "price")):
        card = (model.folder / "README.md").read_text()
        assert f"gets a number, its {what}" in card
        assert "Nine of ten truths are expected between -" in card
        assert "print(answer.value, answer.low, answer.high)" in card
        assert "R²" in card or "r2" in card
        for word in ("probabilit", "labels[", "one of 1 labels", "Names one"):
            assert word not in card


def test_the_command_line(fitted, of_texts, images, tmp_path):
    run = CliRunner()
    pictures = [str(images.parent / "pics" / f"{i:02}.png") for i in range(3)]
    table = run.invoke(app, ["predict", str(fitted.folder), *pictures])
    assert table.exit_code == 0, table.output
    assert len(table.stdout.splitlines()) == 3
    assert "\tglow " in table.stdout
    assert "90% between" in table.stdout
    assert "e+0" not in table.stdout
    told = json.loads(run.invoke(app, ["predict", str(fitted.folder), *pictures, "--json"]).stdout)
    assert [one["label"] for one in told] == ["glow"] * 3
    assert all(one["low"] < one["value"] < one["high"] for one in told)
    rows = list(csv.reader(io.StringIO(run.invoke(app, ["predict", str(fitted.folder), *pictures, "--csv"]).stdout)))
    assert rows[0] == ["input", "value", "low", "high"]
    np.testing.assert_allclose(
        np.array([row[1:] for row in rows[1:]], float), [[o["value"], o["low"], o["high"]] for o in told], rtol=1e-4
    )
    seen = run.invoke(app, ["evaluate", str(of_texts[1].folder), str(of_texts[0])])
    assert seen.exit_code == 0, seen.output
    assert "explains" in seen.stdout
    few = tmp_path / "few.csv"  # so few numbers would be classes if nobody asked the model
    few.write_text("\n".join(of_texts[0].read_text().splitlines()[:8]))
    assert run.invoke(app, ["evaluate", str(of_texts[1].folder), str(few), "--json"]).exit_code == 0


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"steps": "logistic"}, BadSetting, "The targets are numbers, and this probe is for classes"),
        ({"steps": "majority"}, BadSetting, "The targets are numbers"),
        ({"metric": "accuracy"}, UnknownName, "mae, r2, rmse, spearman"),
        ({"task": "image-regression"}, BadData, "texts"),
        ({"task": "text-classification"}, BadData, "holds numbers, not classes: .* Take --task text-regression"),
    ],
)
def test_what_is_for_classes_is_refused_in_one_line(settings, error, words, of_texts, tmp_path):
    with pytest.raises(error, match=words) as caught:
        tw.fit(of_texts[0], **{"steps": "mean", **settings}, out=tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_classes_cannot_be_added_to_a_number(of_texts, tmp_path):
    with pytest.raises(BadSetting, match="gives a number, so there are no classes to add to"):
        tw.extend(of_texts[1], of_texts[0], out=tmp_path / "m")


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (["5.5"] * 60, "'price' is 5.5 for all 60 training texts"),
        (["1", "2", "3"] * 3, "9 training texts .* at least 10"),
        (["7"], "1 training text.* at least 10"),
    ],
)
def test_too_little_is_said_in_one_line_with_exit_code_2(prices, words, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,price\n" + "".join(f"some words number {i} here,{p}\n" for i, p in enumerate(prices)))
    asked = ["fit", str(path), "--task", "text-regression", "--out", str(tmp_path / "m"), "--quiet"]
    run = subprocess.run([sys.executable, "-m", "topwork", *asked], capture_output=True, text=True)
    assert run.returncode == 2
    assert re.fullmatch(f"topwork: .*{words}.*\n", run.stderr)
    assert not (tmp_path / "m").exists()


def test_small_differences_of_large_numbers(tmp_path):
    """A weak model of numbers far from zero: its answers lie closer than a thousandth of what float32 can tell."""
    draw = np.random.default_rng(0)
    rows = [f"{' '.join(draw.choice(FILLERS, 8))},{4e6 + draw.normal():.3f}" for _ in range(80)]
    (tmp_path / "t.csv").write_text("text,population\n" + "\n".join(rows))
    model = tw.fit(tmp_path / "t.csv", steps="ngrams", out=tmp_path / "m")
    assert "same number for 80 of 80" in model.report["proof"]["text"]
    assert model.report["metrics"]["rmse"]["value"] < 2


def test_stars_can_be_numbers_and_mae_can_decide(tmp_path):
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(150):
        stars = draw.integers(1, 6)
        words = [*draw.choice(FILLERS, 6), *(["good"] * stars)]
        rows.append(f"{' '.join(words)},{stars}")
    (tmp_path / "stars.csv").write_text("text,stars\n" + "\n".join(rows))
    model = tw.fit(
        tmp_path / "stars.csv", task="text-regression", metric="mae", steps="mean,ngrams", out=tmp_path / "m"
    )
    report = model.report
    assert report["numeric"]
    assert report["metrics"]["mae"]["value"] < 1
    assert report["steps"][1]["kept"]
    assert "absolute error" in report["steps"][1]["verdict"]
    assert "improved mean absolute error by" in report["advice"]["steps"][1]
