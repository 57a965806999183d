"""Text to pieces: against what BERT's paper and its tokeniser do, by hand, by a slower reading, by the package."""

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from topwork.errors import BadData, BadSetting, BadWeights
from topwork.modalities import readers, text
from topwork.modalities import wordpiece as module
from topwork.modalities.wordpiece import WordPiece, normalise

PIECES = ["[UNK]", "un", "##aff", "##able", "want", "##ed", "runn", "##ing", "a", "b", "##b", "naive", "!", "的", "是"]


@pytest.fixture
def wordpiece():
    return WordPiece.of(PIECES)


def cut(wordpiece, one):
    numbers, ends = wordpiece.encode([one])
    assert ends.tolist() == [0, len(numbers)]
    return [PIECES[n] for n in numbers]


def test_the_examples_of_the_paper(wordpiece):
    assert cut(wordpiece, "Unaffable, running") == ["un", "##aff", "##able", "[UNK]", "runn", "##ing"]
    assert cut(wordpiece, "wanted!!") == ["want", "##ed", "!", "!"]
    assert cut(wordpiece, "wantedx") == ["[UNK]"]  # one letter that fits nowhere, and the whole word is unknown


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", []),
        (" \t\r\n\u00a0\u3000 ", []),
        ("\x00\ufffd\x07\u200b", []),
        ("na\u0000ïve", ["naive"]),
        ("NAÏVE Ångström", ["naive", "angstrom"]),
        ("nai\u0308ve", ["naive"]),  # accent as a character of its own
        ("it's 5-6", ["it", "'", "s", "5", "-", "6"]),
        ("a的是b", ["a", "的", "是", "b"]),
        ("ΣΑΣ", ["σασ"]),  # each letter alone: no final sigma, as in BERT
        ("Straße İstanbul", ["straße", "istanbul"]),
        ("\ud800a\udfff", ["a"]),  # lone surrogates
        ("½ ﬁ ①", ["½", "ﬁ", "①"]),  # NFD leaves compatibility forms alone
        ("…“quoted”—", ["…", "“", "quoted", "”", "—"]),
        ("🙂ok", ["🙂ok"]),
    ],
)
def test_normalising(wordpiece, raw, words):
    assert wordpiece.words(raw) == words


def slow_words(raw):
    """BERT's basic tokeniser in its own order: clean, set Chinese apart, accents, case, marks; one step at a time."""
    clean = "".join(" " if c in "\t\n\r" or unicodedata.category(c) == "Zs" else c for c in raw)
    clean = "".join(c for c in clean if c != "\ufffd" and unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))
    clean = "".join(f" {c} " if 0x4E00 <= ord(c) <= 0x9FFF else c for c in clean)
    plain = "".join(c for c in unicodedata.normalize("NFD", clean) if unicodedata.category(c) != "Mn")
    low = "".join(c.lower() for c in plain)
    ascii_marks = {*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)}
    marked = "".join(f" {c} " if ord(c) in ascii_marks or unicodedata.category(c)[0] == "P" else c for c in low)
    return marked.split()


def test_random_text_against_the_slow_reading(wordpiece):
    draw = random.Random(0)
    ranges = [(32, 127), (0, 0x250), (0x300, 0x600), (0x2000, 0x2100), (0x4E00, 0x4E40), (0xAC00, 0xAC40)]
    for _ in range(500):
        raw = (
            "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(30))
            .replace("\x85", "")
            .replace("\x1e", "")
        )
        assert wordpiece.words(raw) == [w for w in slow_words(raw) if w], ascii(raw)


def slow_pieces(word, vocabulary):
    """The longest piece first, written as a recursion."""
    if len(word) > 100:
        return ["[UNK]"]

    def rest(left, mark):
        if not left:
            return []
        for stop in range(len(left), 0, -1):
            if mark + left[:stop] in vocabulary:
                found = rest(left[stop:], "##")
                return None if found is None else [mark + left[:stop], *found]
        return None

    found = rest(word, "")
    return ["[UNK]"] if found is None else found


def test_random_words_against_the_slow_cutting():
    draw = random.Random(1)
    letters = "abc"
    pieces = {"".join(draw.choices(letters, k=draw.randint(1, 3))) for _ in range(9)}
    vocabulary = ["[UNK]", *sorted(pieces), *sorted(f"##{p}" for p in list(pieces)[:6])]
    wordpiece = WordPiece.of(vocabulary)
    words = ["".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(300)]
    for _ in range(2):  # the second time from memory
        for word in words:
            numbers, _ends = wordpiece.encode([word])
            assert [vocabulary[n] for n in numbers] == slow_pieces(word, set(vocabulary))


