"""A model of numbers: ranges that hold the truth, paired comparisons, the label curve, the page and the lines."""

import itertools
import json
import re

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from topwork.evaluation import checks, wording
from topwork.evaluation.advice import advice
from topwork.evaluation.calibrate import BAND, activate, band, calibration_of, cross_fitted
from topwork.evaluation.checks import Context
from topwork.evaluation.intervals import overlap
from topwork.evaluation.paired import compare, compare_metric
from topwork.evaluation.quick_ridge import ridges
from topwork.evaluation.report import render, to_json
from topwork.evaluation.score import per_class, score, score_repeats, widening
from topwork.tasks.regression import statistics
from topwork.types import Head, Metric, Predictions

from .test_report import lines_of


def seen(N=200, noise=2.0, seed=0, unit=1.0, items=True):
    rng = np.random.default_rng(seed)
    y = unit * (50 + 10 * rng.normal(size=N))
    z = y + unit * noise * rng.normal(size=N)
    return Predictions(z[:, None], y, ("weight",), [f"{i}.jpg" for i in range(N)] if items else ())


def context(N=200, unit=1.0, D=10, **more):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, D)).astype(np.float32)
    y = unit * (50 + x @ rng.normal(size=D) + 0.5 * rng.normal(size=N))
    z = y + unit * 0.6 * rng.normal(size=N)
    folds = np.arange(N) % 5
    full = {"logits": z[:, None], "folds": folds, "train_x": x, "train_targets": y, "train_folds": folds}
    return Context(Predictions(z[:, None], y, ("weight",), [f"{i}.jpg" for i in range(N)]), **{**full, **more})


# ranges


def test_nine_of_ten_fresh_truths_lie_in_the_band():
    """Skewed errors, few items: on average 90 %, never a side that holds all the misses."""
    rng, held = np.random.default_rng(0), []
    for n in (30, 60, 200):
        for _ in range(300):
            z = rng.normal(size=(n, 1))
            about = band(z, z[:, 0] + rng.exponential(size=n))
            away = rng.exponential(size=200)
            assert about["low"] <= about["high"]
            held.append((n, (away < about["low"]).mean(), (away > about["high"]).mean()))
    held = np.array(held)
    for n in (30, 60, 200):
        below, above = held[held[:, 0] == n, 1:].mean(0)
        assert 0.86 <= 1 - below - above <= 0.96
        assert 0.01 < below < 0.08
        assert 0.01 < above < 0.08


def test_the_band_is_conformal():
    z, y = np.zeros((19, 1)), np.arange(19.0)
    assert band(z, y) == {"low": 0.0, "high": 18.0}  # 1 of 20 below, 1 of 20 above
    z, y = np.zeros((99, 1)), np.arange(99.0)
    assert band(z, y) == {"low": 4.0, "high": 94.0}
    assert band(z[:1], y[:1]) == {"low": 0.0, "high": 0.0}
    assert band(np.zeros((5, 2)), np.arange(5) % 2) == {}


def test_numbers_are_no_probabilities():
    z = np.array([[3.0], [-700.0]])
    np.testing.assert_array_equal(activate(z, "identity"), z)
    np.testing.assert_array_equal(cross_fitted(z, z[:, 0], np.array([0, 1]), "identity"), z)
    head = Head("linear", {}, "identity", settings={"low": -1.0, "high": 2.0})
    assert calibration_of(head) == {
        "band": BAND, "low": -1.0, "high": 2.0, "fitted_on": "out-of-fold training items",
    }  # fmt: skip


# comparisons


