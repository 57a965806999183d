import numpy as np
import pytest

from topwork.data.outliers import ALARMS, length_one, neighbour_distances, outliers


@pytest.mark.parametrize("shape", [(1500, 16), (3000, 64)])
def test_ordinary_items_raise_about_as_many_alarms_as_stated(shape):
    draw = np.random.default_rng(0)
    centres = draw.normal(0, 2, (6, shape[1]))
    alarms = [outliers(centres[draw.integers(0, 6, shape[0])] + draw.normal(0, 1, shape)).far.mean() for _ in range(4)]
    assert np.mean(alarms) < 5 * ALARMS


def test_planted_ones_are_found_and_come_first():
    draw = np.random.default_rng(1)
    x = np.concatenate([draw.normal(3, 1, (400, 32)), draw.normal(0, 3, (8, 32))]).astype(np.float32)
    found = outliers(x)
    assert found.far[400:].sum() >= 7
    assert found.far[:400].sum() <= 4
    assert (np.argsort(-found.distances)[:6] >= 400).all()


def test_a_copy_is_no_company():
    draw = np.random.default_rng(2)
    x = draw.normal(0, 0.2, (200, 8)) + np.eye(8)[0]
    x[:15] = -np.eye(8)[0] + draw.normal(0, 0.001, (15, 8))  # fifteen copies of one strange picture
    twins = np.arange(200)
    twins[:15] = 0
    assert not outliers(x).far[:15].any()
    assert outliers(x, twins).far[:15].all()


def test_distances_against_a_plain_loop():
    x = np.random.default_rng(3).normal(size=(60, 5))
    z = length_one(x)
    plain = [np.sort([1 - z[i] @ z[j] for j in range(60) if j != i])[:4].mean() for i in range(60)]
    assert np.allclose(neighbour_distances(z, np.arange(60), 4), plain, atol=1e-6)


def test_few_items_have_no_outliers():
    assert outliers(np.zeros((10, 3))) is None
