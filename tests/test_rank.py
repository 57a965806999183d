"""Choosing a backbone by measurement, from door to door: `rank`, its page, and `fit --backbone auto`."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import topwork as tw
from topwork import choosing, judging, shortlist, verbs
from topwork.backbones import catalogue, find
from topwork.errors import BadData, BadSetting, UnknownName
from topwork.evaluation.pareto import pareto
from topwork.evaluation.ranking_report import render, terminal
from topwork.features import latency
from topwork.features.latency import Latency
from topwork.store.cache import open_cache

BOTH = "bundled,bundled:pixels"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A machine on which nobody has ever fetched a backbone."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ranked(photos, tmp_path_factory):
    """The small photos, ranked once, and everything that was said on the way."""
    os.environ["TOPWORK_CACHE"] = str(tmp_path_factory.mktemp("ranked") / "cache")
    heard: list[str] = []
    return verbs.rank(photos, backbones=BOTH, watch=verbs.Watch(say=heard.append)), heard


def test_numbers_are_whole_and_plain(ranked):
    numbers, heard = ranked
    assert [one["spec"] for one in numbers["candidates"]] == sorted(
        BOTH.split(","), key=lambda s: -next(c for c in numbers["candidates"] if c["spec"] == s)["expected"]["value"]
    )
    assert sum(one["chance"] for one in numbers["candidates"]) == pytest.approx(1)
    for one in numbers["candidates"]:
        assert one["expected"]["low"] <= one["expected"]["value"] <= one["expected"]["high"]
        assert one["metrics"]["accuracy"]["value"] == pytest.approx(one["scores"]["probe"])
        assert set(one["scores"]) == {"probe", "knn", "logme", "hscore", "transrate"}
        assert set(one["missing"]) == {"leep", "nce"}
        assert one["latency"]["single"] > 0
    assert numbers["pick"] in BOTH.split(",")
    assert numbers["sample"] == {"items": 60, "classes": 3, "smallest_class": 20}
    assert any(line.startswith("bundled: accuracy") for line in heard)
    from topwork.evaluation.report import to_json

    assert json.loads(to_json(numbers))["pick"] == numbers["pick"]


def test_features_of_the_sample_are_not_computed_again(photos):
    first, second = (verbs.rank(photos, backbones="bundled") for _ in range(2))
    assert [one["forward_passes"] for one in (*first["candidates"], *second["candidates"])] == [60, 0]
    assert first["candidates"][0]["latency"] == second["candidates"][0]["latency"]
    model = tw.fit(photos, backbone="bundled", steps="probe", out="model")
    assert model.report["extraction"]["forward_passes"] == 0


def test_limits_leave_out_what_breaks_them_before_it_costs_anything(photos, monkeypatch):
    found = verbs.rank(photos, backbones=BOTH, max_size="1MB")
    assert [one["spec"] for one in found["candidates"]] == ["bundled:pixels"]
    assert "--max-size" in found["left_out"][0]["reason"]
    slow = {"bundled": Latency(0.5, 0.5, 10), "bundled:pixels": Latency(0.001, 0.001, 10)}
    monkeypatch.setattr(choosing, "measure", lambda backbone, _: slow[backbone.card.spec])
    found = verbs.rank(photos, backbones=BOTH, max_latency="20ms")
    assert found["left_out"] == [{"item": "bundled", "reason": "500.0 ms an item, the limit is 20 ms (--max-latency)"}]
    with pytest.raises(BadSetting, match="No backbone is left"):
        verbs.rank(photos, backbones=BOTH, max_latency="0.1ms")


def test_size_by_the_card_is_enough(photos, monkeypatch):
    entry = catalogue.Entry("bundled", parameters=10_000_000)
    monkeypatch.setattr(catalogue, "here", lambda: (entry,))
    monkeypatch.setattr(choosing, "_measure_one", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(BadSetting, match=r"40.0 MB by its card"):
        verbs.rank(photos, backbones="bundled", max_size="20MB")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"max_latency": "fast"}, BadSetting, "20ms or 0.5s"),
        ({"max_latency": "0ms"}, BadSetting, "20ms or 0.5s"),
        ({"max_size": "small"}, BadSetting, "20MB"),
        ({"backbones": "bundle"}, UnknownName, "bundled"),
        ({"backbones": "local:/nowhere"}, (BadData, ValueError), "/nowhere"),
        ({"sample": 3}, BadSetting, "at least 20"),
        ({"tolerance": -1}, BadSetting, "tolerance -1"),
    ],
)
def test_bad_settings_stop_before_the_data_are_read(settings, error, words, tmp_path):
    with pytest.raises(error, match=words):
        tw.rank(tmp_path / "not there", **settings)


def test_data_that_cannot_be_ranked(photos, tmp_path):
    rows = [json.dumps({"image": str(p), "labels": [p.parent.name, "x"]}) for p in sorted(photos.rglob("*.png"))]
    (tmp_path / "photos.jsonl").write_text("\n".join(rows))
    with pytest.raises(BadSetting, match="lists of labels"):
        tw.rank(tmp_path / "photos.jsonl", backbones="bundled:pixels")
    few = tmp_path / "few"
    for path in sorted(photos.rglob("0[0-3].png")):
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        (few / path.parent.name / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadData, match="12 labelled items are too few"):
        tw.rank(few, backbones="bundled:pixels")


def test_sample_keeps_the_shares_of_the_classes_and_depends_on_content_alone(photos):
    found = tw.inspect(photos).dataset
    one = choosing.take_sample(found, 30)
    assert np.bincount(one.targets()).tolist() == [10, 10, 10]
    shuffled = found.take(np.random.default_rng(0).permutation(len(found)))
    two = choosing.take_sample(shuffled, 30)
    assert set(one.table["item"].to_pylist()) == set(two.table["item"].to_pylist())
    assert set(one.table["item"].to_pylist()) != set(choosing.take_sample(found, 30, seed=1).table["item"].to_pylist())


def test_test_items_are_not_looked_at(photos, tmp_path):
    for path in photos.rglob("*.png"):
        target = tmp_path / "split" / ("test" if int(path.stem) < 5 else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert verbs.rank(tmp_path / "split", backbones="bundled:pixels")["sample"]["items"] == 45


def test_front_is_what_no_other_beats():
    points = [(1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (3.0, 0.7), (4.0, 0.9), (4.0, 0.9)]
    plain = {
        i for i, (c, w) in enumerate(points) if not any((d <= c and v > w) or (d < c and v >= w) for d, v in points)
    }
    assert choosing.frontier(points) == plain - {5}  # of two that are equal, one
    assert choosing.frontier([]) == set()


def test_prior_is_a_fact_or_a_guess_from_the_size():
    bundled, pixels = find("bundled"), find("bundled:pixels")
    assert shortlist.prior_of(bundled, catalogue.Entry("x", top1=71.5)) == 71.5
    assert shortlist.prior_of(bundled, None) == pytest.approx(60 + 9 * np.log10(18_824_192 / 20e6))
    assert shortlist.prior_of(pixels, None) is None
    guess = judging.guess_of([70.0, 60.0, None, 50.0], [{"logme": v} for v in (3.0, 2.0, 1.0, 0.0)])
    assert (np.diff(guess) < 0).all()
    assert np.isnan(judging.guess_of([None, None], [{}, {}])).all()


def test_page_and_terminal(ranked):
    from rich.console import Console

    numbers, _ = ranked
    page = render(numbers)
    assert page.count("<section") == 5
    assert "<script>alert" not in render({**numbers, "data": {**numbers["data"], "name": "<script>alert(1)</script>"}})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(numbers, "r.html"))
    text = console.export_text()
    assert f"Take {numbers['pick']}" in text
    assert "r.html" in text
    alone = {**numbers, "candidates": [c for c in numbers["candidates"] if c["pick"]], "runner_up": None}
    assert "nothing to choose from" in render(alone)
    assert pareto(alone["candidates"]) is None


def test_pareto_path_climbs_to_the_right(ranked):
    chart = pareto(ranked[0]["candidates"])
    xs = [chart["x"].at(p["seconds"]) for p in chart["points"]]
    assert all(0 <= x <= 100 for x in xs)
    assert chart["path"].startswith("M")
    assert chart["path"].endswith("H100")


def test_command_line(photos, tmp_path):
    env = os.environ | {"TOPWORK_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "topwork", "rank", photos, "--backbones", BOTH, "--json", "--out", "r.html"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pick"] in BOTH
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_latency_is_measured_once_and_grows_with_work():
    with open_cache() as store:
        one, two = (latency.measure(find(spec), store) for spec in ("bundled", "bundled:pixels"))
        assert one.single > two.single > 0
        assert one.bytes > 1_000_000 > two.bytes
        assert latency.known(find("bundled").card, store) == one
        assert latency.measure(find("bundled"), store) == one
    assert latency.known(find("bundled").card, None) is None


# fit --backbone auto


def test_fit_on_a_fresh_machine_takes_the_bundled_one_and_measures_nothing(photos, monkeypatch, tmp_path):
    assert shortlist.available(pixels=False) == tuple(s for s in shortlist.available(pixels=False) if "bundled" in s)
    monkeypatch.setattr(choosing, "available", lambda pixels, modality="image": ("bundled",))
    monkeypatch.setattr(choosing, "survey", lambda *_, **__: pytest.fail("something was measured"))
    model = tw.fit(photos, out=tmp_path / "model")
    assert model.report["choices"][0]["value"] == "bundled"
    assert "no torch" in model.report["choices"][0]["reason"]


def test_fit_takes_the_winner_of_what_is_here(photos, monkeypatch, tmp_path):
    """A second folder with a backbone: one of them is taken, and the report says why."""
    from topwork.backbones.sources.bundled import FOLDERS

    here = tmp_path / "small"
    here.mkdir()
    for file in (FOLDERS / "image_small").iterdir():
        (here / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(choosing, "available", lambda pixels, modality="image": ("bundled", f"local:{here}"))
    model = tw.fit(photos, out=tmp_path / "model")
    choice = next(c for c in model.report["choices"] if c["name"] == "backbone")
    assert choice["value"] in ("bundled", f"local:{here}")
    assert "2 measured" in choice["reason"]
    assert "points" in choice["reason"]
    again = tw.fit(photos, out=tmp_path / "again")
    assert again.report["extraction"]["forward_passes"] == 0
    assert (again.folder / "model.onnx").read_bytes() == (model.folder / "model.onnx").read_bytes()
    named = tw.fit(photos, backbone="bundled", steps="probe", out=tmp_path / "named")
    assert "local" not in named.report["steps"][-1]["spec"]


def test_fit_leaves_out_what_the_budget_cannot_pay(photos, monkeypatch, tmp_path):
    heavy = tmp_path / "heavy"
    heavy.mkdir()
    monkeypatch.setattr(choosing, "available", lambda pixels, modality="image": ("bundled", "bundled:pixels"))
    real = choosing.measure

    def slow(backbone, store):
        return Latency(9.0, 9.0, 10) if backbone.card.name == "pixels" else real(backbone, store)

    monkeypatch.setattr(choosing, "measure", slow)
    model = tw.fit(photos, budget="60s", out=tmp_path / "model")
    choice = next(c for c in model.report["choices"] if c["name"] == "backbone")
    assert choice["value"] == "bundled"
    assert "left out: its features of the sample would take about 540 s" in choice["reason"]


def test_unusable_neighbours_are_left_out_of_fit(photos, monkeypatch, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "card.json").write_text("{}")
    monkeypatch.setattr(choosing, "available", lambda pixels, modality="image": ("bundled", f"local:{bad}"))
    model = tw.fit(photos, out=tmp_path / "model")
    choice = next(c for c in model.report["choices"] if c["name"] == "backbone")
    assert choice["value"] == "bundled"
    assert "bad" in choice["reason"]


def test_named_ones_that_cannot_be_opened_are_errors(photos, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "card.json").write_text("{}")
    with pytest.raises(ValueError, match=r"card\.json"):
        tw.rank(photos, backbones=f"local:{tmp_path / 'bad'}")


def test_ranking_with_the_bundled_backbone_loads_no_torch(photos, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    code = f"import topwork, sys; topwork.rank({str(photos)!r}, backbones='bundled'); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {})
    assert done.returncode == 0, done.stderr


def test_scale_of_the_evidence():
    evidence = np.array([0.5, 0.7, 0.9])
    assert judging.slope_of(evidence, 0.3 + 0.6 * evidence) == pytest.approx(0.6, abs=0.01)
    assert judging.slope_of(np.array([0.90, 0.901]), np.array([0.92, 0.91])) == pytest.approx(1, abs=0.03)
    assert judging.slope_of(np.array([0.9]), np.array([0.9])) == 1


def test_expectations_lie_near_what_was_measured(ranked):
    for one in ranked[0]["candidates"]:
        assert one["expected"]["value"] == pytest.approx(one["metrics"]["accuracy"]["value"], abs=0.06)


def test_paired_difference_is_of_right_and_wrong():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    folds = [np.arange(300) % 5, (np.arange(300) // 5) % 5]
    good, bad = ([np.eye(3)[np.where(rng.random(300) < p, y, (y + 1) % 3)] for _ in folds] for p in (0.9, 0.7))
    value, low, high = judging.paired(good, bad, y, folds)
    assert value == pytest.approx(judging.accuracy_of(good, y) - judging.accuracy_of(bad, y))
    assert low < value < high
    same, low, high = judging.paired(good, good, y, folds)
    assert same == 0
    assert low < 0 < high
