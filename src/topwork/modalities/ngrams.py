"""Text to the n-grams that it holds, with TF-IDF weights, under a vocabulary fitted without labels.

    characters   within words, the blanks around them included: n = 3 .. 5      " film ": " fi", "fil", ..., "film "
    words        single ones and pairs of neighbours; a punctuation mark is a word

of a text that is mostly in a script without blanks (Chinese, Japanese, Thai ...: "dense")

    characters   n = 1 .. 3, whatever they are
    words        those that are in another script

    weight = (1 + log tf) . idf,   idf = 1 + log((1 + N) / (1 + df))      tf: times in the text, df: texts that hold it

then the character part and the word part of a text are each brought to length SHARE, so that neither drowns the other;
a dense text has one part.
The second text of a pair has n-grams of its own. The vocabulary is what at least LEAST texts hold, the most frequent
first; of it only 44 bits of a hash of every n-gram are kept, which no two of ten million share by much of a chance.

How it is fast: all texts are one array of characters, the hash of n + 1 characters is that of n and one more, and
hash and text number are sorted as one 64-bit word, which counts everything at once. No n-gram is ever a string.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadWeights
from topwork.modalities.text import PAIR, READER, Tokens

FILE = "ngrams.safetensors"
COLUMNS = 131_072  # n-grams at most; more = larger models, hardly better
LEAST = 2  # texts that must hold an n-gram
INSIDE, DENSE_SIZES = (3, 4, 5), (1, 2, 3)
SHARE = (0.7, 0.7)  # length of the character part and of the word part
MOSTLY = 0.3  # share of dense characters from which a text is dense
LONGEST = 200_000  # characters of a text that are read
BLOCK = 1_000_000  # characters that are worked on at once, about 50 MB
FITTED_ON = 8_000_000  # characters that the vocabulary is fitted on, evenly from all texts

BLANK, LETTER, MARK, DENSE = 0, 1, 2, 3
_DENSE_RANGES = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
    (0x20000, 0x323AF),
)  # fmt: skip
_CODES = 0x110000
_BITS = 20  # of a sorted word that name the text; the others name the n-gram
_HASH = np.uint64(0xFFFFFFFFFFFFFFFF << _BITS & 0xFFFFFFFFFFFFFFFF)
_WORD = np.uint64(1 << _BITS)  # the lowest bit of the hash: 1 for words
_STEP, _PAIRED, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_POWERS = np.cumprod(np.append(np.uint64(1), np.full(255, _STEP)), dtype=np.uint64)
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class NgramReader:
    """Texts to columns and weights. Instances may be shared between threads."""

    hashes: Hashes = field(repr=False)  # (D,) ascending
    idf: NDArray[np.float32] = field(repr=False)  # (D,)
    kind = "ngrams"

    @classmethod
    def fitted(cls, texts: Sequence[str], columns: int = COLUMNS) -> NgramReader:
        """The vocabulary of these texts; no labels are asked."""
        kept = _evenly(texts)
        found, seen = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for first, last in _blocks(kept):
            hashes = _counted(kept[first:last])[0]
            starts = _starts(hashes)
            found.append(hashes[starts])
            seen.append(np.diff(np.append(starts, len(hashes))))
        hashes, df = _added(np.concatenate(found), np.concatenate(seen))
        least = LEAST if len(kept) >= 10 * LEAST else 1
        there = np.flatnonzero(df >= least)
        if len(there) > columns:
            there = np.sort(there[np.argsort(-df[there], kind="stable")[:columns]])
        if not len(there):
            raise BadData(f"{len(texts):,} texts hold no n-gram that {least} of them share. Expected texts with words")
        idf = 1 + np.log((1 + len(kept)) / (1 + df[there]))
        return cls(hashes[there], idf.astype(np.float32))

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> NgramReader:
        """What `files` came from; BadWeights where they are damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(files[FILE])
            hashes, idf = arrays["hashes"], arrays["idf"]
        except (KeyError, SafetensorError, ValueError) as error:
            raise BadWeights(f"{FILE} is missing or damaged: {error}. Fit again") from error
        kinds = (hashes.dtype, idf.dtype) == (np.uint64, np.float32) and hashes.shape == idf.shape and hashes.ndim == 1
        if not kinds or not len(hashes) or not np.isfinite(idf).all() or (hashes[1:] <= hashes[:-1]).any():
            raise BadWeights(f"{FILE} holds no vocabulary. Expected ascending hashes, and as many finite weights")
        return cls(hashes, idf)

    def files(self) -> dict[str, bytes]:
        """Hashes and weights of the columns."""
        from safetensors.numpy import save

        arrays = {"hashes": self.hashes, "idf": self.idf}
        return {READER: json.dumps({"kind": self.kind}).encode(), FILE: save(arrays)}

    @cached_property
    def _likely(self) -> NDArray[np.bool_]:
        """(2^22,) whether a column may begin with these bits: most n-grams that have no column end here."""
        likely = np.zeros(1 << 22, bool)
        likely[self.hashes >> np.uint64(42)] = True
        return likely

    def read(self, texts: Sequence[str]) -> Tokens:
        """Columns, ascending, and their weights; one window a text."""
        ids, weights, counts = [np.empty(0, np.int32)], [np.empty(0, np.float32)], [np.zeros(1, np.int64)]
        for first, last in _blocks(texts):
            block = self._rows(texts[first:last])
            ids.append(block.indices.astype(np.int32, copy=False))
            weights.append(block.data)
            counts.append(np.diff(block.indptr))
        cut = np.array([len(text) > LONGEST for text in texts], bool)
        ends = np.cumsum(np.concatenate(counts), dtype=np.int64)
        return Tokens(np.concatenate(ids), np.concatenate(weights), ends, np.arange(len(texts)), cut)

    def _rows(self, texts: Sequence[str]) -> Any:
        """A csr matrix (B, D) of some texts."""
        from scipy.sparse import csc_array

        hashes, rows, tf, dense = _counted(texts, self._likely)
        starts = _starts(hashes)
        found = hashes[starts]
        column = np.minimum(np.searchsorted(self.hashes, found), len(self.hashes) - 1)
        known = self.hashes[column] == found
        sizes = np.diff(np.append(starts, len(hashes)))
        inside = np.repeat(known, sizes)
        columns = np.repeat(column[known], sizes[known])  # ascending
        rows, weights = rows[inside], (1 + np.log(tf[inside], dtype=np.float32)) * self.idf[columns]
        is_word = np.repeat((found[known] & _WORD) > 0, sizes[known]) & ~dense[rows]
        for part, share in zip((~is_word, is_word), SHARE, strict=True):
            norm = np.sqrt(np.bincount(rows[part], weights[part].astype(np.float64) ** 2, len(texts)))
            weights[part] *= (share / np.maximum(norm, 1e-12)).astype(np.float32)[rows[part]]
        ends = np.searchsorted(columns, np.arange(len(self.hashes) + 1)).astype(np.int32)
        return csc_array((weights, rows.astype(np.int32), ends), shape=(len(texts), len(self.hashes))).tocsr()


