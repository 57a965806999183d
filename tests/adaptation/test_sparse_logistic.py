"""Sparse logistic regression against scikit-learn's, and its honesty about folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from topwork.adaptation import probe as probes
from topwork.adaptation.probe import sparse_logistic as module
from topwork.adaptation.probe.sparse_logistic import SparseLogistic
from topwork.errors import BadData, BadSetting
from topwork.nn import sparse_regression
from topwork.nn.heads import logits, probabilities
from topwork.nn.log_loss import losses


def words(N=300, D=80, C=3, seed=0, share=0.12):
    """Rows of unit length with few entries; a class prefers some columns."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, C, N).astype(np.int32)
    x = (draw.random((N, D)) < share) * draw.exponential(1, (N, D))
    x += (draw.random((N, D)) < 0.1) * (np.arange(D) % C == y[:, None])
    x[:, :4] += draw.exponential(0.5, (N, 4))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return csr_array(x.astype(np.float32)), y, draw.permutation(N) % 5


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(module, "AT_THE_END", 1e-6)


@pytest.mark.parametrize(("C", "l2"), [(2, 1e-2), (2, 1e-4), (3, 1e-2), (5, 1e-3)])
def test_the_optimum_is_scikit_learns(exact, C, l2):
    x, y, folds = words(C=C)
    found = SparseLogistic(l2, "none").solve(x, y, folds, C)
    reference = LogisticRegression(C=(2 if C == 2 else 1) / (l2 * len(y)), max_iter=5000, tol=1e-10).fit(x, y)
    assert np.allclose(probabilities(found.head, x), reference.predict_proba(x), atol=2e-3)
    for fold in range(2):  # and that of every fold
        out = folds == fold
        cost = (2 if C == 2 else 1) / (l2 * (~out).sum())
        other = LogisticRegression(C=cost, max_iter=5000, tol=1e-10).fit(x[~out], y[~out])
        p = np.exp(found.held_out[out])
        assert np.allclose(p / p.sum(1, keepdims=True), other.predict_proba(x[out]), atol=8e-3)


def test_several_labels_are_regressions_each(exact):
    x, y, folds = words(C=4)
    several = np.stack([y == 0, y > 1, (y == 3) | (folds == 0)], axis=1)
    found = SparseLogistic(1e-3).solve(x, several, folds, 3)
    for label in range(3):
        reference = LogisticRegression(C=1 / (1e-3 * len(y)), max_iter=5000, tol=1e-10).fit(x, several[:, label])
        assert np.allclose(probabilities(found.head, x)[:, label], reference.predict_proba(x)[:, 1], atol=2e-3)


def test_the_gradient_is_the_slope_of_the_objective():
    x, y, folds = words(60, 20, 3)
    draw = np.random.default_rng(0)
    several = np.stack([y == 0, y == 1], axis=1)
    for targets, C in ((y, 3), (several, 2)):
        given = module.check(np.zeros((60, 1), np.float32), targets, folds, C)
        group = module.Problem.of(x, given, balanced=True).group
        w = draw.normal(size=(6, 21, C)).astype(np.float32)
        _, gradient = sparse_regression.objective(group, w, 0.1)
        direction = draw.normal(size=w.shape).astype(np.float32)
        ahead, behind = (sparse_regression.objective(group, w + s * direction, 0.1)[0] for s in (0.01, -0.01))
        slopes = np.einsum("kdc,kdc->k", gradient, direction)
        assert np.allclose((ahead - behind) / 0.02, slopes, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("balanced", ["none", "balanced"])
def test_a_fold_never_sees_its_own_labels(balanced):
    x, y, folds = words()
    changed = np.where(folds == 2, (y + 1) % 3, y).astype(np.int32)
    one, two = (SparseLogistic(1e-3, balanced).solve(x, t, folds, 3).held_out[folds == 2] for t in (y, changed))
    assert np.allclose(one, two, atol=2e-3)


def test_the_strength_is_chosen_by_what_is_held_out():
    x, y, folds = words(800, 60, 3, share=0.3)
    best = SparseLogistic().solve(x, y, folds, 3)
    fixed = [SparseLogistic(1 / (c * 800)).solve(x, y, folds, 3) for c in (0.1, 1, 10, 300)]
    assert best.log_loss < min(f.log_loss for f in fixed) + 0.01
    assert best.log_loss == pytest.approx(losses(best.held_out, y).mean(), rel=1e-5)
    assert f"{best.log_loss:.3f}" in best.reason


def test_judging_on_some_folds_gives_nearly_the_same(monkeypatch):
    x, y, folds = words(900, 60)
    every = SparseLogistic().solve(x, y, folds, 3)
    monkeypatch.setattr(module, "JUDGED", 150)
    monkeypatch.setattr(module, "COLUMNS", 4)
    some = SparseLogistic().solve(x, y, folds, 3)
    assert some.log_loss < every.log_loss + 0.01
    assert np.abs(some.held_out - every.held_out).mean() < 0.5


def test_rare_classes_are_weighted_where_it_helps_and_probabilities_stay_those_of_the_data():
    x, y, folds = words(600, 60, 2)
    keep = np.flatnonzero((y == 0) | (np.arange(600) % 8 == 0))
    x, y, folds = x[keep], y[keep], folds[keep]
    found = SparseLogistic().solve(x, y, folds, 2)
    assert "weighted" in found.reason
    told = SparseLogistic(1e-3, "balanced").solve(x, y, folds, 2)
    assert "class_weight='balanced'" in told.head.method
    assert probabilities(told.head, x)[:, 1].mean() == pytest.approx(y.mean(), abs=0.05)


def test_hard_cases_do_not_crash():
    x, y, folds = words(60, 40, 3)
    empty = csr_array((60, 40), dtype=np.float32)
    cases = {
        "a class misses in one training part": (x, np.where(folds == 1, 2, y % 2).astype(np.int32), folds, 3),
        "two classes, one misses": (x[:6], np.int32([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1]), 2),
        "a class that nobody has": (x, y, folds, 5),
        "nothing is there": (empty, y, folds, 3),
        "a label that nobody has": (x, np.eye(4, dtype=bool)[y], folds, 4),
        "four items": (x[:4], np.int32([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2),
    }
    for name, (features, targets, parts, classes) in cases.items():
        found = SparseLogistic().solve(features, targets, parts, classes)
        assert np.isfinite(found.held_out).all(), name
        assert np.isfinite(logits(found.head, features)).all(), name
        assert found.head.arrays["weight"].shape == (40, classes), name


def test_bad_input_is_refused():
    x, y, folds = words()
    broken = x.copy()
    broken.data[broken.indptr[17]] = np.nan
    with pytest.raises(BadData, match=r"Row 17 .*NaN"):
        SparseLogistic().solve(broken, y, folds, 3)
    with pytest.raises(BadData, match="same label"):
        SparseLogistic().solve(x, np.zeros_like(y), folds, 3)
    with pytest.raises(BadSetting, match="above zero"):
        SparseLogistic(0.0).solve(x, y, folds, 3)


def test_the_room_takes_sparse_features_and_heads_read_them():
    x, y, folds = words()
    best, _ = probes.choose(x, y, folds, 3, methods=("sparse_logistic",))
    assert best.head.method.startswith("sparse_logistic(l2=")
    assert np.allclose(logits(best.head, x), logits(best.head, x.toarray()), atol=1e-5)
    assert (best.held_out.argmax(1) == y).mean() > 0.45
    twice = SparseLogistic().solve(x, y, folds, 3)
    assert twice.held_out.tobytes() == SparseLogistic().solve(x.copy(), y, folds, 3).held_out.tobytes()