def test_the_paired_test_finds_what_is_better_and_nothing_else():
    first, worse = seen(noise=2), seen(noise=4)
    better = compare(worse, first)
    assert better.measure == "r2"
    assert better.difference == pytest.approx(
        statistics(first.probabilities, first.targets)["r2"].value
        - statistics(worse.probabilities, worse.targets)["r2"].value
    )
    assert 0 < better.low < better.difference < better.high
    assert better.p_value < 0.001
    assert better.over("pixels").startswith(f"+{100 * better.difference:.1f} points of R² [")
    assert compare(first, first).p_value == 1
    alarms = [compare(seen(60, seed=0 + k), _other(seen(60, seed=0 + k), k)).p_value < 0.05 for k in range(300)]
    assert 0 <= np.mean(alarms) < 0.09


def _other(predictions, seed):
    """Another model, as good."""
    rng = np.random.default_rng(1000 + seed)
    z = predictions.targets + 2 * rng.normal(size=len(predictions.targets))
    return Predictions(z[:, None], predictions.targets, predictions.labels)


def test_errors_compare_the_other_way_round():
    worse, better = seen(noise=4), seen(noise=2)
    for name, said in (("mae", "absolute error"), ("rmse", "RMSE"), ("spearman", "rank correlation")):
        found = compare_metric(worse, better, name)
        assert found.difference > 0
        assert said in found.over()
    assert compare_metric(worse, better, "mae").over().startswith("-")  # less error


def test_repeats_are_averaged_and_overlap_widens():
    folds = np.arange(200) % 5
    repeats = [seen(seed=0), _other(seen(seed=0), 1)]
    metrics = score_repeats(repeats, [folds, np.roll(folds, 1)])
    assert set(metrics) == {"r2", "mae", "rmse", "spearman"}
    alone = score(repeats[0])
    assert metrics["r2"].high - metrics["r2"].low > 0.9 * (alone["r2"].high - alone["r2"].low)
    each = [statistics(one.probabilities, one.targets)["r2"] for one in repeats]
    assert widening(repeats, [folds, np.roll(folds, 1)]) == overlap(each, [folds, np.roll(folds, 1)]) > 1.2
    assert per_class(repeats[0]) == []


# checks


def test_checks_of_numbers_are_plain_json():
    situations = {
        "all": context(),
        "predictions only": Context(seen()),
        "held out": Context(seen(), band={"low": -3.0, "high": 3.0}),
        "one item": Context(Predictions(np.array([[1.0]]), np.array([2.0]), ("weight",))),
        "all the same": Context(Predictions(np.ones((9, 1)), np.full(9, 5.0), ("weight",))),
        "huge": context(unit=1e30),
        "tiny": context(unit=1e-30),
    }
    for name, given in situations.items():
        found = checks.run(given)
        assert json.loads(json.dumps(found, allow_nan=False)) == found, name
        assert {"numbers", "gallery"} <= set(found), name
        assert not {"confusion", "calibration"} & set(found), name


def test_coverage_is_measured_on_other_items():
    given = context()
    told = checks.run(given)["numbers"]
    assert told["name"] == "weight"
    assert told["band"]["stated"] == BAND
    assert told["band"]["low"] < 0.9 < told["band"]["high"]
    y, z = given.predictions.targets, given.predictions.probabilities[:, 0]
    held = []
    for fold in range(5):
        own = np.arange(200) % 5 == fold
        about = band(z[~own, None], y[~own])
        held += [((y - z)[own] >= about["low"]) & ((y - z)[own] <= about["high"])]
    assert told["band"]["value"] == pytest.approx(np.concatenate(held).mean())
    narrow = checks.run(Context(seen(), band={"low": -0.1, "high": 0.1}))["numbers"]["band"]
    assert narrow["value"] < 0.1
    assert "band" not in checks.run(Context(seen()))["numbers"]


def test_ranges_say_where_it_is_wrong():
    y = np.arange(100.0)
    said = np.where(y >= 80, y - 10, y)
    ranges = checks.run(Context(Predictions(said[:, None], y, ("x",))))["numbers"]["ranges"]
    assert [one["items"] for one in ranges] == [20] * 5
    assert [one["mae"] for one in ranges] == [0, 0, 0, 0, 10]
    assert ranges[-1] == {"from": 80.0, "to": 99.0, "items": 20, "mae": 10.0, "bias": -10.0}


