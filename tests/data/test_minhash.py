"""Near-duplicate texts: estimates fit the similarity, planted copies are found, others are not, no squares."""

from itertools import pairwise

import numpy as np
import pytest

from topwork.data import minhash
from topwork.data.duplicates import connected, in_order
from topwork.data.inspect_text import light
from topwork.data.minhash import BANDS, MINIMA, NEAR, WIDTH, near_pairs, signatures, similarity

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def sentences(count, words, seed=0, size=800):
    """Random texts of a made-up language with a few frequent words."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array(["".join(rng.choice(LETTERS, rng.integers(2, 10))) for _ in range(size)])
    share = 1 / np.arange(1, size + 1)
    drawn = rng.choice(vocabulary, (count, words), p=share / share.sum())
    return [" ".join(row) for row in drawn]


def jaccard(a, b, k=5):
    one, other = ({t[i : i + k] for i in range(len(t) - k + 1)} for t in (a, b))
    return len(one & other) / max(1, len(one | other))


def groups(texts, kinds=None):
    forms = [light(text) for text in texts]
    kinds = np.zeros(len(texts), np.uint64) if kinds is None else np.asarray(kinds, np.uint64)
    return in_order(connected(len(texts), near_pairs(forms, kinds)))


def edited(text, rng):
    """One of the small changes that make a copy."""
    words = text.split()
    at = int(rng.integers(1, len(words) - 1))
    changes = [
        text.upper() + " !!",
        text.replace(" ", "  "),
        " ".join(words[:at] + words[at + 1 :]),
        " ".join([*words[:at], words[at][:-1] + "qz", *words[at + 1 :]]),
        text + " indeed",
        "so " + text,
        " ".join([*words[:at], words[at] + ",", *words[at + 1 :]]),
    ]
    return changes[int(rng.integers(len(changes)))]


def test_similarity_is_the_definition():
    texts = sentences(40, 12)
    texts += [text[: len(text) * 3 // 4] + other[:20] for text, other in pairwise(texts)]
    pairs = np.array([(i, j) for i in range(len(texts)) for j in range(i)])
    expected = [jaccard(texts[i], texts[j]) for i, j in pairs]
    np.testing.assert_allclose(similarity(texts, pairs), expected, atol=1e-9)


def test_wide_scripts_take_three_characters():
    a, b = "距离川沙公路较近但是公交指示不对", "距离川沙公路很近但是公交指示不对"
    assert similarity([a, b], np.array([[0, 1]]))[0] == pytest.approx(jaccard(a, b, 3))


def test_minima_agree_as_often_as_the_similarity_says():
    rng = np.random.default_rng(1)
    texts = []
    for text in sentences(300, 30, seed=2):
        words = text.split()
        for at in rng.choice(30, int(rng.integers(0, 8)), replace=False):
            words[at] = "".join(rng.choice(LETTERS, 6))
        texts += [text, " ".join(words)]
    pairs = np.arange(600).reshape(-1, 2)
    minima, sizes = signatures(texts)
    agree = (minima[pairs[:, 0]] == minima[pairs[:, 1]]).mean(1)
    true = similarity(texts, pairs)
    assert abs(np.mean(agree - true)) < 0.01  # unbiased
    assert np.std((agree - true) / np.sqrt(true * (1 - true) / MINIMA + 1e-4)) < 1.25  # as scattered as coins
    assert sizes.tolist() == [len(text) - 4 for text in texts]
    assert BANDS * WIDTH == MINIMA


def test_planted_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(3)
    base = sentences(2000, 30, seed=4)
    chosen = rng.choice(2000, 600, replace=False)
    copies = [edited(base[i], rng) for i in chosen]
    found = groups(base + copies)
    true = np.array([jaccard(light(base[i]), light(c)) for i, c in zip(chosen, copies, strict=True)])
    hit = found[chosen] == found[2000:]
    assert hit[true >= NEAR].mean() >= 0.995  # recall
    assert not hit[true < NEAR].any()
    assert (true >= NEAR).mean() > 0.7  # most of the small changes are near
    assert len(set(found.tolist())) == 2600 - hit.sum()  # precision: nobody else is joined


def test_pairs_are_those_of_comparing_all(monkeypatch):
    rng = np.random.default_rng(5)
    texts = [edited(text, rng) for text in sentences(40, 20, seed=6) for _ in range(5)]
    forms = [light(text) for text in texts]
    plain = [(i, j) for i in range(len(forms)) for j in range(i) if jaccard(forms[i], forms[j]) >= NEAR]
    expected = in_order(connected(len(forms), np.array(plain)))
    np.testing.assert_array_equal(groups(texts), expected)
    monkeypatch.setattr(minhash, "BLOCK", 500)
    monkeypatch.setattr(minhash, "_PART", 50)
    monkeypatch.setattr(minhash, "_PAIRS", 300)
    np.testing.assert_array_equal(groups(texts), expected)


def test_kinds_are_kept_apart():
    text = sentences(1, 40)[0]
    assert groups([text, text + " x", text + " y"], [0, 0, 1]).tolist() == [0, 0, 1]


def test_short_and_empty_texts():
    assert groups(["", "a", "ab", "a", "abcd"]).tolist() == [0, 1, 2, 3, 4]
    assert near_pairs([], np.zeros(0, np.uint64)).shape == (0, 2)
    assert similarity([], np.zeros((0, 2), np.int64)).shape == (0,)


def test_one_template_costs_no_square(monkeypatch):
    """Thousands of texts that share most of their shingles and are not near: the pairs looked at stay few."""
    asked = []
    plain = minhash.similarity
    monkeypatch.setattr(minhash, "similarity", lambda texts, pairs: (asked.append(len(pairs)), plain(texts, pairs))[1])
    names = sentences(3000, 1, seed=8, size=3000)
    rows = [f"dear {name} your order has been shipped today and we thank you very much" for name in names]
    groups(sorted({light(row) for row in rows}))
    assert sum(asked) < 20 * 3000
    assert sum(asked) > 0
