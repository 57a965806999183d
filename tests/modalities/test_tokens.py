"""Tokens of a tokenizer.json: special tokens, pairs, windows, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from topwork.errors import BadData, BadSetting, BadWeights
from topwork.modalities import tokens as module
from topwork.modalities.readers import open_reader
from topwork.modalities.text import PAIR, READER
from topwork.modalities.tokens import TokenReader

tokenizers = pytest.importorskip("tokenizers", reason="needs the text extra")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(200)), "a"]


def bert(kind="bert"):
    """A tokenizer of words, with the special tokens of BERT or of RoBERTa."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1" if kind == "bert" else "[CLS] $A [SEP] [SEP] $B [SEP]"
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(5)  # what a file says about it is not what is asked for here
    made.enable_padding(length=7)
    return made


def reader(longest=12, overlap=2, kind="bert", **more):
    return TokenReader(bert(kind).to_str().encode(), longest, overlap, **more)


def windows(read, row):
    return [read.ids[a:b].tolist() for a, b, o in zip(read.ends, read.ends[1:], read.owner, strict=False) if o == row]


def words(first, last):
    return " ".join(f"w{i}" for i in range(first, last))


def numbers(first, last):
    return list(range(4 + first, 4 + last))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_as_the_library_frames_them(kind):
    ours, theirs = reader(64, kind=kind), bert(kind)
    theirs.no_truncation()
    theirs.no_padding()
    texts = ["w1 w2", "", "nothing known", "w3", f"w1 w2{PAIR}w3", f"{PAIR}w4", "w5"]
    read = ours.read(texts)
    for row, text in enumerate(texts):
        one, _, two = text.partition(PAIR)
        expected = theirs.encode(one, two).ids if PAIR in text else theirs.encode(one).ids
        assert windows(read, row) == [expected]
    plain = ours.read([text for text in texts if PAIR not in text])  # none has several windows: the quick way
    assert [windows(plain, i)[0] for i in range(5)] == [theirs.encode(t).ids for t in texts if PAIR not in t]
    assert ours.separator == (3 if kind == "bert" else None)


def test_long_texts_are_windows_that_overlap_and_end_with_the_text():
    read = reader(12, 2).read([words(0, 10), words(0, 11), words(0, 30)])
    assert windows(read, 0) == [[2, *numbers(0, 10), 3]]
    assert windows(read, 1) == [[2, *numbers(0, 10), 3], [2, *numbers(1, 11), 3]]
    assert windows(read, 2) == [[2, *numbers(a, a + 10), 3] for a in (0, 8, 16, 20)]
    assert not read.cut.any()
    assert (np.diff(read.owner) >= 0).all()


def test_no_more_than_so_many_windows():
    read = reader(12, 2, most=2).read([words(0, 18), words(0, 19), "w1"])
    assert [len(windows(read, row)) for row in range(3)] == [2, 2, 1]
    assert read.cut.tolist() == [False, True, False]


@pytest.mark.parametrize(("one", "two", "lost"), [(3, 30, False), (30, 3, False), (30, 30, True), (4, 5, False)])
def test_long_pairs_keep_the_shorter_text_in_every_window(one, two, lost):
    ours = reader(13, 1)  # ten tokens of two texts
    read = ours.read([f"{words(0, one)}{PAIR}{words(100, 100 + two)}", "w0"])
    found = windows(read, 0)
    assert all(len(w) <= 13 and w[0] == 2 and w.count(3) == 2 and w[-1] == 3 for w in found)
    seen = {n for w in found for n in w}
    assert seen >= set(numbers(100, 100 + two))
    assert (not seen >= set(numbers(0, one))) == lost == read.cut[0]
    if one == 3:
        assert all(w[1:5] == [*numbers(0, 3), 3] for w in found)


def test_special_tokens_in_a_text_are_text():
    read = reader(64).read(["[SEP] w1", "[CLS]"])
    assert windows(read, 0)[0].count(3) == 1
    assert windows(read, 1)[0].count(2) == 1


def test_odd_texts():
    read = reader(64).read(["\ud800 w1", "\x00", "的", "w1\n\tw2", "w1" * 50_000])
    assert windows(read, 3) == [[2, 5, 6, 3]]
    with pytest.raises(BadData, match="Text 1 is of type NoneType"):
        reader().read(["w1", None])


def test_the_same_texts_are_read_once(monkeypatch):
    ours = reader()
    one = ours.read(["w1", "w2"])
    assert ours.read(["w1", "w2"]) is one
    assert ours.read(["w1w", "2"]) is not one
    for i in range(5):
        ours.read([f"w{i}"])
    assert len(ours._recent) <= module.KEPT


def test_files_and_back():
    ours = reader(12, 2, most=3)
    again = open_reader(ours.files())
    assert isinstance(again, TokenReader)
    assert (again.longest, again.overlap, again.most) == (12, 2, 3)
    texts = [words(0, 40), "w1"]
    assert np.array_equal(again.read(texts).ids, ours.read(texts).ids)


DAMAGES = [
    {"tokenizer.json": b"{}"},
    {"tokenizer.json": b"\x80pickle"},
    {READER: b'{"kind": "tokens"}'},
    {READER: b"{"},
    {READER: b'{"kind": "tokens", "longest": "x", "overlap": 0, "most": 1}'},
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(damage):
    with pytest.raises(BadWeights) as caught:
        open_reader({**reader().files(), **damage})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [(4, 0, 1), (12, 6, 1), (12, -1, 1), (12, 0, 0)])
def test_windows_that_make_no_sense(options):
    with pytest.raises(BadSetting, match="Expected 8 tokens or more"):
        TokenReader(b"{}", *options)


def test_without_the_library(monkeypatch):
    import sys

    from topwork.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    module._opened.cache_clear()
    with pytest.raises(MissingExtra, match=r"topwork\[text\]"):
        open_reader({READER: json.dumps({"kind": "tokens", "longest": 12, "overlap": 0, "most": 1}).encode(),
                     "tokenizer.json": b"{}"})  # fmt: skip
