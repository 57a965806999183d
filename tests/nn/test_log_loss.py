"""Log loss and temperature against scikit-learn and a plain search."""

import numpy as np
import pytest

from topwork.nn.log_loss import doubt_of, fit_temperature, log_priors, losses


def data(sigmoid, N=80, C=4):
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(N, C)).astype(np.float32)
    y = rng.random((N, C)) < 1 / (1 + np.exp(-z / 2)) if sigmoid else (z / 2 + rng.gumbel(size=(N, C))).argmax(axis=1)
    return z, y


def test_softmax_is_scikit_learns():
    from sklearn.metrics import log_loss

    z, y = data(False)
    p = np.exp(z.astype(float)) / np.exp(z.astype(float)).sum(axis=1, keepdims=True)
    assert losses(z, y).mean() == pytest.approx(log_loss(y, p), rel=1e-6)


def test_sigmoid_is_the_mean_over_labels():
    from sklearn.metrics import log_loss

    z, y = data(True)
    p = 1 / (1 + np.exp(-z.astype(float)))
    assert losses(z, y).mean() == pytest.approx(np.mean([log_loss(y[:, c], p[:, c]) for c in range(4)]), rel=1e-6)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_temperature_is_the_best_of_many(sigmoid):
    z, y = data(sigmoid)
    T = fit_temperature(z, y)
    grid = np.geomspace(0.05, 50, 4001)
    scores = [losses(z / t, y, doubt_of(len(z))).mean() for t in grid]
    assert pytest.approx(grid[np.argmin(scores)], rel=3e-3) == T
    assert fit_temperature(100 * z, y) == pytest.approx(100 * T, rel=1e-4)


def test_temperature_stays_finite_without_a_mistake():
    y = np.arange(20) % 2
    z = np.where(np.eye(2)[y] > 0, 1.0, -1.0)
    T = fit_temperature(z, y)
    p = 1 / (1 + np.exp(-2 / T))
    assert p == pytest.approx(1 - doubt_of(20) / 2, rel=1e-4)  # as sure as 20 items allow
    assert np.isfinite(fit_temperature(-z, y))
    assert fit_temperature(np.zeros((20, 2)), y) == 1


def test_offset_is_not_scaled():
    z, y = data(False)
    offset = np.log([0.7, 0.1, 0.1, 0.1])
    grid = np.geomspace(0.05, 50, 4001)
    best = grid[np.argmin([losses(z / t + offset, y, doubt_of(len(z))).mean() for t in grid])]
    assert fit_temperature(z, y, offset) == pytest.approx(best, rel=1e-2)


def test_priors():
    np.testing.assert_allclose(np.exp(log_priors(np.array([3.0, 1, 0]), 4.0, False)), np.array([3.5, 1.5, 0.5]) / 5.5)
    np.testing.assert_allclose(log_priors(np.array([3.0, 0]), 4.0, True), np.log([3.5 / 1.5, 0.5 / 4.5]))
