"""Activations on disk: what goes in comes out, whatever was killed in between."""

import numpy as np
import pytest

from topwork.features import boundary

N, SHAPES = 40, ((3, 4, 4), (5,))
TRUTH = np.random.default_rng(0).normal(size=(4, N, 53)).astype(np.float32)  # three views and the plain one


def make(rows, view):
    flat = TRUTH[view][rows]
    return flat[:, :48].reshape(-1, 3, 4, 4), flat[:, 48:]


def stored(dtype="float32", views=3, by=make):
    return boundary.store(f"key-{dtype}", N, SHAPES, views, by, dtype=dtype, threads=2)


@pytest.mark.parametrize(("dtype", "gap"), [("float32", 0.0), ("float16", 2e-3), ("uint8", 2e-2)])
def test_what_goes_in_comes_out(dtype, gap):
    found = stored(dtype)
    rows, visits = np.array([7, 0, 39, 7]), np.array([0, 1, 5, 2])
    assert found.views == 3
    for b, (row, visit) in enumerate(zip(rows, visits, strict=True)):
        for out, true in zip(found(rows, visits), make(np.array([row]), visit % 3), strict=True):
            assert out.dtype == np.float32
            assert np.abs(out[b] - true[0]).max() <= gap
    for out, true in zip(found.plain(rows), make(rows, -1), strict=True):
        assert np.abs(out - true).max() <= gap


def test_uint8_is_the_formula():
    x = TRUTH[0][:, :48]
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    expected = np.rint((x - low) / ((high - low) / 255)) * ((high - low) / 255) + low
    found = stored("uint8")(np.arange(N), np.zeros(N, np.int64))[0].reshape(N, 48)
    assert np.abs(found - expected).max() < 1e-5


def test_goes_on_where_it_was_killed(monkeypatch):
    monkeypatch.setattr(boundary, "CHUNK", 16)
    asked = []

    def dying(rows, view):
        asked.append((view, rows[0]))
        if view == 1 and rows[0] >= 32:
            raise KeyboardInterrupt
        return make(rows, view)

    with pytest.raises(KeyboardInterrupt):
        stored(by=dying)
    again = []
    found = stored(by=lambda rows, view: again.append((view, rows[0])) or make(rows, view))
    assert {view for view, _ in again} == {1, 2, -1}  # the first view was whole
    assert (1, 0) not in again  # and so were the first rows of the second one
    assert np.array_equal(found(np.arange(N), np.ones(N, np.int64))[1], make(np.arange(N), 1)[1])


def test_nothing_is_made_twice():
    stored()
    assert stored(by=None).views == 3


def test_views_fit_into_the_disk_budget(monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE_GB", "1")
    each = 1000 * 25_000 * 2  # 50 MB
    choice = boundary.choose_views(1000, ((25_000,),), "float16", 20)
    assert choice.value == boundary.MOST_VIEWS
    assert boundary.choose_views(1000, ((25_000,),), "float16", 3).value == 3
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.3")
    assert boundary.choose_views(1000, ((25_000,),), "float16", 20).value == 0.15e9 // each - 1
    assert boundary.choose_views(1000, ((25_000_000,),), "float16", 20).value == 0


def test_what_was_not_used_for_longest_leaves(monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.001")
    size = 30_000
    for key in "abc":
        boundary.store(key, 10, ((size,),), 0, lambda rows, view: [np.ones((len(rows), size), np.float32)])
    left = sorted(f.name for f in (boundary.settings.cache_folder() / "boundary").iterdir())
    assert left == ["c"]
