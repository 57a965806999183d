import numpy as np
import pytest

import topwork as tw
from topwork import plugins
from topwork.adaptation.reduction import ROOM
from topwork.errors import BadData, BadSetting, UnknownName
from topwork.nn.heads import logits


def features(N=80, D=30, seed=0):
    draw = np.random.default_rng(seed)
    y = np.arange(N) % 3
    x = draw.normal(size=(N, D)) * np.linspace(3, 0.1, D) + 2 * draw.normal(size=(3, D))[y] + 5
    return x.astype(np.float32), y.astype(np.int32), draw.permutation(N) % 4


@pytest.mark.parametrize("N", [20, 80])
def test_pca_keeps_what_singular_values_keep(N):
    x, _, _ = features(N)
    linear = plugins.make(ROOM, "pca(5)").fit(x)
    left, values, _ = np.linalg.svd((x - x.mean(0)).astype(np.float64), full_matrices=False)
    assert np.allclose(np.abs(linear(x)), np.abs(left * values)[:, :5], atol=1e-3)
    assert f"{(values[:5] ** 2).sum() / (values**2).sum():.0%}" in linear.said
    assert np.allclose(linear.axes.T @ linear.axes, np.eye(5), atol=1e-8)


def test_whitening_makes_all_vary_alike():
    x, _, _ = features(300)
    z = plugins.make(ROOM, "whitening(10, shrink=0)").fit(x)(x)
    assert np.allclose(np.cov(z.T, bias=True), np.eye(10), atol=1e-3)
    shrunk = plugins.make(ROOM, "whitening(10, shrink=1.0)").fit(x)(x).var(0)
    assert shrunk[0] > shrunk[-1]
    assert shrunk.max() < 1


def test_random_projection_keeps_distances():
    x = np.random.default_rng(1).normal(size=(40, 2000)).astype(np.float32)
    z = plugins.make(ROOM, "random_projection(800)").fit(x)(x)
    i, j = np.triu_indices(40, 1)
    ratio = ((z[i] - z[j]) ** 2).sum(1) / ((x[i] - x[j]) ** 2).sum(1)
    assert abs(ratio.mean() - 1) < 0.02
    assert ratio.std() < 2.0 * (2 / 800) ** 0.5


@pytest.mark.parametrize("by", ["pca(4)", "whitening(4)", "random_projection(12)"])
def test_the_head_that_ships_is_the_one_behind_the_map(by):
    x, y, folds = features()
    linear = plugins.make(ROOM, by).fit(x)
    behind = plugins.make("adaptation.probe", "logistic(l2=0.1)").solve(linear(x), y, folds, 3)
    whole = plugins.make("adaptation.probe", f"reduced(by='{by}', probe='logistic(l2=0.1)')").solve(x, y, folds, 3)
    assert whole.head.arrays["weight"].shape == (30, 3)
    assert np.allclose(logits(whole.head, x), logits(behind.head, linear(x)), atol=1e-3)
    assert np.array_equal(whole.held_out, behind.held_out)
    assert np.linalg.matrix_rank(whole.head.arrays["weight"]) <= 4 or by.startswith("random")


def test_what_cannot_be_reduced_says_so():
    x, y, folds = features()
    x[3, 2] = np.nan
    with pytest.raises(BadData, match="Row 3"):
        plugins.make(ROOM, "pca").fit(x)
    x, y, folds = features()
    with pytest.raises(BadSetting, match="no weights"):
        plugins.make("adaptation.probe", "reduced(probe='knn(k=5)')").solve(x, y, folds, 3)
    with pytest.raises(BadSetting, match="1 or more"):
        plugins.make(ROOM, "pca(0)").fit(x)
    with pytest.raises(UnknownName, match="whitening"):
        tw.fit("nowhere", reduce="umap(2)")


def test_a_fit_ships_a_reduced_head_as_a_plain_one(photos, tmp_path):
    model = tw.fit(photos, steps="majority,probe", reduce="pca(8)", out=tmp_path / "m")
    (choice,) = [one for one in model.report["choices"] if one["name"] == "reduce"]
    assert choice["value"] == "pca(8)"
    assert "reduced(by='pca(8)'" in model.report["head"]["method"]
    assert model.predict(str(photos / "moss" / "03.png")).label == "moss"
    assert model.report["proof"]["agreement"] == 1
