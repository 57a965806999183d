"""Principal scores: an orthonormal change of basis with a way back."""

import numpy as np
import pytest

from topwork.errors import BadData
from topwork.nn import principal as module
from topwork.nn.principal import principal, remembered


@pytest.mark.parametrize(("N", "D"), [(50, 8), (8, 50), (20, 20)])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_uncorrelated_and_keep_distances(N, D, weighted):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(N, D)) * rng.uniform(0.5, 3, D) + 4).astype(np.float32)
    weight = rng.uniform(0.5, 2, N) if weighted else np.ones(N)
    basis = principal(x, weight if weighted else None)
    w = weight / weight.mean()
    p = basis.scores[:, :-1].astype(float)
    assert (basis.scores[:, -1] == 1).all()
    np.testing.assert_allclose((p * w[:, None]).T @ p / N, np.diag(basis.variances), atol=1e-4 * basis.variances[0])
    np.testing.assert_allclose(w @ p / N, 0, atol=1e-4)
    mean = w @ x / N
    variance = w @ (x - mean) ** 2 / N
    z = (x - mean) / np.sqrt((variance + np.median(variance)) / 2)
    np.testing.assert_allclose(p @ p.T, z @ z.T, atol=2e-3)


def test_coefficients_come_back_to_raw_features():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(30, 6)) * 3 + 10).astype(np.float32)
    basis = principal(x)
    w = rng.normal(size=(4, basis.scores.shape[1]))
    weight, bias = basis.head(w)
    np.testing.assert_allclose(x @ weight + bias, basis.scores @ w.T, atol=1e-3)


def test_blocks_do_not_change_the_result(monkeypatch):
    x = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    whole = principal(x)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    parts = principal(x)
    np.testing.assert_allclose(np.abs(whole.scores), np.abs(parts.scores), atol=1e-4)


def test_constant_and_repeated_features_are_left_out():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x = np.column_stack([x, np.full(40, 1e6, np.float32), x[:, 0]])
    basis = principal(x)
    assert len(basis.variances) == 3
    weight, _ = basis.head(np.ones((1, 4)))
    assert weight[3, 0] == 0


def test_computed_once_where_it_is_remembered():
    x = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    with remembered():
        one = principal(x)
        assert principal(x) is one
        assert principal(x.copy()) is not one
    assert principal(x) is not one


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_row_that_is_not_finite_is_named(bad):
    x = np.ones((600, 4), np.float32)
    x[431, 2] = bad
    with pytest.raises(BadData, match="Row 431 "):
        principal(x)
