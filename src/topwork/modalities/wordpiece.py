"""Text to numbered pieces: normalise as uncased BERT does, then WordPiece.

    "It's Québécois!"  --normalise-->  " it ' s quebecois ! "  --split-->  it | ' | s | quebecois | !
    "quebecois"        --WordPiece-->  quebec | ##ois            longest piece of the vocabulary first, from the left

Normalising looks at one character at a time, so it is a table: control characters, NUL, lone surrogates and U+FFFD
vanish, white space becomes a blank, a Chinese character or a punctuation mark stands alone, the rest is decomposed
(NFD), loses its accents (category Mn) and its case. A word that cannot be cut, or has over 100 characters, is [UNK].

Devlin et al., BERT, 2019; Wu et al., Google's Neural Machine Translation System, 2016 (WordPiece). Words seen once are
looked up afterwards, which is what makes it fast: language repeats itself. A pair of texts is read as one.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadSetting, BadWeights
from topwork.modalities.text import PAIR, READER, Tokens

FILE = "vocabulary.txt"
LONGEST = 32_768  # pieces of a text that are read, about 150,000 letters: bounds the memory of one run
UNKNOWN = "[UNK]"
CONTINUES = "##"  # a piece that does not begin a word
LONGEST_WORD = 100  # characters; what is longer is no word
KNOWN_WORDS = 200_000  # words kept with their pieces; about 30 MB at the most

_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class _Table(dict[int, str]):
    """Character -> what stands for it; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = meant = _normal(chr(code))
        return meant


_TABLE = _Table()


def normalise(text: str) -> str:
    """A text as the vocabulary wants it: blanks between words and marks, no accents, no case."""
    return text.translate(_TABLE)


def _normal(char: str) -> str:
    if char in "\t\n\r" or char == PAIR:
        return " "
    if char == "\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    if char.isspace():
        return " "
    plain = (c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
    low = "".join(f" {c} " if _is_mark(c) else c for c in "".join(plain).lower())
    return f" {low} " if any(first <= ord(char) <= last for first, last in _CHINESE) else low


def _is_mark(char: str) -> bool:
    return char in _ASCII_MARKS or unicodedata.category(char)[0] == "P"


@dataclass(frozen=True, eq=False)
class WordPiece:
    """Texts to piece numbers, under one vocabulary. Instances may be shared between threads."""

    vocabulary: Mapping[str, int]  # piece -> number; pieces inside words begin with ##
    known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)  # word -> pieces, as met
    kind = "pieces"

    @classmethod
    def of(cls, pieces: Sequence[str]) -> WordPiece:
        """The pieces in the order of their numbers; BadSetting where one is missing, empty or there twice."""
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        if len(vocabulary) != len(pieces) or "" in vocabulary or UNKNOWN not in vocabulary:
            raise BadSetting(
                f"A vocabulary of {len(pieces):,} pieces, {len(vocabulary):,} of them different. Expected each once, "
                f"none empty, and {UNKNOWN} among them"
            )
        return cls(vocabulary)

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> WordPiece:
        """What `files` came from; BadWeights where they are damaged."""
        try:
            return cls.of(files[FILE].decode().removesuffix("\n").split("\n"))
        except (KeyError, UnicodeDecodeError, BadSetting) as error:
            raise BadWeights(f"{FILE} is no vocabulary, one piece a line in UTF-8: {error}") from error

    def files(self) -> dict[str, bytes]:
        """The pieces, one a line, in the order of their numbers."""
        pieces = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        return {READER: json.dumps({"kind": self.kind}).encode(), FILE: "".join(f"{p}\n" for p in pieces).encode()}

    def read(self, texts: Sequence[str]) -> Tokens:
        """One window a text, because what a static embedding says of a text depends on all of it at once."""
        ids, ends = self.encode(texts)
        cut = np.diff(ends) > LONGEST
        if cut.any():
            kept = np.arange(len(ids)) - np.repeat(ends[:-1], np.diff(ends)) < LONGEST
            ids, ends = ids[kept], np.append(0, np.cumsum(np.minimum(np.diff(ends), LONGEST)))
        return Tokens(ids, None, ends, np.arange(len(texts)), cut)

    def words(self, text: str) -> list[str]:
        """The words and marks of one text."""
        return normalise(text).split()

    def pieces(self, word: str) -> tuple[int, ...]:
        """Numbers of the pieces of one normalised word: the longest first piece, then the longest that continues."""
        if len(word) > LONGEST_WORD:
            return (self.vocabulary[UNKNOWN],)
        found, start, prefix = [], 0, ""
        while start < len(word):
            for stop in range(len(word), start, -1):
                number = self.vocabulary.get(prefix + word[start:stop])
                if number is not None:
                    break
            else:
                return (self.vocabulary[UNKNOWN],)
            found.append(number)
            start, prefix = stop, CONTINUES
        return tuple(found)

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Numbers of all pieces one after the other (T,), and where each text begins and the last one ends (N + 1,)."""
        known, flat, ends = self.known, list[int](), [0]
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadData(f"Text {row} is of type {type(text).__name__}. Expected str; write '' for an empty text")
            words = text.translate(_TABLE).split()
            try:
                found = [known[word] for word in words]
            except KeyError:
                found = [known.get(word) or self._learn(word) for word in words]
            flat.extend(chain.from_iterable(found))
            ends.append(len(flat))
        return np.array(flat, np.int32), np.array(ends, np.int64)

    def _learn(self, word: str) -> tuple[int, ...]:
        found = self.pieces(word)
        if len(self.known) >= KNOWN_WORDS:
            self.known.clear()
        if len(word) <= LONGEST_WORD:
            self.known[word] = found
        return found
