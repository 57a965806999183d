"""Ridge, nearest mean, k-NN and majority against loops written from the formula."""

import numpy as np
import pytest

from topwork.adaptation.probe.knn import LARGEST, Knn
from topwork.adaptation.probe.majority import Majority
from topwork.adaptation.probe.nearest_mean import NearestMean
from topwork.adaptation.probe.ridge import STRENGTHS, Ridge, leave_one_out
from topwork.errors import BadSetting
from topwork.nn.heads import logits
from topwork.nn.principal import principal


def data(N=60, D=9, C=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, N).astype(np.int32)
    x = (rng.normal(size=(N, D)) + rng.normal(size=(C, D))[y]) * rng.uniform(0.5, 2, D)
    return x.astype(np.float32), y, rng.permutation(N) % 4


def solve_ridge(p, signs, l2, weight):
    """Coefficients from the normal equations, bias unpenalised."""
    P = np.column_stack([p, np.ones(len(p))])
    penalty = weight.sum() * l2 * np.eye(P.shape[1])
    penalty[-1, -1] = 0
    return np.linalg.solve(P.T @ (weight[:, None] * P) + penalty, P.T @ (weight[:, None] * signs))


@pytest.mark.parametrize(("N", "D"), [(60, 9), (20, 40)])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_exact(N, D, weighted):
    x, y, _ = data(N, D)
    weight = np.random.default_rng(1).uniform(0.5, 2, N) if weighted else np.ones(N)
    weight /= weight.mean()
    basis = principal(x, weight)
    signs = (2 * np.eye(3)[y] - 1).astype(np.float32)
    moments = (basis.scores * weight[:, None]).T @ signs
    p = basis.scores[:, :-1].astype(float)
    for l2, fast in zip((1.0, 0.05), leave_one_out(basis, moments, signs, weight, (1.0, 0.05)), strict=True):
        slow = 0.0
        for i in range(N):
            rest = np.arange(N) != i
            # the left-out item changes n, so the same n * l2 is kept, as the formula does
            B = solve_ridge(p[rest], signs[rest], l2 * N / weight[rest].sum(), weight[rest])
            slow += weight[i] * ((signs[i] - np.append(p[i], 1) @ B) ** 2).mean() / N
        assert fast == pytest.approx(slow, rel=1e-3)


@pytest.mark.parametrize(("N", "D"), [(60, 9), (20, 40)])
def test_ridge_head_and_held_out(N, D):
    x, y, folds = data(N, D)
    probe = Ridge(l2=0.2).solve(x, y, folds, 3)
    p = principal(x).scores[:, :-1].astype(float)
    signs = 2 * np.eye(3)[y] - 1
    whole = solve_ridge(p, signs, 0.2, np.ones(N))
    np.testing.assert_allclose(logits(probe.head, x), np.column_stack([p, np.ones(N)]) @ whole, atol=1e-3)
    for fold in range(4):
        rest = folds != fold
        B = solve_ridge(p[rest], signs[rest], 0.2, np.ones(rest.sum()))
        np.testing.assert_allclose(
            probe.held_out[~rest], np.column_stack([p[~rest], np.ones((~rest).sum())]) @ B, atol=1e-3
        )


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge as Reference

    x, y, folds = data()
    p = principal(x).scores[:, :-1].astype(float)
    reference = Reference(alpha=0.2 * 60).fit(p, 2 * np.eye(3)[y] - 1)
    np.testing.assert_allclose(logits(Ridge(l2=0.2).solve(x, y, folds, 3).head, x), reference.predict(p), atol=1e-3)


def test_ridge_chooses_from_its_strengths():
    probe = Ridge().solve(*data(), 3)
    assert any(f"ridge(l2={l2:.2g})" == probe.head.method for l2 in STRENGTHS)


def test_nearest_mean_is_the_formula():
    x, y, folds = data()
    head = NearestMean().solve(x, y, folds, 3).head
    X = x.astype(float)
    means = np.stack([X[y == c].mean(axis=0) for c in range(3)])
    within = ((X - means[y]) ** 2).mean(axis=0)
    total = (X.var(axis=0) + np.median(X.var(axis=0))) / 2
    d2 = (60 * (within + within.mean()) / 2 + total) / 61
    distance = -(((X[:, None] - means) ** 2) / d2).sum(axis=2) / 2
    distance -= distance.mean(axis=1, keepdims=True)
    priors = np.log((np.bincount(y) + 0.5) / 61.5)
    z = logits(head, x) - priors
    z -= z.mean(axis=1, keepdims=True)
    width = (distance**2).sum() / (z * distance).sum()  # the one fitted number
    assert width > 0
    np.testing.assert_allclose(z, distance / width, atol=1e-3)


def test_nearest_mean_held_out_is_the_head_of_the_rest():
    x, y, folds = data()
    probe = NearestMean().solve(x, y, folds, 3)
    rest = folds != 1
    alone = NearestMean().solve(x[rest], y[rest], folds[rest], 3)
    assert np.corrcoef(logits(alone.head, x[~rest]).ravel(), probe.held_out[~rest].ravel())[0, 1] > 0.99


def test_nearest_mean_of_several_labels():
    x, y, folds = data()
    probe = NearestMean().solve(x, np.eye(3, dtype=bool)[y], folds, 3)
    assert (probe.held_out.argmax(axis=1) == y).mean() > 0.7
    assert abs(np.mean(1 / (1 + np.exp(-probe.held_out))) - 1 / 3) < 0.1


@pytest.mark.parametrize("several", [False, True])
def test_knn_is_the_formula(several):
    x, y, folds = data()
    targets = np.eye(3, dtype=bool)[y] if several else y
    probe = Knn(k=5).solve(x, targets, folds, 3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(60):
        rest = np.flatnonzero(folds != folds[i])
        near = rest[np.argsort(-(unit[rest] @ unit[i]), kind="stable")[:5]]
        n = np.bincount(y[rest], minlength=3)
        prior = (n + 0.5) / (len(rest) + (1 if several else 1.5))
        share = (5 * np.eye(3)[y[near]].mean(axis=0) + prior) / 6
        z = np.log(share / (1 - share)) if several else np.log(share)
        np.testing.assert_allclose(probe.held_out[i], z, atol=1e-5)
    assert probe.head.settings == {"k": 5}
    assert np.isfinite(logits(probe.head, x)).all()


def test_knn_chooses_the_best_k():
    x, y, folds = data()
    best = Knn().solve(x, y, folds, 3)
    assert best.log_loss == min(Knn(k=k).solve(x, y, folds, 3).log_loss for k in (1, 3, 5, 9, 15))


def test_knn_limits():
    x, y, folds = data()
    with pytest.raises(BadSetting, match="needs 1 to"):
        Knn(k=60).solve(x, y, folds, 3)
    N = LARGEST + 1
    with pytest.raises(BadSetting, match="more than 20,000"):
        Knn().solve(np.zeros((N, 1), np.float32), np.arange(N) % 2, np.arange(N) % 3, 2)


def test_majority_counts():
    x, y, folds = data()
    probe = Majority().solve(x, y, folds, 3)
    rest = folds != 2
    expected = np.log((np.bincount(y[rest], minlength=3) + 0.5) / (rest.sum() + 1.5))
    np.testing.assert_allclose(probe.held_out[folds == 2], np.tile(expected, ((~rest).sum(), 1)), atol=1e-6)
    assert (logits(probe.head, x).argmax(axis=1) == np.bincount(y).argmax()).all()
