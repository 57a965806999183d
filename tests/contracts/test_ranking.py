"""Every file in ranking: one contract, whatever the score."""

import dataclasses

import numpy as np
import pytest

from topwork import plugins
from topwork.errors import BadData
from topwork.ranking import ROOM, Given, compute

NAMES = plugins.names(ROOM)


def problem(N=60, D=10, C=3, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    x = (rng.normal(size=(N, D)) + signal * rng.normal(size=(C, D))[y] + 3).astype(np.float32)
    source = np.exp(2 * x[:, :6] * np.sign(signal))
    return x, y, Given(source / source.sum(1, keepdims=True), rng.permutation(N) % 5, np.arange(N))


@pytest.fixture(params=NAMES)
def score(request):
    return plugins.find(ROOM, request.param)()


def test_room_is_listed_and_frozen():
    assert set(NAMES) == {"hscore", "knn", "leep", "logme", "nce", "probe", "transrate"}
    for name in NAMES:
        kind = plugins.find(ROOM, name)
        assert dataclasses.is_dataclass(kind)
        assert isinstance(kind.needs_source, bool)
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().anything = 1


def test_docstrings_name_formula_paper_and_cost():
    import importlib

    for name in NAMES:
        text = importlib.import_module(f"topwork.{ROOM}.{name}").__doc__
        assert "=" in text
        assert "Cost:" in text
        assert any(f"{year}" in text for year in range(1960, 2027))


def test_a_number_the_same_every_time_and_input_left_alone(score):
    x, y, given = problem()
    for array in (x, y, given.source, given.folds, given.together):
        array.flags.writeable = False
    one, two = score.score(x, y, given), score.score(x, y, given)
    assert isinstance(one, float)
    assert np.isfinite(one)
    assert one == two


def test_signal_beats_noise(score):
    x, y, given = problem(signal=2.0)
    empty, _, silent = problem(signal=0.0)
    assert score.score(x, y, given) > score.score(empty, y, silent)


def test_names_and_order_of_labels_do_not_matter(score):
    x, y, given = problem()
    renamed = np.array([7, 2, 5])[y]
    assert score.score(x, renamed, given) == pytest.approx(score.score(x, y, given), abs=1e-3)
    order = np.random.default_rng(1).permutation(len(y))
    moved = Given(given.source[order], given.folds[order], given.together[order])
    assert score.score(x[order], y[order], moved) == pytest.approx(score.score(x, y, given), abs=1e-3)


def test_hard_cases_do_not_crash(score):
    x, y, given = problem()
    flat = x.copy()
    flat[:, 4] = 7
    wide = np.repeat(x, 20, axis=1)
    cases = {
        "constant feature": (flat, y, given),
        "more features than items, copies": (wide, y, given),
        "all features constant": (np.ones_like(x), y, given),
        "far from zero": (x + 1e4, y, given),
        "float64, not contiguous": (np.asfortranarray(x.astype(float)), y.astype(np.int8), given),
        "a class of one item": (x, np.where(np.arange(60) == 0, 2, y % 2), given),
        "four items": (x[:4], np.array([0, 1, 0, 1]), Given(given.source[:4], np.array([0, 0, 1, 1]), np.arange(4))),
    }
    for name, (features, targets, known) in cases.items():
        assert np.isfinite(score.score(features, targets, known)), name


def test_bad_input_is_refused(score):
    x, y, given = problem()
    hole = x.copy()
    hole[17, 3] = np.nan
    with pytest.raises(BadData, match=r"Row 17 .*NaN"):
        score.score(hole, y, given)
    with pytest.raises(BadData, match="at least two labels"):
        score.score(x, np.zeros_like(y), given)
    with pytest.raises(BadData, match="numbered from 0"):
        score.score(x, y - 1, given)
    with pytest.raises(BadData, match="do not fit"):
        score.score(x, y[:-1], given)


def test_compute_says_what_it_leaves_out():
    x, y, given = problem()
    values, missing = compute(x, y, given)
    assert set(values) == set(NAMES)
    assert not missing
    values, missing = compute(x, y, dataclasses.replace(given, source=None))
    assert set(missing) == {"leep", "nce"}
    assert "classifier" in missing["leep"]
    assert set(compute(x, y, given, ["knn(k=1)"])[0]) == {"knn(k=1)"}