def test_the_gallery_has_the_largest_errors_first():
    y = np.array([10.0, 20.0, 30.5, 40.0])
    z = np.array([[10.123456], [25.0], [30.0], [33.0]])
    gallery = checks.run(Context(Predictions(z, y, ("x",), list("abcd")), rows=np.arange(4) + 7), ["gallery(size=3)"])
    worst = gallery["gallery"]["most_wrong"]
    assert [entry["item"] for entry in worst] == ["d", "b", "c"]
    assert worst[0] == {"item": "d", "row": 10, "label": "40", "predicted": "33.00", "error": -7.0}
    assert worst[2]["label"] == "30.5"
    assert gallery["gallery"]["least_sure"] == []


# the label curve


def test_quick_ridge_is_scikit_learns_at_the_strength_it_takes():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 20)).astype(np.float32)
    y = 1e6 + 10 * (z @ rng.normal(size=20)) + rng.normal(size=300)
    said = list(ridges(z, y, np.arange(200), np.array([60, 200]), z[200:]))
    for n, answers in zip((60, 200), said, strict=True):
        errors = []
        for alpha in np.logspace(-5, 5, 41):
            own = Ridge(alpha).fit(z[:n].astype(float), y[:n]).predict(z[200:])
            errors.append(np.mean((own - y[200:]) ** 2))
        assert np.mean((answers - y[200:]) ** 2) < 1.15 * min(errors)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_the_curve_of_numbers_rises_to_what_is_true(unit):
    told = checks.run(context(400, unit=unit, D=60), ["label_curve"])["label_curve"]
    points = [one["accuracy"] for one in told["points"]]
    assert len(points) >= 5
    assert points[-1] > 0.9
    assert all(b > a - 0.05 for a, b in itertools.pairwise(points))  # no dip where items are as many as axes
    assert all(one["low"] <= one["accuracy"] <= one["high"] <= 1 for one in told["points"])
    assert "of R²" in told["text"] or "flat" in told["text"]
    assert told["twice"]["labels"] == 800


def test_a_curve_of_what_cannot_be_learnt_promises_nothing():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=200)
    told = checks.run(context(200, train_targets=noise), ["label_curve"])["label_curve"]
    assert told["points"][-1]["accuracy"] < 0.1
    assert told["gain"]["low"] <= 0.05
    few = checks.run(context(12), ["label_curve"])["label_curve"]
    assert "too few" in few["text"]


# the page and the lines


def numbers(unit=1.0, noise=2.0, steps=True, **changes):
    """What a fit tells, made of a real scoring."""
    predictions, mean = seen(noise=noise, unit=unit), seen(unit=unit)
    always = Predictions(np.full((200, 1), mean.targets.mean()), mean.targets, mean.labels)
    told = {
        "topwork": "0.1.0", "task": "image-regression", "modality": "image", "numeric": True, "multilabel": False,
        "data": {"name": "scales", "items": 200, "labels": ["weight"], "classes": 1},
        "metrics": score(predictions),
        "evaluated_on": {"kind": "test", "n": 200, "text": ""},
        **checks.run(Context(predictions, band={"low": -3.3 * unit, "high": 3.3 * unit})),
        "label_curve": checks.run(context(400, unit=unit), ["label_curve"])["label_curve"],
        "proof": {"agreement": 1.0, "items": 200, "max_difference": 1e-6, "numeric": True},
    }  # fmt: skip
    if steps:
        gain = {"over": "mean", "difference": 0.95, "low": 0.9, "high": 0.97, "p_value": 1e-9, "surer": False}
        told["steps"] = [
            {"name": "mean", "spec": "bundled:pixels + mean", "metrics": score(always), "seconds": 1.0, "kept": True,
             "verdict": "the start"},
            {"name": "probe", "spec": "bundled + ridge", "metrics": score(predictions), "seconds": 2.0, "kept": True,
             "verdict": "+95.0 points of R²", "gain": {**gain, "metric": "r2"}},
        ]  # fmt: skip
    told = {**told, **changes}
    return json.loads(to_json({**told, "advice": advice(json.loads(to_json(told)))}))


