"""Which of several models is best: against plain Bayes, by simulation, and in cases that can be counted by hand."""

import numpy as np
import pytest

from topwork.errors import BadData
from topwork.evaluation.best import cheapest_of_the_best, decide, posterior


def answers(shares, N, seed=0, shared=0.8):
    """Right or wrong of K models whose items are hard or easy for all alike."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=N)
    own = rng.normal(size=(len(shares), N))
    mixed = shared**0.5 * hard + (1 - shared) ** 0.5 * own
    from scipy.stats import norm

    return mixed < norm.ppf(np.array(shares))[:, None]


def test_posterior_is_the_product_of_two_normals():
    """Two models, independent errors: each share is drawn towards their mean by S / (S + s^2)."""
    S = np.diag([0.01, 0.01])
    a = np.array([0.70, 0.90])
    mu, P = posterior(a, S, np.full(2, np.nan))
    s2 = 0.1**2 + 0.1**2 - 0.01  # two squares less tr C S C, one degree of freedom
    kept = s2 / (s2 + 0.01)
    assert mu == pytest.approx([0.8 - kept * 0.1, 0.8 + kept * 0.1])
    difference = P[0, 0] + P[1, 1] - 2 * P[0, 1]
    assert difference == pytest.approx(kept * 0.02)  # of two independent normals with precisions 1 / s^2 + 1 / 0.01
    assert P.mean() == pytest.approx(0.01 / 2)  # the level: as it was measured


def test_many_items_leave_the_shares_alone():
    hits = answers([0.6, 0.7, 0.8], 20_000)
    best = decide(hits, np.ones(3), np.array([9.0, 5.0, 1.0]))
    assert best.expected == pytest.approx(hits.mean(1), abs=2e-3)
    assert best.pick == 2
    assert best.runner_up == 1
    assert best.chance[2] > 0.999
    assert best.regret[2] == pytest.approx(0, abs=1e-4)
    assert best.difference[0] == pytest.approx(hits[2].mean() - hits[1].mean(), abs=2e-3)


def test_shared_items_make_differences_sure():
    """The same two shares, on items that both find hard or on items of their own."""
    paired, apart = (decide(answers([0.75, 0.80], 400, 1, shared), np.ones(2)) for shared in (0.97, 0.0))
    width = [best.difference[2] - best.difference[1] for best in (paired, apart)]
    assert width[0] < 0.7 * width[1]


def test_few_items_listen_to_a_guess_that_agrees():
    hits = answers([0.5, 0.6, 0.7, 0.8, 0.9], 30, 2)
    a = hits.mean(1)
    alone, told = decide(hits, np.ones(5)), decide(hits, np.ones(5), np.array([5.0, 6.0, 7.0, 8.0, 9.0]))
    truth = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    assert (told.expected - truth).var() < (a - truth).var()
    assert (told.expected - truth).var() < (alone.expected - truth).var()


def test_a_guess_that_points_the_wrong_way_is_no_guess():
    hits = answers([0.5, 0.6, 0.7, 0.8, 0.9], 2000, 2)
    wrong = decide(hits, np.ones(5), -np.arange(5.0))
    alone = decide(hits, np.ones(5))
    assert wrong.expected == pytest.approx(alone.expected)


def test_the_guess_pays_and_the_intervals_hold():
    """120 worlds as the model describes them: the posterior beats the shares, and its intervals hold."""
    rng = np.random.default_rng(3)
    plain, drawn, inside, regret, first = [], [], [], [], []
    for world in range(120):
        guess = rng.normal(size=8)
        truth = np.clip(0.75 + 0.06 * guess + 0.04 * rng.normal(size=8), 0.05, 0.97)
        hits = answers(truth, 60, world, shared=0.3)
        best = decide(hits, np.zeros(8), guess, tolerance=0)
        plain.append((hits.mean(1) - truth).var())  # around the level
        drawn.append((best.expected - truth).var())
        inside.append(((best.low <= truth) & (truth <= best.high)).mean())
        regret.append(truth.max() - truth[best.pick])
        first.append(truth.max() - truth[hits.mean(1).argmax()])
    assert np.mean(drawn) < 0.75 * np.mean(plain)
    assert 0.88 < np.mean(inside) < 0.99  # that s^2 is an estimate, too, is left out
    assert np.mean(regret) < np.mean(first)


def test_a_cheaper_one_is_taken_within_the_tolerance_only():
    expected, costs = np.array([0.900, 0.898, 0.890]), np.array([10.0, 5.0, 1.0])
    assert cheapest_of_the_best(expected, costs, 0.0) == 0
    assert cheapest_of_the_best(expected, costs, 0.0025) == 1
    assert cheapest_of_the_best(expected, costs, 0.02) == 2
    assert cheapest_of_the_best(np.array([0.8, 0.9]), np.array([1.0, 1.0]), 0.2) == 1  # equal costs: the better


def test_one_model_and_no_models():
    best = decide(np.ones((1, 30)), [1.0])
    assert (best.pick, best.runner_up, best.chance[0]) == (0, None, 1)
    assert best.expected[0] == pytest.approx(1, abs=0.01)
    with pytest.raises(BadData, match="do not fit"):
        decide(np.ones((2, 30)), [1.0])
    with pytest.raises(BadData, match="do not fit"):
        decide(np.ones((0, 0)), [])


def test_models_that_never_fail_are_not_told_apart():
    best = decide(np.ones((3, 40)), np.array([3.0, 1.0, 2.0]))
    assert best.pick == 1
    assert best.chance == pytest.approx([1 / 3] * 3, abs=0.15)
    assert np.isfinite(best.low).all()


def test_a_level_of_its_own_moves_all_alike():
    hits = answers([0.6, 0.7, 0.8], 300)
    soft = 0.25 + 0.5 * hits
    plain, told = decide(soft, np.ones(3)), decide(soft, np.ones(3), level=hits.mean(0))
    assert told.expected.mean() == pytest.approx(hits.mean())
    assert np.diff(told.expected) == pytest.approx(np.diff(plain.expected))
    assert told.difference == pytest.approx(plain.difference, abs=2e-3)
    assert (told.high - told.low > plain.high - plain.low).all()
