import numpy as np
import pytest

from topwork.data.outliers import unit
from topwork.data.projection import _here, pca, project
from topwork.errors import BadSetting, MissingExtra


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (5, 1)])
def test_pca_agrees_with_singular_values(shape):
    z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places, shown = pca(z)
    centred = z - z.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * values)[:, :2]
    assert np.allclose(np.abs(places[:, : scores.shape[1]]), np.abs(scores), atol=1e-3)
    assert shown == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), rel=1e-3)


def test_groups_lie_apart_and_the_map_is_the_same_again():
    draw = np.random.default_rng(1)
    x = np.concatenate([draw.normal(0, 1, (30, 20)) + 6 * np.eye(20)[c] for c in range(2)])
    made = project(x, "pca")
    assert made.places.min() >= 0
    assert made.places.max() <= 1
    first, second = made.places[:30, 0], made.places[30:, 0]
    assert max(first.min(), second.min()) > min(first.max(), second.max())
    assert np.array_equal(made.places, project(x, "pca").places)
    assert np.isfinite(unit(np.zeros((3, 4)))).all()


def test_what_is_not_here_says_so():
    with pytest.raises(BadSetting, match="pca, umap"):
        project(np.zeros((5, 3)), "tsne")
    if not _here():
        with pytest.raises(MissingExtra, match="umap-learn"):
            project(np.zeros((5, 3)), "umap")
