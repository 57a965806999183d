"""Systems contract, and walks in lockstep are the plain chaos game."""

import numpy as np
import pytest

from topwork.nn import ifs


def rng(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def drawn(count, maps=5):
    return np.stack([ifs.sample(rng(i), maps) for i in range(count)])


@pytest.mark.parametrize("maps", [2, 3, 8, 16])
def test_singular_values_keep_to_their_bounds(maps):
    for seed in range(50):
        values = ifs.singular_values(rng(seed), maps)
        assert values.shape == (maps, 2)
        assert (values[:, 1] >= 0).all()
        assert (values[:, 1] <= values[:, 0] + 1e-12).all()
        assert (values[:, 0] <= ifs.LONGEST).all()
        alpha = (values @ [1, 2]).sum()  # the band of Anderson & Farrell
        assert (5 + maps) / 2 <= alpha <= (6 + maps) / 2


def test_complex_coefficients_are_the_matrices():
    systems = drawn(20)
    matrices = ifs.real(systems)
    assert np.allclose(ifs.from_real(matrices), systems)
    assert np.allclose(ifs.stretch(systems), np.linalg.svd(matrices[..., :2], compute_uv=False))
    a, b, c = systems[3, 2]
    z = 0.3 - 0.7j
    mapped = matrices[3, 2] @ [z.real, z.imag, 1]
    assert a * z + np.conj(b * z) + c == pytest.approx(complex(*mapped))


def test_both_orientations_occur():
    assert 0.3 < (np.linalg.det(ifs.real(drawn(100))[..., :2]) > 0).mean() < 0.7


def test_contracted_shrinks_what_stretches_and_nothing_else():
    systems = drawn(10)
    assert np.allclose(ifs.contracted(systems), systems)
    wide = systems * 3
    calm = ifs.contracted(wide)
    assert (ifs.stretch(calm)[..., 0] <= ifs.LONGEST + 1e-12).all()
    assert np.allclose(calm[..., 2], wide[..., 2])


def test_fixed_points_stay():
    systems = drawn(10)
    a, b, c = np.moveaxis(systems, -1, 0)
    z = ifs.fixed_points(systems)
    assert np.allclose(a * z + np.conj(b * z) + c, z)


def test_lots_are_in_proportion_to_the_determinants():
    systems = drawn(4)
    shares = np.stack([np.bincount(row, minlength=5) for row in ifs.lots(systems, np.full(4, 5))]) / 256
    area = np.abs(np.linalg.det(ifs.real(systems)[..., :2])) + 1e-3
    assert np.abs(shares - area / area.sum(1, keepdims=True)).max() <= 1 / 256
    few = ifs.lots(systems, np.array([5, 2, 3, 1]))
    assert few.max(1).tolist() == [4, 1, 2, 0]


def test_a_walk_is_the_chaos_game():
    """The same bytes, one point at a time, with matrices."""
    systems = drawn(3, maps=4)
    draws = rng().integers(0, 256, (ifs.BURN + 30, 3, 5), np.uint8)
    points, led = ifs.walk(systems, np.full(3, 4), draws)
    assert points.shape == led.shape == (30, 3, 5)
    which, matrices = ifs.lots(systems, np.full(3, 4)), ifs.real(systems)
    for f in range(3):
        for p in range(5):
            first = matrices[f, which[f, draws[0, f, p]]]
            point = np.linalg.solve(np.eye(2) - first[:, :2], first[:, 2])
            for t in range(1, ifs.BURN + 30):
                k = which[f, draws[t, f, p]]
                point = matrices[f, k, :, :2] @ point + matrices[f, k, :, 2]
                if t >= ifs.BURN:
                    assert led[t - ifs.BURN, f, p] == k
                    assert points[t - ifs.BURN, f, p] == pytest.approx(complex(*point), abs=1e-4)


def test_sierpinski():
    """Three maps that halve: after the burn-in no point lies in the removed middle triangle."""
    corners = np.array([0, 1, 0.5 + 1j * np.sqrt(3) / 2])
    system = np.stack([np.full(3, 0.5), np.zeros(3), corners / 2], 1)[None].astype(complex)
    points, _ = ifs.walk(system, np.array([3]), rng().integers(0, 256, (ifs.BURN + 100, 1, 50), np.uint8))
    z = points.ravel().astype(complex)
    weights = np.linalg.solve(np.stack([corners.real, corners.imag, np.ones(3)]), [z.real, z.imag, np.ones(len(z))])
    assert weights.min() > -1e-6  # inside the triangle
    assert weights.max(0).min() > 0.5 - 1e-6  # nearer to one corner than to the middles of the sides