def test_several_texts_stand_one_after_the_other(wordpiece):
    numbers, ends = wordpiece.encode(["want a", "", "b!"])
    assert (numbers.dtype, ends.dtype) == (np.int32, np.int64)
    assert ends.tolist() == [0, 2, 2, 4]
    assert [PIECES[n] for n in numbers] == ["want", "a", "b", "!"]
    assert wordpiece.encode([])[1].tolist() == [0]


def test_long_words_and_long_texts(wordpiece, monkeypatch):
    assert cut(wordpiece, "a" + "b" * 99) == ["a"] + ["##b"] * 99
    assert cut(wordpiece, "a" + "b" * 100) == ["[UNK]"]
    assert len(cut(wordpiece, "a b! " * 20_000)) == 60_000
    monkeypatch.setattr(module, "KNOWN_WORDS", 3)
    many = [f"a{'b' * n}" for n in range(9)]
    for _ in range(2):
        assert [len(cut(wordpiece, one)) for one in many] == list(range(1, 10))
        assert len(wordpiece.known) <= 4


def test_what_is_no_text_and_no_vocabulary(wordpiece):
    with pytest.raises(BadData, match="Text 1 is of type NoneType"):
        wordpiece.encode(["a", None])
    for pieces in (["a"], ["[UNK]", "a", "a"], ["[UNK]", ""]):
        with pytest.raises(BadSetting, match="Expected each once"):
            WordPiece.of(pieces)


def test_the_tokenizers_package_cuts_alike():
    tokenizers = pytest.importorskip("tokenizers", reason="compared where it is installed")
    reference = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(dict(WordPiece.of(PIECES).vocabulary), unk_token="[UNK]")
    )
    reference.normalizer = tokenizers.normalizers.BertNormalizer()
    reference.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = ["Unaffable? NAÏVE running!", "a的是b abb", "\x00want\u00a0wanted", "ab" * 80, "", "[UNK] unwanted"]
    numbers, ends = WordPiece.of(PIECES).encode(texts)
    ours = [numbers[a:b].tolist() for a, b in pairwise(ends)]
    assert ours == [one.ids for one in reference.encode_batch(texts, add_special_tokens=False)]
    for one in texts:
        assert normalise(one).split() == [w for w, _ in reference.pre_tokenizer.pre_tokenize_str(
            reference.normalizer.normalize_str(one))]  # fmt: skip


class TestReader:
    """What every reader gives: windows of numbers, files that bring it back."""

    def test_read_is_encode(self):
        reader = WordPiece.of(PIECES)
        texts = ["unaffable", "", "a naive! want"]
        ids, ends = reader.encode(texts)
        read = reader.read(texts)
        assert read.ids.tolist() == ids.tolist()
        assert read.ends.tolist() == ends.tolist()
        assert read.owner.tolist() == [0, 1, 2]
        assert read.weights is None
        assert not read.cut.any()

    def test_long_texts_lose_their_end(self, monkeypatch):
        monkeypatch.setattr(module, "LONGEST", 3)
        read = WordPiece.of(PIECES).read(["a a a", "a b a b a", "", "b"])
        assert read.cut.tolist() == [False, True, False, False]
        assert read.ids.tolist() == [8, 8, 8, 8, 9, 8, 9]
        assert read.ends.tolist() == [0, 3, 6, 6, 7]

    def test_a_pair_is_two_words(self):
        reader = WordPiece.of(PIECES)
        assert reader.read([f"want{text.PAIR}ed"]).ids.tolist() == reader.read(["want ed"]).ids.tolist()

    def test_files_and_back(self):
        reader = WordPiece.of(PIECES)
        again = readers.open_reader(reader.files())
        assert again.read(["unaffable!"]).ids.tolist() == reader.read(["unaffable!"]).ids.tolist()
        with pytest.raises(BadWeights, match="vocabulary"):
            readers.open_reader({**reader.files(), "vocabulary.txt": b"a\na\n"})
        with pytest.raises(BadWeights, match="names a reader 'words'"):
            readers.open_reader({text.READER: b'{"kind": "words"}'})

    def test_padding_and_buckets(self):
        read = WordPiece.of(PIECES).read(["a b", "", "a b a"])
        ids, weights = read.padded(np.array([2, 1, 0]))
        assert ids.tolist() == [[8, 9, 8], [0, 0, 0], [8, 9, 0]]
        assert weights.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 0]]
        lengths = np.array([1, 9, 3, 9, 2, 0])
        batches = list(text.buckets(lengths, tokens=12, most=2))
        assert sorted(np.concatenate(batches).tolist()) == list(range(6))
        assert [lengths[b].tolist() for b in batches] == [[9], [9], [3, 2], [1, 0]]
