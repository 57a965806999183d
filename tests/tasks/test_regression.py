"""Point metrics agree with scikit-learn and scipy, and influences with what weights do to them."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from topwork import tasks
from topwork.errors import BadData
from topwork.evaluation.intervals import interval
from topwork.tasks.regression import MAIN, NAMES, checked, item_losses, metric_names, statistics


def draw(N=60, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    y = rng.lognormal(3, 0.5, N)
    z = 0.8 * y + 4 * rng.normal(size=N)
    return (z.round(-1)[:, None], y.round(-1)) if ties else (z[:, None], y)


def weighted_spearman(z, y, w):
    """Correlation of weighted mid-ranks, item by item."""
    w = np.ones(len(y)) if w is None else w
    a, b = (np.array([(w * ((x < one) + 0.5 * (x == one))).sum() for one in x]) for x in (z, y))
    a, b = (ranks - np.average(ranks, weights=w) for ranks in (a, b))
    return (w * a * b).sum() / np.sqrt((w * a**2).sum() * (w * b**2).sum())


def plain(name, z, y):
    return {
        "r2": lambda w: reference.r2_score(y, z[:, 0], sample_weight=w),
        "mae": lambda w: reference.mean_absolute_error(y, z[:, 0], sample_weight=w),
        "rmse": lambda w: reference.root_mean_squared_error(y, z[:, 0], sample_weight=w),
        "spearman": lambda w: weighted_spearman(z[:, 0], y, w),
    }[name]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_influence_agree_with_the_reference(name, ties):
    z, y = draw(ties=ties)
    found, asked = statistics(z, y)[name], plain(name, z, y)
    assert found.value == pytest.approx(asked(None), abs=1e-12)
    assert found.influence.sum() == pytest.approx(0, abs=1e-10)
    step = 1e-5
    slopes = [(asked(1 + step * e) - asked(1 - step * e)) / (2 * step) for e in np.eye(len(y))]
    np.testing.assert_allclose(found.influence, slopes, atol=1e-7)
    if name == "spearman":
        assert found.value == pytest.approx(stats.spearmanr(z[:, 0], y).statistic, abs=1e-12)


def test_leaving_an_item_out_is_counted_exactly():
    z, y = draw()
    found = statistics(z, y)["r2"]
    for j in (0, 7, 59):
        rest = np.arange(60) != j
        assert found.without[j] == pytest.approx(np.log(1 - reference.r2_score(y[rest], z[rest, 0])), abs=1e-9)


def test_perfect_mean_and_worse():
    y = np.array([1.0, 2, 3, 10])
    perfect, mean, wrong = (statistics(z[:, None], y) for z in (y, np.full(4, y.mean()), -y))
    assert (perfect["r2"].value, perfect["mae"].value, perfect["rmse"].value, perfect["spearman"].value) == (1, 0, 0, 1)
    assert mean["r2"].value == pytest.approx(0)
    assert mean["spearman"].value == 0  # no order at all
    assert wrong["r2"].value < 0
    assert wrong["spearman"].value == -1


def test_what_has_no_value_is_left_out():
    same = statistics(np.array([[1.0], [2.0]]), np.array([5.0, 5.0]))
    assert set(same) == {"mae", "rmse"}
    assert set(statistics([[1.0]], [2.0])) == {"mae", "rmse"}
    assert set(statistics([[1.0], [2.0]], [2.0, 3.0])) == set(NAMES) == set(metric_names())


def test_bad_input_is_refused_in_one_line():
    z, y = draw(5)
    cases = (
        (z[:, 0], y, r"shape \(5,\). Expected \(items, 1\)"),
        (np.hstack([z, z]), y, r"shape \(5, 2\)"),
        (z[:0], y[:0], "at least one item"),
        (z, y[:4], "one target per item"),
        (np.where(np.arange(5) == 3, np.nan, z[:, 0])[:, None], y, "answer of item 3 is not a finite number"),
        (z, np.where(np.arange(5) == 2, np.inf, y), "target of item 2 is not a finite number"),
    )
    for answers, targets, match in cases:
        with pytest.raises(BadData, match=match) as caught:
            checked(answers, targets)
        assert "\n" not in str(caught.value)


def test_the_house_asks_the_task_that_the_targets_are_of():
    z, y = draw(20)
    assert tasks.is_numeric(y)
    assert not tasks.is_numeric(y.astype(int))
    assert tasks.of(y).MAIN == MAIN == tasks.main_metric(y) == "r2"
    assert tasks.main_metric(np.array([0, 1])) == "accuracy"
    np.testing.assert_array_equal(tasks.item_losses(z, y), np.abs(z[:, 0] - y))
    np.testing.assert_array_equal(item_losses(z, y), np.abs(z[:, 0] - y))
    assert tasks.statistics(z, y).keys() == statistics(z, y).keys()


def test_values_of_any_unit():
    """Nothing overflows or is lost where float32 ends, and R^2 and ranks know no unit."""
    z, y = draw()
    usual = statistics(z, y)
    for unit in (1e-35, 1e-6, 1e35):
        found = statistics(unit * z, unit * y)
        assert found["r2"].value == pytest.approx(usual["r2"].value)
        assert found["spearman"].value == pytest.approx(usual["spearman"].value)
        assert found["rmse"].value == pytest.approx(unit * usual["rmse"].value)
        metric = interval(found["r2"])
        assert metric.low == pytest.approx(interval(usual["r2"]).low, rel=1e-6)


def test_intervals_hold_together():
    z, y = draw(40)
    for name, found in statistics(z, y).items():
        metric = interval(found)
        assert metric.low < metric.value < metric.high, name
        assert metric.n == 40
        assert interval(found, widen=2).low < metric.low
    assert interval(statistics(z, y)["r2"]).high < 1
    assert interval(statistics(z, y)["mae"]).low > 0
    perfect = interval(statistics(y[:, None], y)["spearman"])
    assert perfect.value == pytest.approx(1)
    assert perfect.low < 0.9  # 40 items in order do not prove that all are
    constant = interval(statistics(np.ones((40, 1)), y)["spearman"])
    assert constant.low <= 0 <= constant.high
    for count in (1, 2, 3):  # as few as there can be
        for found in statistics(z[:count], y[:count]).values():
            metric = interval(found)
            assert metric.low <= metric.value <= metric.high
