"""The search for near neighbours, against comparing all with all."""

import numpy as np
import pytest

from topwork.data.neighbours import ALL, NAMED, cosines, near_neighbours, plan


def drawn(N, D=32, clusters=0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, D)).astype(np.float32)
    if clusters:
        x += 2 * rng.standard_normal((clusters, D)).astype(np.float32)[rng.integers(0, clusters, N)]
    copies = N // 10
    x[N - copies :] = x[:copies] + 0.25 * rng.standard_normal((copies, D)).astype(np.float32) * np.linalg.norm(
        x[:copies], axis=1, keepdims=True
    ) / np.sqrt(D)
    return x


def plain(x, least):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    i, j = np.nonzero(np.triu(unit @ unit.T >= least, 1))
    return set(zip(i.tolist(), j.tolist(), strict=True))


def test_few_rows_are_all_compared():
    x = drawn(600)
    pairs, near = near_neighbours(x, 0.9)
    assert set(map(tuple, pairs.tolist())) == plain(x, 0.9)
    assert len(pairs) > 50
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(near, (unit @ unit.T)[pairs[:, 0], pairs[:, 1]], atol=1e-5)


@pytest.mark.parametrize(("clusters", "least"), [(0, 0.85), (0, 0.92), (12, 0.92)])
def test_many_rows_with_trees(clusters, least):
    x = drawn(ALL + 1500, clusters=clusters)
    pairs, near = near_neighbours(x, least, seed=3)
    truth, found = plain(x, least), set(map(tuple, pairs.tolist()))
    assert found <= truth  # every pair is measured
    assert near.min() >= least
    planted = {(i, j) for i, j in truth if j - i == len(x) - len(x) // 10}
    assert len(found & planted) >= 0.97 * len(planted)
    if not clusters:
        assert len(found & truth) >= 0.97 * len(truth)
    again = near_neighbours(x, least, seed=3)
    np.testing.assert_array_equal(again[0], pairs)
    np.testing.assert_array_equal(again[1], near)


def test_rows_that_are_all_alike_cost_no_square():
    x = np.repeat(drawn(5, 8), 1200, axis=0)  # 6,000 rows of 5 kinds
    pairs, near = near_neighbours(x, 0.99)
    assert len(pairs) < 6000 * NAMED * 2 * plan(6000, 0.99)[0]
    assert set((pairs // 1200).T[0]) == set(range(5))
    assert (pairs[:, 0] // 1200 == pairs[:, 1] // 1200).all()
    assert near.min() > 0.999


def test_nothing_zeros_and_one():
    assert near_neighbours(np.zeros((0, 4), np.float32), 0.9)[0].shape == (0, 2)
    assert len(near_neighbours(np.zeros((9, 4), np.float32), -1.0)[0]) == 0
    assert len(near_neighbours(np.ones((1, 4), np.float32), 0.5)[0]) == 0
    assert near_neighbours(np.ones((2, 4), np.float32), 0.5)[0].tolist() == [[0, 1]]


def test_plan_finds_what_it_promises():
    """P(found) of a pair at the threshold, and fewer trees for what is nearer."""
    for N in (10_000, 1_000_000):
        for least in (0.82, 0.9, 0.97):
            trees, depth = plan(N, least)
            together = (1 - np.arccos(least) / np.pi) ** depth
            assert 1 - (1 - together) ** trees >= 0.995
        assert plan(N, 0.8)[0] > plan(N, 0.9)[0] > plan(N, 0.97)[0]
    assert plan(10_000, 1.0)[0] == 1


def test_cosines():
    unit = np.eye(3, dtype=np.float32)
    assert cosines(unit, np.array([[0, 1], [2, 2]])).tolist() == [0.0, 1.0]
