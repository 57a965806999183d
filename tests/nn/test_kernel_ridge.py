import numpy as np
import pytest

from topwork.nn import kernel_ridge


def drawn(seed=0, items=60, classes=3):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, items)
    return draw.normal(0, 1, (items, 7)) + 1.5 * np.eye(classes, 7)[y], y


@pytest.mark.parametrize("several", [False, True])
def test_answers_are_those_of_fits_without_the_group(several, monkeypatch):
    """Against solving anew without each group, at the same strength."""
    x, y = drawn()
    together = np.arange(60)
    together[[3, 9, 40]], together[[5, 6]] = 3, 5
    targets = np.eye(3, dtype=bool)[y] | (np.arange(60) % 7 == 0)[:, None] if several else y
    signs = 2.0 * (targets if several else np.eye(3)[y]) - 1
    monkeypatch.setattr(kernel_ridge, "STRENGTHS", (0.3,))
    found = kernel_ridge.left_out(x, targets, together, 3)
    K = kernel_ridge.gaussian(x)
    for one in np.unique(together):
        out = together == one
        c = np.linalg.solve(K[np.ix_(~out, ~out)] + 0.3 * np.eye(int((~out).sum())), signs[~out])
        assert np.allclose(found[out], K[np.ix_(out, ~out)] @ c, atol=1e-8)


def test_the_strength_with_the_smallest_error_is_taken(monkeypatch):
    x, y = drawn(1)
    signs = 2 * np.eye(3)[y] - 1
    chosen = kernel_ridge.left_out(x, y, np.arange(60), 3)
    errors = []
    for l2 in kernel_ridge.STRENGTHS:
        monkeypatch.setattr(kernel_ridge, "STRENGTHS", (l2,))
        errors.append(((kernel_ridge.left_out(x, y, np.arange(60), 3) - signs) ** 2).mean())
    assert ((chosen - signs) ** 2).mean() == pytest.approx(min(errors))
    assert len(set(np.round(errors, 9))) == len(errors)


def test_many_items_are_divided_and_groups_stay_whole(monkeypatch):
    x, y = drawn(2, 300)
    together = np.arange(300) // 3
    monkeypatch.setattr(kernel_ridge, "PART", 70)
    parts = kernel_ridge._parts(together, 0)
    assert sorted(np.concatenate(parts)) == list(range(300))
    assert len(parts) == 5
    assert all(len(rows) <= 72 for rows in parts)
    assert all(len(np.intersect1d(together[a], together[b])) == 0 for a in parts for b in parts if a is not b)
    right = (kernel_ridge.left_out(x, y, together, 3).argmax(1) == y).mean()
    assert right > 0.6


def test_constant_features_and_equal_items_do_no_harm():
    x, y = drawn(3)
    wide = np.concatenate([x, np.ones((60, 2))], 1)
    assert np.allclose(kernel_ridge.left_out(wide, y, np.arange(60), 3), kernel_ridge.left_out(x, y, np.arange(60), 3))
    assert np.isfinite(kernel_ridge.left_out(np.ones((20, 4)), np.arange(20) % 2, np.arange(20), 2)).all()


def test_bent_classes_are_known_where_a_line_knows_nothing():
    draw = np.random.default_rng(4)
    x = draw.normal(0, 1, (300, 5))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    kernel = (kernel_ridge.left_out(x, y, np.arange(300), 2).argmax(1) == y).mean()
    z = np.c_[x, np.ones(300)]
    hat = z @ np.linalg.solve(z.T @ z + np.eye(6), z.T)
    line = ((hat @ (2 * y - 1) > 0) == y).mean()
    assert kernel > 0.8 > 0.62 > line