BAD_WORDS = ("nan", "commonest class", "commonest answer", "accuracy", "probabilit", "right class", "None", "e+0")


@pytest.mark.parametrize("unit", [1.0, 1e-4, 2e4])
def test_the_page_speaks_of_numbers(unit):
    told = numbers(unit)
    page = render(told)
    for heading in ("of the variance explained on unseen images", "What is said, and what is true", "true weight",
                    "R²", "Mean absolute error", "Rank correlation", "Same numbers", "hold the truth",
                    "The largest errors."):  # fmt: skip
        assert heading in page
    text = " ".join(part.partition(">")[2] for part in page.partition("<body")[2].partition("<script")[0].split("<"))
    for word in BAD_WORDS:
        assert not re.search(rf"(?<![A-Za-z]){re.escape(word)}", text), word
    assert page.count('class="point"') == 200
    assert "It is off by" in page
    assert "always giving the mean would be off by" in page
    if unit == 1e-4:
        assert "0.000<" not in page  # small errors keep their figures


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_lines_speak_of_numbers(width):
    from topwork.evaluation.terminal import terminal

    lines = lines_of(terminal(numbers(), "models/x/report.html"), width)
    text = " ".join(" ".join(lines).split())
    assert "R²" in text
    assert "r²" not in text
    assert "The model explains" in text
    assert "gained 95.0 points" in text
    assert "mean absolute error: " in text
    for word in BAD_WORDS:
        assert word not in text, word
    assert max(map(len, lines)) <= width


def test_a_hopeless_case_says_so():
    told = numbers(noise=20.0)
    assert told["metrics"]["r2"]["value"] < 0
    said = " ".join(wording.verdict(told))
    assert "knows no more of weight than the mean" in said
    assert "explains" not in said
    assert any("reaches down to what always giving the mean" in line for line in wording.doubts(told))
    render(told)


def test_next_steps_name_what_can_be_done():
    flat = {"gain": {"value": 0.0, "low": -0.01, "high": 0.001}}
    told = advice(numbers(label_curve=flat))["next"]
    assert "a better backbone may (topwork rank)" in told
    done = numbers(metrics={"r2": Metric(0.999, 0.998, 0.9995, 200)})
    assert "use it" in done["advice"]["next"]
    step = {"name": "probe", "metrics": {"r2": {"value": 0.5}}, "kept": True, "seconds": 2.0}
    gain = {"over": "mean", "difference": 450.0, "low": 300.0, "high": 600.0, "p_value": 0.001, "metric": "mae"}
    first = {"name": "mean", "metrics": {"r2": {"value": 0.0}}, "kept": True, "seconds": 1.0}
    said = advice({"numeric": True, "steps": [first, {**step, "gain": gain}]})["steps"][1]
    assert said == (
        "probe improved mean absolute error by 450 [300, 600] over mean for 2.0\u202fs (p = 0.001): worth it."
    )


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("r2", 0.4567, "45.7\u202f%"), ("r2", -0.0004, "0.0\u202f%"), ("r2", -1.5, "-150.0\u202f%"),
        ("mae", 0.911, "0.911"), ("mae", 0.00042, "0.000420"), ("mae", 3e-12, "3e-12"),
        ("rmse", 20451.7, "20,452"), ("rmse", 0.0, "0.000"),
        ("spearman", -0.25, "-0.250"), ("log_loss", 0.0123, "0.012"),
    ],
)  # fmt: skip
def test_values_keep_figures_that_matter(key, value, text):
    assert wording.number(key, value) == text