def _counted(
    texts: Sequence[str], likely: NDArray[np.bool_] | None = None
) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Hash, text and number of times of everything that the texts hold, hashes ascending; which texts are dense."""
    parts = []
    codes, row, second = _joined(texts)
    kinds = _kinds(codes)
    counts = np.bincount(row, kinds == DENSE, len(texts)), np.bincount(row, kinds != BLANK, len(texts))
    dense = counts[0] > MOSTLY * counts[1]
    for hashes, rows in _grams(codes, kinds, row, second, dense[row]):
        if likely is not None:
            there = likely[hashes >> np.uint64(42)]
            hashes, rows = hashes[there], rows[there]
        parts.append((hashes & _HASH) | rows.astype(np.uint64))
    both = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    starts = _starts(both)
    keys = both[starts]
    return keys & _HASH, (keys & ~_HASH).astype(np.int64), np.diff(np.append(starts, len(both))), dense


def _grams(
    codes: NDArray[np.uint32],
    kinds: NDArray[np.int8],
    row: NDArray[np.int32],
    second: NDArray[np.bool_],
    dense: NDArray[np.bool_],
) -> Iterator[tuple[Hashes, NDArray[np.int32]]]:
    """Hashes and text numbers of all n-grams, one kind after the other."""
    letters = _scrambled()[codes]
    salt = np.where(second, _SECOND, np.uint64(0)) if second.any() else None
    blank, some, all_ = kinds == BLANK, bool(dense.any()), bool(dense.all())
    blanks = np.append(0, np.cumsum(blank, dtype=np.int32))
    doubles = np.append(0, np.cumsum(blank[1:] & blank[:-1], dtype=np.int32))
    rolling = np.zeros(len(codes), np.uint64)
    for n in range(1, max(*(() if all_ else INSIDE), *(DENSE_SIZES if some else ()), 1) + 1):
        many = len(codes) - n + 1
        if many <= 0:
            break
        rolling = rolling[:many] + letters[n - 1 :] * _POWERS[n - 1]
        valid = np.zeros(many, bool)
        if n in INSIDE and not all_:  # no blank but at its ends; those of two texts are parted by two
            valid = (blanks[n - 1 : n - 1 + many] == blanks[1 : many + 1]) & ~dense[:many]
        if n in DENSE_SIZES and some:
            valid |= dense[:many] & (doubles[n - 1 : n - 1 + many] == doubles[:many])
            if n == 1:
                valid &= ~blank
        at = np.flatnonzero(valid)
        if len(at):
            yield _salted(_mixed(rolling[at] + np.uint64(n)) & ~_WORD, salt, at), row[at]
    yield from _words(np.where(dense & (kinds == MARK), BLANK, kinds), letters, row, salt)


def _words(
    kinds: NDArray[np.int8], letters: Hashes, row: NDArray[np.int32], salt: Hashes | None
) -> Iterator[tuple[Hashes, NDArray[np.int32]]]:
    """Words and pairs of words."""
    is_letter = kinds == LETTER
    begins = (is_letter & ~np.append(False, is_letter[:-1])) | (kinds == MARK)
    inside = np.flatnonzero(is_letter | (kinds == MARK))
    if not len(inside):
        return
    starts = np.flatnonzero(begins[inside])
    place = np.arange(len(inside)) - np.repeat(starts, np.diff(np.append(starts, len(inside))))
    words = np.add.reduceat(letters[inside] * _POWERS[np.minimum(place, len(_POWERS) - 1)], starts)
    at = inside[starts]
    single = _mixed(words + _PAIRED)
    yield _salted(single | _WORD, salt, at), row[at]
    # the blanks around every text part words that are no neighbours: those of two texts, or of the two in a pair
    beside = np.flatnonzero(row[at[1:]] == row[at[:-1]])
    if salt is not None:
        beside = beside[salt[at[beside + 1]] == salt[at[beside]]]
    pairs = _mixed(single[beside] * _STEP + single[beside + 1])
    yield _salted(pairs | _WORD, salt, at[beside]), row[at[beside]]


def _salted(hashes: Hashes, salt: Hashes | None, at: NDArray[np.int64]) -> Hashes:
    """The second text of a pair has n-grams of its own; what is a word stays one."""
    if salt is None:
        return hashes
    return np.where(salt[at] > 0, (_mixed(hashes + salt[at]) & ~_WORD) | (hashes & _WORD), hashes)


def _joined(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.bool_]]:
    """Characters of all texts in lower case, two blanks between; the text of each, whether it is of a pair's second."""
    parts, rows, seconds = [], [], []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadData(f"Text {row} is of type {type(text).__name__}. Expected str; write '' for an empty text")
        for number, part in enumerate(text[:LONGEST].split(PAIR, 1)):
            parts.append(" ".join(part.lower().split()))
            rows.append(row)
            seconds.append(bool(number))
    joined = " " + "  ".join(parts) + " "
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.fromiter((len(part) + 2 for part in parts), np.int64, len(parts))
    return codes, np.repeat(np.array(rows, np.int32), sizes), np.repeat(np.array(seconds, bool), sizes)


