"""N-grams against a plain computation with strings and dictionaries."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from math import log, sqrt

import numpy as np
import pytest

from topwork.errors import BadData, BadWeights
from topwork.modalities import ngrams as module
from topwork.modalities.ngrams import SHARE, NgramReader
from topwork.modalities.readers import open_reader
from topwork.modalities.text import PAIR, READER

TEXTS = [
    "A good film, a GOOD film!",
    "a bad film",
    "Don't  see it",
    "good\tacting",
    "so bad, so bad",
    "see the film",
] * 4


def dense(char):
    return "\u4e00" <= char <= "\u9fff" or "\u3040" <= char <= "\u30ff" or "\u0e00" <= char <= "\u0eff"


def is_dense(text):
    seen = [c for c in text if not c.isspace()]
    return sum(map(dense, seen)) > 0.3 * len(seen)


def grams(text):
    """What the reader counts, one n-gram after the other."""
    chinese = is_dense(text)
    for number, part in enumerate(text.split(PAIR, 1)):
        line = f" {' '.join(part.lower().split())} "
        for n in (1, 2, 3) if chinese else (3, 4, 5):
            for i in range(len(line) - n + 1):
                gram = line[i : i + n]
                if gram != " " and (chinese or " " not in gram[1:-1]):
                    yield "c", number, gram
        words, word = [], ""
        for char in [*line, " "]:
            is_letter = char.isalnum() and not dense(char)
            if word and not is_letter:
                words.append(word)
                word = ""
            if is_letter:
                word += char
            elif char != " " and not dense(char) and not chinese:
                words.append(char)
        yield from (("w", number, word) for word in words)
        yield from (("w", number, pair) for pair in pairwise(words))


def plain(fitted_on, texts, least):
    df = Counter(gram for text in fitted_on for gram in set(grams(text)))
    idf = {gram: 1 + log((1 + len(fitted_on)) / (1 + n)) for gram, n in df.items() if n >= least}
    rows = []
    for text in texts:
        weights = {g: (1 + log(n)) * idf[g] for g, n in Counter(grams(text)).items() if g in idf}
        for kind, share in zip(("cw", "") if is_dense(text) else "cw", SHARE, strict=True):
            norm = sqrt(sum(w * w for g, w in weights.items() if g[0] in kind))
            weights.update({g: share * w / norm for g, w in weights.items() if g[0] in kind})
        rows.append(weights)
    return idf, rows


def inner(read, rows):
    """Inner products of texts: what a linear model can see, whatever the order of the columns."""
    x = np.zeros((len(rows), int(read.ids.max(initial=0)) + 1))
    for row, (a, b) in enumerate(zip(read.ends, read.ends[1:], strict=False)):
        assert (np.diff(read.ids[a:b]) > 0).all()
        x[row, read.ids[a:b]] = read.weights[a:b]
    return x @ x.T


@pytest.mark.parametrize(
    "more", [[], ["手机很好用!", "很好 good", "手机 phone手机"] * 3, [f"good{PAIR}film", f"film{PAIR}good"] * 3]
)
def test_against_strings_and_dictionaries(more):
    fitted_on = [*TEXTS, *more]
    asked = [*fitted_on, "good new film", "zzz", "", "用手机", f"good film{PAIR}a film"]
    reader = NgramReader.fitted(fitted_on)
    idf, rows = plain(fitted_on, asked, 2 if len(fitted_on) >= 20 else 1)
    assert len(reader.hashes) == len(idf)
    assert np.allclose(np.sort(reader.idf), sorted(idf.values()), atol=1e-5)
    read = reader.read(asked)
    assert read.lengths.tolist() == [len(row) for row in rows]
    expected = [[sum(w * b.get(g, 0) for g, w in a.items()) for b in rows] for a in rows]
    assert np.allclose(inner(read, rows), expected, atol=1e-5)


def test_blocks_change_nothing(monkeypatch):
    one = NgramReader.fitted(TEXTS)
    read = one.read(TEXTS)
    monkeypatch.setattr(module, "BLOCK", 40)
    two = NgramReader.fitted(TEXTS)
    assert np.array_equal(one.hashes, two.hashes)
    assert np.array_equal(one.idf, two.idf)
    again = two.read(TEXTS)
    assert np.array_equal(read.ids, again.ids)
    assert np.array_equal(read.weights, again.weights)
    alone = [two.read([text]) for text in TEXTS]
    assert np.array_equal(np.concatenate([one.weights for one in alone]), read.weights)


def test_the_most_frequent_ones_are_kept():
    whole, small = NgramReader.fitted(TEXTS), NgramReader.fitted(TEXTS, columns=20)
    assert len(small.hashes) == 20
    assert set(small.hashes) <= set(whole.hashes)
    assert small.idf.max() <= np.sort(whole.idf)[19] + 1e-6


def test_large_sets_are_fitted_on_a_part(monkeypatch):
    monkeypatch.setattr(module, "FITTED_ON", 100)
    assert 0 < len(NgramReader.fitted(TEXTS * 20).hashes) < 400


def test_files_and_back():
    reader = NgramReader.fitted(TEXTS)
    again = open_reader(reader.files())
    assert isinstance(again, NgramReader)
    assert np.array_equal(again.read(["good film"]).weights, reader.read(["good film"]).weights)


def test_damaged_files():
    files = NgramReader.fitted(TEXTS).files()
    from safetensors.numpy import save

    two = {"hashes": np.array([5, 4], np.uint64), "idf": np.ones(2, np.float32)}
    bad = [b"", files["ngrams.safetensors"][:-4], save({"idf": two["idf"]}), save(two),
           save({**two, "hashes": np.array([4, 5], np.uint64), "idf": np.array([1, np.nan], np.float32)})]  # fmt: skip
    for data in bad:
        with pytest.raises(BadWeights, match="ngrams"):
            open_reader({READER: json.dumps({"kind": "ngrams"}).encode(), "ngrams.safetensors": data})


def test_odd_texts():
    reader = NgramReader.fitted(TEXTS)
    read = reader.read(["\ud800", "\x00\x1f", "good " * 60_000, "\U0010ffff", "é" * 10, "\u0301"])
    assert np.isfinite(read.weights).all()
    assert read.cut.tolist() == [False, False, True, False, False, False]
    assert reader.read([]).ends.tolist() == [0]
    with pytest.raises(BadData, match="Text 0 is of type int"):
        reader.read([1])
    with pytest.raises(BadData, match="hold no n-gram"):
        NgramReader.fitted(["", "  "] * 20)
