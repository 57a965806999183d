"""The label curve: its ridge, its power law, its forecast, its words."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from topwork.evaluation.checks import Context
from topwork.evaluation.checks.label_curve import LabelCurve, stratified_order
from topwork.evaluation.power_law import power_law
from topwork.evaluation.quick_ridge import _ridge, compress, ridges
from topwork.types import Predictions

RNG = np.random.default_rng(0)
SIZES = np.array([50, 80, 128, 205, 328, 524, 840])


def context(N=400, D=40, C=3, distance=2.5, **more):
    centres = RNG.normal(size=(C, D)) * distance / D**0.5
    y = RNG.permutation(np.arange(N) % C)
    x = (centres[y] + RNG.normal(size=(N, D))).astype(np.float32)
    seen = Predictions(np.full((N, C), 1 / C, np.float32), y, tuple("abc"))
    return Context(seen, train_x=x, train_targets=y, train_folds=np.arange(N) % 5, **more)


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 1.2, 0.5), (0.0, 2.0, 0.7), (0.1, 0.0, 1.0)])
def test_power_law_is_found_again(a, b, c):
    errors = (a + b * SIZES**-c)[None]
    A, B, power = power_law(SIZES, errors)[0]
    np.testing.assert_allclose(A + B * 2000.0**-power, a + b * 2000.0**-c, atol=1e-9)
    rising = power_law(SIZES, errors[:, ::-1])[0]
    assert rising[1] == 0  # more labels never make it worse
    drawn = power_law(SIZES, np.repeat(errors, 200, 0), noise=1e-4)
    assert np.unique(drawn[:, 2]).size > 5


def test_power_law_agrees_with_scipy():
    from scipy.optimize import curve_fit

    errors = 0.05 + 1.5 * SIZES**-0.6 + RNG.normal(0, 0.003, 7)
    fit = lambda n, a, b, c: a + b * n**-c  # noqa: E731
    best, _ = curve_fit(fit, SIZES, errors, (0.05, 1, 0.5), SIZES**-0.25, bounds=((0, 0, 0.1), (1, 9, 1.5)))
    ours = power_law(SIZES, errors[None])[0]
    loss = lambda p: (SIZES**0.5 * (fit(SIZES, *p) - errors) ** 2).sum()  # noqa: E731
    assert loss(best) <= loss(ours) < 1.05 * loss(best)


def test_carried_sums_are_the_plain_ridge():
    z, y = RNG.normal(size=(60, 8)), RNG.integers(0, 3, 60)
    rows, asked = RNG.permutation(60), RNG.normal(size=(30, 8))
    for n, said in zip((20, 45), ridges(z, y, rows, np.array([20, 45]), asked), strict=True):
        part, aim = z[rows[:n]], np.eye(3)[y[rows[:n]]]
        centred, goal = part - part.mean(0), aim - aim.mean(0)
        weight = _ridge(centred.T @ centred, centred.T @ goal, (goal**2).sum(0), n)
        residual = centred.T @ goal - centred.T @ centred @ weight  # = lambda W
        lam = float((residual * weight).sum() / (weight**2).sum())
        plain = Ridge(alpha=lam).fit(part, aim)
        np.testing.assert_allclose(plain.coef_.T, weight, atol=1e-8)
        np.testing.assert_array_equal(said, plain.predict(asked).argmax(1))


def test_compress_keeps_the_directions_that_matter():
    x = RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 60)) + 0.01 * RNG.normal(size=(200, 60))
    z = compress(x.astype(np.float32), 8)
    assert z.shape == (200, 8)
    scaled = (x - x.mean(0)) / x.std(0)
    left = np.linalg.svd(scaled, full_matrices=False)[0][:, :5]
    assert np.linalg.norm(left - z @ np.linalg.lstsq(z, left, rcond=None)[0]) < 0.01


def test_every_beginning_is_stratified():
    y = np.repeat([0, 1, 2], [80, 15, 5])
    order = stratified_order(y, np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for n in (20, 40, 60):
        np.testing.assert_allclose(np.bincount(y[order[:n]], minlength=3), n * np.array([0.8, 0.15, 0.05]), atol=1)


def test_curve_of_real_shape():
    curve = dict(LabelCurve().run(context()))["label_curve"]
    labels = [p["labels"] for p in curve["points"]]
    assert labels[-1] == 320
    assert labels == sorted(labels)
    assert curve["points"][-1]["accuracy"] > curve["points"][0]["accuracy"]
    twice = curve["twice"]
    assert twice["labels"] == 800
    assert twice["low"] <= twice["accuracy"] <= twice["high"]
    assert curve["text"].startswith("Twice the 400 labels would bring about +")
    assert "quick ridge" in curve["text"]


def test_curve_is_seeded():
    asked = context()
    assert dict(LabelCurve().run(asked)) == dict(LabelCurve().run(asked))


def test_flat_curve_says_so():
    curve = dict(LabelCurve().run(context(distance=40.0)))["label_curve"]
    assert curve["text"].startswith("The curve is flat")


def test_too_few_labels_say_so():
    curve = dict(LabelCurve().run(context(N=12)))["label_curve"]
    assert curve["points"] == []
    assert curve["fit"] is curve["twice"] is None
    assert "too few" in curve["text"]


def test_own_solver_and_several_labels():
    from sklearn.neighbors import NearestCentroid

    curve = dict(LabelCurve(repeats=1).run(context(solve=lambda x, y: NearestCentroid().fit(x, y).predict)))[
        "label_curve"
    ]
    assert curve["points"][-1]["accuracy"] > 0.7
    assert "quick ridge" not in curve["text"]
    x = RNG.normal(size=(200, 10)).astype(np.float32)
    y = x[:, :3] + 0.3 * RNG.normal(size=(200, 3)) > 0
    seen = Predictions(np.full((200, 3), 0.5, np.float32), y, tuple("abc"), multilabel=True)
    several = Context(seen, train_x=x, train_targets=y, train_folds=np.arange(200) % 5)
    assert dict(LabelCurve().run(several))["label_curve"]["points"][-1]["accuracy"] > 0.5


def test_axes_of_sparse_features_are_those_of_dense_ones():
    from scipy.sparse import csr_array

    from topwork.evaluation.quick_ridge import compress

    draw = np.random.default_rng(4)
    low = draw.normal(0, 1, (60, 3)) @ draw.normal(0, 1, (3, 40))  # all its variance on three axes
    x = (low * (np.abs(low) > 1)).astype(np.float32)
    whole = x - x.mean(0)
    found = compress(csr_array(x), 40)
    scale = np.sqrt((whole**2).sum() / found.size)
    np.testing.assert_allclose(found @ found.T * scale**2, whole @ whole.T, atol=1e-3)  # the same distances
    few = compress(csr_array(x), 3)
    best = np.linalg.svd(whole)[1][:3]
    kept = np.linalg.norm(np.linalg.lstsq(few, whole, rcond=None)[0].T @ few.T)
    assert kept > 0.97 * np.linalg.norm(best)
