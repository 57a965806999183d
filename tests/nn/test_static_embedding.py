"""Static embeddings: each formula against a plain second computation."""

from __future__ import annotations

import numpy as np
import pytest

from topwork.nn import static_embedding
from topwork.nn.static_embedding import Reading, pack, pool, principal, read, regress, shares, sif, unit_length, unpack


@pytest.fixture
def texts():
    """40 texts of 0 to 6 pieces out of 12, of which the last never occurs."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 7, 40)
    lengths[[0, -1]] = 0
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return draw.integers(0, 11, ends[-1]).astype(np.int32), ends


def test_pool_is_the_mean_and_leaves_its_arguments_alone(texts):
    numbers, ends = texts
    before = numbers.copy(), ends.copy()
    rows = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
    x = pool(rows, numbers, ends)
    matrix = shares(numbers, ends, 12)
    for n in range(40):
        mine = [rows[i] for i in numbers[ends[n] : ends[n + 1]]]
        assert np.allclose(x[n], np.mean(mine, axis=0) if mine else 0, atol=1e-6)
    assert np.allclose(matrix @ rows, x, atol=1e-6)
    assert np.array_equal(before[0], numbers)
    assert np.array_equal(before[1], ends)


def test_unit_length():
    x = unit_length(np.array([[3, 4], [0, 0]], np.float32))
    assert np.allclose(x, [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize("gathered", [1, 7, 10_000])
def test_reading_against_the_formula(texts, gathered, monkeypatch):
    monkeypatch.setattr(static_embedding, "GATHERED", gathered)
    numbers, ends = texts
    rows = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
    x = read(rows, numbers, ends, Reading(axes=3, decay=0.6, early=0.5, highest=0.25))
    assert (x.dtype, x.shape) == (np.float32, (40, 10))
    for n in range(40):
        mine = rows[numbers[ends[n] : ends[n + 1]]]
        if not len(mine):
            assert not x[n].any()
            continue
        begins = sum(0.6**t * row[:3] for t, row in enumerate(mine))
        parts = [(1, mine.mean(0)), (0.5, begins), (0.25, mine[:, :3].max(0))]
        expected = np.concatenate([size * part / np.linalg.norm(part) for size, part in parts])
        assert np.allclose(x[n], expected, atol=1e-5)
    assert np.array_equal(read(rows, numbers, ends, Reading()), unit_length(pool(rows, numbers, ends)))


def test_principal_axes_against_the_singular_vectors():
    v = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * np.arange(1, 7, dtype=np.float32) + 3
    axes, mean = principal(v, 3)
    expected = np.linalg.svd(v - v.mean(0), full_matrices=False)[2][:3].T
    assert np.allclose(mean, v.mean(0), atol=1e-5)
    assert np.allclose(np.abs((axes * expected).sum(0)), 1, atol=1e-4)
    assert np.array_equal(principal(v, 3)[0], axes)


def test_sif_by_hand():
    assert np.allclose(sif(np.array([0, 1, 3]), 0.25), [1, 0.5, 0.25])


def test_regress_is_the_ridge_solution(texts):
    numbers, ends = texts
    draw = np.random.default_rng(2)
    f, prior = (draw.normal(size=(n, 3)).astype(np.float32) for n in (40, 12))
    A = shares(numbers, ends, 12).toarray().astype(np.float64)
    expected = np.linalg.solve(A.T @ A + 0.5 * np.eye(12), A.T @ f + 0.5 * prior)
    left = []
    found = regress(shares(numbers, ends, 12), f, prior, 0.5, 60, lambda step, now: left.append(now))
    assert np.abs(found - expected).max() < 1e-4
    assert np.array_equal(found[11], prior[11])
    assert len(left) < 60
    few = regress(shares(numbers, ends, 12), f, prior, 0.5, 3)
    loss = lambda e: np.square(A @ e - f).sum() + 0.5 * np.square(e - prior).sum()  # noqa: E731
    assert loss(expected) <= loss(found) + 1e-6 < loss(few) < loss(prior)


def test_four_bits_keep_every_axis():
    rows = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32) * 10.0 ** -np.arange(8, dtype=np.float32)
    rows[7] = 0
    kept = pack(rows)
    assert {name: (a.dtype.str[1:], a.shape) for name, a in kept.items()} == {
        "packed": ("u1", (300, 4)), "unit": ("f2", (300,)), "axis": ("f4", (8,)),
    }  # fmt: skip
    again = unpack(**kept)
    assert again.dtype == np.float32
    assert not again[7].any()
    lost = np.square(again - rows).mean(axis=0) / np.square(rows).mean(axis=0)
    assert lost.max() < 0.03  # of every axis, the one that is ten million times smaller as well
    exact = np.array([[7, -7, 3, 1], [-1, 2, 0, 5]], np.float32)
    even = unpack(**pack(exact / np.sqrt(np.square(exact).mean(axis=0)) * np.sqrt(np.square(exact).mean(axis=0))))
    assert np.abs(even - exact).max() < 1


def test_packing_twice_changes_nothing_by_hand():
    packed = np.array([[0x1F]], np.uint8)  # low half byte 15 = +7, high half byte 1 = -7
    rows = unpack(packed, np.array([0.5], np.float16), np.array([2, 4], np.float32))
    assert rows.tolist() == [[7.0, -14.0]]
