"""LogME against a numerical maximisation of the evidence, written down without any decomposition."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from topwork.ranking.logme import Logme


def problem(N, D, C=3, seed=0, signal=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    x = rng.normal(size=(N, D)) + signal * rng.normal(size=(C, D))[y]
    return x, y


def plain(x, y):
    """y_c ~ N(0, 1/b I + 1/a F F^T), maximised over a and b: Bishop (2006), 3.5, the weights summed out."""

    def loss(logs, goal):
        a, b = np.exp(np.clip(logs, -15, 15))  # where nothing is to be learnt, a has no end
        return -multivariate_normal.logpdf(goal, np.zeros(len(x)), np.eye(len(x)) / b + x @ x.T / a)

    found = []
    for label in np.unique(y):
        goal = (y == label).astype(float)
        starts = [(0, 0), (4, 1)]
        found.append(min(minimize(loss, s, args=(goal,), method="Nelder-Mead").fun for s in starts))
    return -np.mean(found) / len(y)


@pytest.mark.parametrize(("N", "D"), [(40, 6), (20, 30)])
def test_reaches_the_maximum_of_the_evidence(N, D):
    x, y = problem(N, D, signal=0.7)
    assert Logme(rounds=2000, tolerance=1e-12).score(x.astype(np.float32), y) == pytest.approx(plain(x, y), abs=2e-4)


def test_evidence_at_a_and_b_is_the_density_of_the_labels():
    """One feature, one item of each class: the 2 x 2 Gaussian by hand."""
    x, goal = np.array([[1.0], [2.0]]), np.array([0.0, 1.0])
    one = Logme(rounds=0)  # a = b = 1 is kept: y ~ N(0, [[2, 2], [2, 5]]), determinant 6, y^T S^-1 y = 2 / 6
    squares = np.array([5.0])
    seen = np.array([(x[:, 0] @ goal / np.sqrt(5)) ** 2])
    by_hand = -np.log(2 * np.pi) - 0.5 * np.log(6) - 0.5 * 2 / 6
    assert one._evidence(squares, seen, 1.0, 2, 1) == pytest.approx(by_hand)


def test_better_features_score_higher():
    scores = [Logme().score(*problem(90, 20, signal=s)) for s in (0.0, 0.5, 1.0, 2.0)]
    assert scores == sorted(scores)
