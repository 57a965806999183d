"""Sparse ridge against scikit-learn's dense solution, its folds, and numbers far from zero."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from topwork.adaptation.probe.sparse_ridge import STRENGTHS, SparseRidge
from topwork.errors import BadData, BadSetting
from topwork.nn.heads import logits
from topwork.nn.log_loss import losses

from .test_sparse_logistic import words


def numbers(mean=0.0, unit=1.0):
    x, _, folds = words(C=3)
    draw = np.random.default_rng(5)
    z = x @ draw.normal(size=x.shape[1])
    return x, mean + unit * (z + 0.1 * draw.normal(size=len(z))), folds


@pytest.mark.parametrize(("mean", "unit"), [(0.0, 1.0), (4e6, 1.0), (0.0, 1e-6), (1e9, 1e6)])
def test_the_optimum_is_scikit_learns(mean, unit):
    x, y, folds = numbers(mean, unit)
    found = SparseRidge(alpha=0.5).solve(x, y, folds, 1)
    dense = x.toarray().astype(float)
    own = Ridge(0.5).fit(dense, y)
    np.testing.assert_allclose(
        logits(found.head, x)[:, 0] - mean, own.predict(dense) - mean, atol=0.01 * y.std() + mean * 3e-7
    )
    out = folds == 1
    other = Ridge(0.5).fit(dense[~out], y[~out]).predict(dense[out])
    np.testing.assert_allclose(found.held_out[out, 0] - mean, other - mean, atol=0.01 * y.std() + mean * 3e-7)


def test_the_strength_is_chosen_out_of_fold():
    x, y, folds = numbers()
    found = SparseRidge().solve(x, y, folds, 1)
    each = {alpha: SparseRidge(alpha).solve(x, y, folds, 1).log_loss for alpha in STRENGTHS}
    assert found.log_loss == min(each.values())
    assert f"of {len(STRENGTHS)} values" in found.reason
    assert found.log_loss == pytest.approx(losses(found.held_out, y).mean())
    assert found.log_loss < 0.3


def test_bad_input_is_refused():
    x, y, folds = numbers()
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(BadSetting, match="above zero"):
            SparseRidge(alpha).solve(x, y, folds, 1)
    hole = x.copy()
    hole.data[7] = np.nan
    with pytest.raises(BadData, match="NaN"):
        SparseRidge().solve(hole, y, folds, 1)
    with pytest.raises(BadSetting, match="The targets are classes"):
        SparseRidge().solve(x, (y > 0).astype(int), folds, 2)
