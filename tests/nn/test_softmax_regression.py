"""The solver against finite differences and against scikit-learn."""

import numpy as np
import pytest

from topwork.nn.principal import principal
from topwork.nn.softmax_regression import Stack, curvature, minimise, objective


def stack(N=60, D=7, C=3, K=2, sigmoid=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32) * np.arange(1, D + 1, dtype=np.float32)
    y = rng.random((N, C)) < 0.4 if sigmoid else rng.integers(0, C, N).astype(np.int32)
    weights = rng.random((K, 1, N)).astype(np.float32)
    weights /= weights.sum(axis=2, keepdims=True)
    basis = principal(x)
    return Stack(basis.scores, y, weights, np.ones((K, C), bool), basis.variances)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradient_is_that_of_finite_differences(sigmoid):
    problem = stack(sigmoid=sigmoid)
    rng = np.random.default_rng(1)
    w = rng.normal(size=(2, 3, problem.scores.shape[1]))
    _, gradient = objective(problem, w, 0.3)
    for _ in range(20):
        direction = rng.normal(size=w.shape)
        h = 1e-2
        up, down = objective(problem, w + h * direction, 0.3)[0], objective(problem, w - h * direction, 0.3)[0]
        np.testing.assert_allclose((up - down) / (2 * h), (gradient * direction).sum(axis=(1, 2)), rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_objective_is_the_formula(sigmoid):
    problem = stack(sigmoid=sigmoid)
    w = np.random.default_rng(1).normal(size=(2, 3, problem.scores.shape[1]))
    for k in range(2):
        z = problem.scores.astype(float) @ w[k].T
        if sigmoid:
            loss = np.where(problem.targets, np.log1p(np.exp(-z)), np.log1p(np.exp(z))).sum(axis=1)
        else:
            loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), problem.targets]
        expected = (problem.weights[k, 0] * loss).sum() + 0.3 / 2 * (w[k, :, :-1] ** 2).sum()
        assert objective(problem, w, 0.3)[0][k] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("sigmoid", "C"), [(False, 2), (False, 4), (True, 3)])
@pytest.mark.parametrize("l2", [1.0, 0.01, 0.0003])
def test_same_optimum_as_scikit_learn(sigmoid, C, l2):
    from sklearn.linear_model import LogisticRegression

    problem = stack(N=150, D=20, C=C, K=1, sigmoid=sigmoid)
    p = problem.scores[:, :-1].astype(np.float64)
    m = problem.weights[0, 0].astype(np.float64) * 150
    w, passes = minimise(problem, np.zeros((1, C, p.shape[1] + 1)), l2, 1e-7)
    assert passes < 100
    ours = objective(problem, w, l2)[0][0]
    # one column for two classes carries twice what each of ours does: half the penalty
    factor = 2 if C == 2 and not sigmoid else 1
    theirs = np.zeros_like(w)
    for c in range(C) if sigmoid else [None]:
        y = problem.targets if c is None else problem.targets[:, c]
        solver = LogisticRegression(C=factor / (l2 * 150), tol=1e-10, max_iter=10_000).fit(p, y, sample_weight=m)
        if c is not None:
            theirs[0, c] = np.append(solver.coef_, solver.intercept_)
        elif factor == 2:
            half = np.append(solver.coef_, solver.intercept_) / 2
            theirs[0] = [-half, half]
        else:
            theirs[0] = np.column_stack([solver.coef_, solver.intercept_])
    assert ours == pytest.approx(objective(problem, theirs, l2)[0][0], rel=1e-5)
    z = [problem.scores @ v[0].T for v in (w, theirs)]
    assert ((z[0] > 0) == (z[1] > 0)).all() if sigmoid else (z[0].argmax(1) == z[1].argmax(1)).all()


def test_models_do_not_disturb_each_other():
    problem = stack(K=3)
    start = np.zeros((3, 3, problem.scores.shape[1]))
    together, _ = minimise(problem, start, 0.05, 1e-9)
    for k in range(3):
        alone, _ = minimise(problem.only(np.array([k])), start[:1], 0.05, 1e-9)
        np.testing.assert_allclose(together[k], alone[0], atol=1e-4)


def test_the_optimum_does_not_depend_on_the_start():
    problem = stack(K=1, sigmoid=False)
    rng = np.random.default_rng(3)
    shape = (1, 3, problem.scores.shape[1])
    ends = [minimise(problem, start, 0.02, 1e-9)[0] for start in (np.zeros(shape), 5 * rng.normal(size=shape))]
    z = [problem.scores @ w[0].T for w in ends]
    np.testing.assert_allclose(*(a - a.mean(axis=1, keepdims=True) for a in z), atol=2e-3)


def test_curvature_is_the_mean_hessian_in_the_logits():
    problem = stack(K=1)
    w = np.random.default_rng(1).normal(size=(1, 3, problem.scores.shape[1])) / 5
    values, vectors = curvature(problem, w)
    z = problem.scores @ w[0].T
    q = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    mean = sum(m * (np.diag(a) - np.outer(a, a)) for m, a in zip(problem.weights[0, 0], q, strict=True))
    np.testing.assert_allclose(vectors[0] * values[0] @ vectors[0].T, mean, atol=1e-3)
