"""Intervals: published values, limits, and the corner cases."""

import numpy as np
import pytest

from topwork.evaluation.intervals import ONE_REPEAT, cross_validated, hall, interval, overlap, student, wilson
from topwork.tasks.classification import statistics

RNG = np.random.default_rng(0)


def predicted(right, C=2):
    """One sure answer per item, the first `right` of 40 correct; truths alternate."""
    t = np.arange(40) % C
    return np.eye(C)[np.where(np.arange(40) < right, t, (t + 1) % C)] * 0.8 + 0.2 / C, t


def test_wilson_matches_newcombe_1998():
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        np.testing.assert_allclose(wilson(k, n), (low, high), atol=5e-5)
    assert wilson(0, 0) == (0, 1)


def test_accuracy_is_wilson():
    for right in (0, 1, 30, 40):
        m = interval(statistics(*predicted(right))["accuracy"])
        np.testing.assert_allclose((m.low, m.high), wilson(right, 40), atol=1e-12)
        assert m.n == 40


@pytest.mark.parametrize("right", [0, 40])
def test_all_right_or_all_wrong_is_not_certain(right):
    for name, s in statistics(*predicted(right)).items():
        m = interval(s)
        assert m.low <= m.value <= m.high
        if name != "log_loss":
            assert 0.05 < m.high - m.low < 0.2


def test_one_item_knows_next_to_nothing():
    for s in statistics([[0.9, 0.1]], [0]).values():
        m = interval(s)
        assert m.low <= m.value <= m.high
        assert m.high - m.low > 0.7
        assert np.isfinite([m.low, m.high]).all()


def test_sure_and_never_wrong_is_not_a_certain_loss_of_nothing():
    m = interval(statistics(np.eye(2)[np.arange(30) % 2], np.arange(30) % 2)["log_loss"])
    assert (m.value, m.low) == (0, 0)
    assert m.high > 1


def test_hall_is_the_t_interval_without_skewness_and_leans_with_it():
    from scipy import stats

    x = RNG.normal(size=30)
    x = np.concatenate([x, -x])
    low, high = hall(5.0, x.var() / 60, x)
    np.testing.assert_allclose((low, high), stats.t.interval(0.95, 59, 5.0, x.std(ddof=1) / 60**0.5), rtol=1e-9)
    y = RNG.exponential(size=60)
    low, high = hall(y.mean(), y.var() / 60, y - y.mean())
    assert high - y.mean() > 1.2 * (y.mean() - low)


def test_degrees_of_freedom_are_welch():
    from scipy import stats

    assert student(7.3) == pytest.approx(stats.t.ppf(0.975, 7.3))
    p = np.where(np.arange(30)[:, None] % 3 == 0, [0.4, 0.6], [0.6, 0.4])
    few = interval(statistics(p, (np.arange(30) < 4).astype(int))["balanced_accuracy"])
    many = interval(statistics(p, np.arange(30) // 15)["balanced_accuracy"])
    assert few.high - few.low > 1.3 * (many.high - many.low)


def test_overlap_widens_and_repeats_help():
    folds = np.arange(40) % 5
    one = statistics(*predicted(30))["accuracy"]
    assert overlap([one], [folds]) == pytest.approx(5 / 4 + ONE_REPEAT)
    assert overlap([one] * 4, [folds] * 4) == pytest.approx(5 / 4)  # repeats that agree
    p, t = predicted(30)
    other = statistics(np.roll(p, 2, axis=0), t)["accuracy"]
    assert 5 / 4 < overlap([one, other], [folds] * 2) < 5 / 4 + 0.5
    plain, widened = interval(one), cross_validated([one], [folds])
    assert widened.low < plain.low
    assert widened.high > plain.high
    assert widened.value == plain.value
