"""States of texts on disk: ragged, resumable, in three sizes."""

import numpy as np
import pytest

from topwork.features import text_boundary
from topwork.modalities.text import Tokens

D = 6


@pytest.fixture
def tokens():
    lengths = np.random.default_rng(0).integers(1, 30, 300)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(np.arange(ends[-1], dtype=np.int32), None, ends, np.arange(300), np.zeros(300, bool))


def states(ids, weights):
    """Each token's own numbers, and rubbish where it is padded."""
    x = np.sin(ids[:, :, None] * np.arange(1, D + 1)).astype(np.float32)
    return np.where(weights[:, :, None] > 0, x, 7e4)


@pytest.mark.parametrize(("dtype", "gap"), [("float32", 0), ("float16", 1e-3), ("uint8", 5e-3)])
def test_what_comes_back_is_what_was_made(tokens, dtype, gap):
    stored = text_boundary.store("k", tokens, D, states, dtype=dtype)
    windows = np.array([5, 299, 5, 0])
    x, ids, weights = stored(windows)
    assert np.array_equal(ids, tokens.padded(windows)[0])
    assert np.abs(x - np.where(weights[:, :, None] > 0, states(ids, weights), 0)).max() <= gap
    again = text_boundary.store("k", tokens, D, None, dtype=dtype)  # nothing is made twice
    assert np.array_equal(again(windows)[0], x)


def test_a_killed_one_goes_on_where_it_was(tokens, monkeypatch):
    monkeypatch.setattr(text_boundary, "NOTED", 2)
    monkeypatch.setattr(text_boundary, "AT_ONCE", 200)
    made = []

    def make(ids, weights):
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(len(ids))
        return states(ids, weights)

    with pytest.raises(KeyboardInterrupt):
        text_boundary.store("k", tokens, D, make)
    made.clear()
    calls = []
    stored = text_boundary.store("k", tokens, D, lambda *x: calls.append(0) or states(*x))
    whole = text_boundary.store("other", tokens, D, lambda *x: made.append(0) or states(*x)) if made else None
    assert whole is None
    assert np.allclose(stored.values[:], states(tokens.ids[None], np.ones((1, len(tokens.ids))))[0], atol=1e-3)
    from topwork.modalities.text import buckets

    assert len(calls) == len(list(buckets(tokens.lengths, 200))) - 6  # the last note was after 6


def test_too_large_is_said(tokens, monkeypatch):
    assert text_boundary.fits(tokens, D, "float16").value == 1
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.00001")
    choice = text_boundary.fits(tokens, D, "float16")
    assert choice.value == 0
    assert "TOPWORK_CACHE_GB" in choice.reason
