"""H-score and TransRate against covariances and determinants taken at their word."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from topwork.ranking.hscore import Hscore, ledoit_wolf
from topwork.ranking.transrate import Transrate


def problem(N, D, C=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.minimum(np.arange(N) % (C + 1), C - 1))  # the last class has twice as many
    return rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 2 * rng.normal(size=(C, D))[y] + 5, y


def means(x, y):
    """The class mean of every item."""
    out = np.empty_like(x)
    for c in np.unique(y):
        out[y == c] = x[y == c].mean(0)
    return out


@pytest.mark.parametrize(("N", "D"), [(80, 6), (30, 50)])
def test_h_score_of_covariances(N, D):
    x, y = problem(N, D)
    plain = np.trace(np.linalg.pinv(np.cov(x.T, bias=True), rcond=1e-10) @ np.cov(means(x, y).T, bias=True))
    assert Hscore(shrinkage=False).score(x, y) == pytest.approx(plain, rel=1e-6)
    fitted = LedoitWolf().fit(x)
    shrunk = (1 - fitted.shrinkage_) * np.linalg.inv(fitted.covariance_) @ np.cov(means(x, y).T, bias=True)
    assert Hscore().score(x, y) == pytest.approx(np.trace(shrunk), rel=1e-6)


@pytest.mark.parametrize(("N", "D"), [(80, 6), (30, 50)])
def test_shrinkage_is_ledoit_and_wolfs(N, D):
    x, _ = problem(N, D)
    centred = x - x.mean(0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2 / N
    S = centred.T @ centred / N
    d = ((S - np.trace(S) / D * np.eye(D)) ** 2).sum()
    e = sum(((np.outer(row, row) - S) ** 2).sum() for row in centred) / N**2
    assert ledoit_wolf(centred, variances) == pytest.approx(min(d, e) / d)
    assert ledoit_wolf(centred, variances) == pytest.approx(LedoitWolf().fit(x).shrinkage_)


def test_h_score_by_hand():
    """Classes at -1 and 1 with a spread of 1 around each: between 1, all 1 + 1."""
    x = np.array([[-2.0], [0], [0], [2]])
    assert Hscore(shrinkage=False).score(x, np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert Hscore(shrinkage=False).score(x, np.array([0, 1, 1, 0])) == pytest.approx(0)


def test_plain_h_score_says_nothing_with_few_items():
    x, y = problem(30, 50)
    assert Hscore(shrinkage=False).score(x, y) == pytest.approx(2)  # C - 1, whatever the features
    noise = np.random.default_rng(1).normal(size=(30, 50))
    assert Hscore(shrinkage=False).score(noise, y) == pytest.approx(2)
    assert Hscore().score(noise, y) < Hscore().score(x, y)


@pytest.mark.parametrize(("N", "D"), [(60, 5), (20, 40)])
def test_transrate_of_determinants(N, D):
    x, y = problem(N, D)
    z = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0))
    e = 1e-4

    def rate(part):
        return 0.5 * np.log(np.linalg.det(np.eye(D) + part.T @ part / (len(part) * e)))

    plain = rate(z) - sum((y == c).mean() * rate(z[y == c]) for c in range(3))
    assert Transrate().score(x, y) == pytest.approx(plain, rel=1e-6)
    assert Transrate().score(100 * x - 7, y) == pytest.approx(plain, rel=1e-6)  # any unit, any origin


def test_transrate_by_hand():
    x = np.array([[-1.0], [-1], [1], [1]])  # |Z|^2 = 4 -> each +-1/2, each class 2 x 1/4
    whole, part = 0.5 * np.log(1 + 1 / (4 * 0.1)), 0.5 * np.log(1 + 0.5 / (2 * 0.1))
    assert Transrate(distortion=0.1).score(x, np.array([0, 0, 1, 1])) == pytest.approx(whole - part)