def _kinds(codes: NDArray[np.uint32]) -> NDArray[np.int8]:
    """BLANK, LETTER, MARK or DENSE of every character."""
    table = _table()
    met = np.zeros(_CODES, bool)
    met[codes] = True
    for code in np.flatnonzero(met & (table < 0)).tolist():
        table[code] = _kind(code)
    return table[codes]


@cache
def _table() -> NDArray[np.int8]:
    """Kinds of all characters, filled as they are met."""
    return np.full(_CODES, -1, np.int8)


def _kind(code: int) -> int:
    if code == 32:
        return BLANK
    if unicodedata.category(chr(code))[0] not in "LMN":
        return MARK
    return DENSE if any(first <= code <= last for first, last in _DENSE_RANGES) else LETTER


@cache
def _scrambled() -> Hashes:
    """A random number for every character."""
    return _mixed(np.arange(_CODES, dtype=np.uint64) * _STEP)


def _mixed(x: Hashes) -> Hashes:
    """Every bit depends on every bit (splitmix64; Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _starts(ordered: Hashes) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(len(ordered) > 0, ordered[1:] != ordered[:-1])[: len(ordered)])


def _added(hashes: Hashes, seen: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64]]:
    """Equal hashes once, with the sum of what they were seen."""
    order = np.argsort(hashes, kind="stable")
    hashes, seen = hashes[order], seen[order]
    starts = _starts(hashes)
    return hashes[starts], np.add.reduceat(seen, starts) if len(starts) else seen[:0]


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of runs of texts that are worked on at once."""
    first, size = 0, 0
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadData(f"Text {row} is of type {type(text).__name__}. Expected str; write '' for an empty text")
        size += min(len(text), LONGEST) + 2
        if size > BLOCK or row + 1 - first == 1 << _BITS:
            yield first, row + 1
            first, size = row + 1, 0
    if first < len(texts):
        yield first, len(texts)


def _evenly(texts: Sequence[str]) -> Sequence[str]:
    """All texts, or so many of them, evenly, as hold FITTED_ON characters."""
    size = sum(min(len(text), LONGEST) for text in texts if isinstance(text, str))
    if size <= FITTED_ON:
        return texts
    many = max(1, len(texts) * FITTED_ON // size)
    return [texts[int(i)] for i in np.linspace(0, len(texts) - 1, many)]
