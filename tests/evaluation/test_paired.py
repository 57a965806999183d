"""Paired comparison against scipy and published values."""

import numpy as np
import pytest
from scipy import stats

from topwork.errors import BadData, UnknownName
from topwork.evaluation.paired import compare, compare_hits, compare_losses, compare_metric, mcnemar, sign_flip, tango
from topwork.types import Predictions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n01", "n10"), [(0, 0), (0, 3), (5, 5), (12, 4), (200, 150)])
def test_mcnemar_is_the_binomial_test(n01, n10):
    plain = stats.binomtest(n01, n01 + n10).pvalue if n01 + n10 else 1.0
    assert mcnemar(n01, n10) == pytest.approx(plain)
    assert mcnemar(n10, n01) == mcnemar(n01, n10)
    observed = stats.binom.pmf(n01, n01 + n10, 0.5)
    if n01 != n10:
        assert mcnemar(n01, n10, mid_p=True) == pytest.approx(plain - observed)


def test_tango_solves_the_score_equation():
    """The likelihood under a given difference is maximised on a grid here, not in closed form."""
    n01, n10, n = 9, 2, 40
    q = np.linspace(1e-6, 0.5, 400_001)
    for delta, side in zip(tango(n01, n10, n), (1, -1), strict=True):
        p01 = q + delta
        rest = 1 - q - p01
        fine = (p01 > 0) & (rest > 0)
        best = q[fine][
            np.argmax(n01 * np.log(p01[fine]) + n10 * np.log(q[fine]) + (n - n01 - n10) * np.log(rest[fine]))
        ]
        z = (n01 - n10 - n * delta) / (n * (2 * best + delta - delta**2)) ** 0.5
        assert z == pytest.approx(side * 1.959964, abs=1e-3)


def test_tango_corner_cases():
    z2 = 1.959964**2
    np.testing.assert_allclose(tango(0, 0, 20), (-z2 / (20 + z2), z2 / (20 + z2)), atol=1e-6)
    assert tango(20, 0, 20)[1] == 1
    assert tango(0, 20, 20)[0] == -1
    low, high = tango(3, 8, 50)
    np.testing.assert_allclose(tango(8, 3, 50), (-high, -low), atol=1e-9)


def test_comparison_in_words():
    first = np.repeat([True, False], [50, 50])
    second = np.repeat([True, False, True], [48, 2, 50])
    c = compare_hits(first, second)
    assert (c.n01, c.n10, c.n) == (50, 2, 100)
    assert c.over("pixels") == f"+48.0 points [{100 * c.low:.1f}, {100 * c.high:.1f}] over pixels, p < 0.001"
    same = compare_hits(first, first)
    assert same.p_value == 1
    assert str(same).startswith("+0.0 points [")
    wide = compare_hits(first, second, widen=1.6)
    assert wide.low < c.low
    assert wide.high > c.high
    assert wide.p_value > c.p_value


def test_compare_predictions():
    t = np.arange(60) % 2
    good = Predictions(np.eye(2, dtype=np.float32)[t], t, ("a", "b"))
    bad = Predictions(np.full((60, 2), 0.5, np.float32), t, ("a", "b"))
    assert compare(bad, good).difference == 0.5
    with pytest.raises(BadData, match="same items"):
        compare(good, Predictions(bad.probabilities, 1 - t, ("a", "b")))


def test_several_labels_compare_losses():
    t = RNG.random((80, 3)) < 0.5
    p = np.clip(t * 0.4 + 0.3 + RNG.normal(0, 0.1, t.shape), 0.01, 0.99).astype(np.float32)
    first, second = (Predictions(x, t, tuple("abc"), multilabel=True) for x in (np.full_like(p, 0.5), p))
    c = compare(first, second)
    assert c.difference > 0.2
    assert c.p_value < 0.001
    assert c.low > 0
    assert "nats of log loss" in str(c)


def test_sign_flip_agrees_with_scipy_and_is_seeded():
    d = RNG.normal(0.15, 1, 60)
    plain = stats.permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=4999, rng=np.random.default_rng(0)
    ).pvalue
    assert sign_flip(d) == pytest.approx(plain, abs=0.04)
    assert sign_flip(d) == sign_flip(d)
    assert sign_flip(np.zeros(5)) == 1
    assert compare_losses(np.array([0.5]), np.array([0.2])).p_value == 1


def test_any_metric_is_compared_by_the_items_influences():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [80, 20])
    worse, better = (np.where(rng.random(100) < share, y, 1 - y) for share in (0.7, 0.9))
    first, second = (Predictions(np.eye(2, dtype=np.float32)[a] * 0.8 + 0.1, y, ("a", "b")) for a in (worse, better))
    found = compare_metric(first, second, "balanced_accuracy")
    recall = [np.mean([(a == c)[y == c].mean() for c in (0, 1)]) for a in (worse, better)]
    assert found.difference == pytest.approx(recall[1] - recall[0])
    assert found.low < found.difference < found.high
    d = np.array([((better == y) * 1.0 - (worse == y))[y == c].var() / (y == c).sum() / 4 for c in (0, 1)]).sum()
    assert (found.high - found.low) / 2 == pytest.approx(1.98 * d**0.5, rel=0.1)  # two strata, by hand
    assert compare_metric(first, second, "log_loss").difference > 0  # less is better
    assert "points of balanced accuracy" in found.over("probe")
    with pytest.raises(UnknownName, match="accuracy"):
        compare_metric(first, second, "acuracy")
