"""Look at every text once: what it is in light form, how long, in which script and language.

    text --light--> NFKC, no case, no white space, no marks at the end      equal: the same text (exact)
                    MinHash of it (minhash.py)                              near: all but the same, of the same label

The texts themselves stay in memory until the copies are found; nothing of a text is stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import connected, in_order
from topwork.data.minhash import near_pairs, similarity
from topwork.modalities.text import PAIR
from topwork.modalities.text_damage import has_markup, is_garbled
from topwork.modalities.text_language import notice
from topwork.types import Dataset, Progress

_ROWS = 4096  # between two words of progress
HEAD = 80  # characters of a light form: texts that begin alike
_END_MARKS = ".!?,;:~… 。！？，；：～、"
_WIDE = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LETTER = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"\d+")


@dataclass(eq=False)
class Seen:
    """What the texts told, as arrays; the texts themselves stay in the dataset."""

    contents: NDArray[np.uint8]  # (N, 16) BLAKE2b-128 of the text in UTF-8
    form: NDArray[np.uint8]  # (N, 16) the same of its light form
    numbers: NDArray[np.uint64]  # (N,) hash of the numbers in it
    mask: NDArray[np.uint64]  # (N,) hash of the light form but for its numbers; 0: it has none
    head: NDArray[np.uint64]  # (N,) hash of the beginning of the light form; 0: it is shorter
    garbled: NDArray[np.bool_]  # (N,) read in the wrong encoding
    markup: NDArray[np.bool_]  # (N,) tags or entities are left
    blank: NDArray[np.bool_]  # (N,) no letter and no digit
    sizes: NDArray[np.int64]  # (N, 3): characters, words, bytes
    texts: list[str]
    reasons: list[str | None]  # why a text cannot be used
    notices: dict[str, Any] = field(default_factory=dict)  # scripts and languages

    def take(self, rows: NDArray[Any]) -> Seen:
        """Some of them."""
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        texts, reasons = [self.texts[row] for row in rows.tolist()], [self.reasons[row] for row in rows.tolist()]
        return dataclasses.replace(self, **arrays, texts=texts, reasons=reasons)

    def same(self) -> NDArray[np.int32]:
        """(N,) numbers: equal for equal light forms."""
        keys = np.ascontiguousarray(self.form).view(np.dtype((np.void, 16))).ravel()
        return in_order(np.unique(keys, return_inverse=True)[1])

    def near(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """(N,) numbers: equal for the same text, or nearly so with the same label."""
        same = self.same()
        first = np.unique(same, return_index=True)[1]
        forms = [light(self.texts[row]) for row in first.tolist()]
        kinds = self.numbers[first] * np.uint64(1_000_003) + labels[first].astype(np.int64).astype(np.uint64)
        return in_order(connected(len(first), near_pairs(forms, kinds))[same])

    def twins(self, near: NDArray[np.int32], labels: NDArray[Any]) -> NDArray[np.int32]:  # noqa: ARG002 as for images
        """(N,) the same numbers: a text has no mirror image."""
        return near

    def likeness(self, rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
        """(P,) share of runs of characters in common (minhash.py); 1 for equal light forms."""
        out = (self.form[rows] == self.form[others]).all(1).astype(float)
        unlike = np.flatnonzero(out == 0)
        asked = np.unique(np.concatenate([rows[unlike], others[unlike]]), return_inverse=True)
        forms = [light(self.texts[row]) for row in asked[0].tolist()]
        out[unlike] = similarity(forms, asked[1].reshape(2, -1).T)
        return out

    def facts(self) -> dict[str, Any]:
        """Lengths, scripts and languages as plain JSON."""
        characters, words, size = self.sizes.T
        return {
            "bytes": int(size.sum()),
            "characters": _spread(characters),
            "words": _spread(words),
            "pairs": any(PAIR in text for text in self.texts[:100]),
            **self.notices,
        }


_ARRAYS = ("contents", "form", "numbers", "mask", "head", "garbled", "markup", "blank", "sizes")


def look(dataset: Dataset, progress: Progress) -> Seen:
    """Read all texts."""
    N = len(dataset)
    column = dataset.table["text"]
    texts: list[str] = []
    contents, form = bytearray(), bytearray()
    numbers, mask, head = np.zeros(N, np.uint64), np.zeros(N, np.uint64), np.zeros(N, np.uint64)
    garbled, markup, blank = np.zeros(N, bool), np.zeros(N, bool), np.zeros(N, bool)
    sizes = np.zeros((N, 3), np.int64)
    reasons: list[str | None] = [None] * N
    for start in range(0, N, _ROWS):
        for row, text in enumerate(column.slice(start, _ROWS).to_pylist(), start):
            reasons[row] = None if text and text.strip() else "no text"
            text = text or ""
            texts.append(text)
            data, bare = text.encode(), light(text)
            contents += hashlib.blake2b(data, digest_size=16).digest()
            form += hashlib.blake2b(bare.encode(), digest_size=16).digest()
            found = _NUMBER.findall(text)
            if found:
                numbers[row] = _short(",".join(found))
                mask[row] = _short(_NUMBER.sub("0", bare))
            if len(bare) > HEAD:
                head[row] = _short(bare[:HEAD])
            garbled[row], markup[row] = is_garbled(text), has_markup(text)
            blank[row] = not _LETTER.search(text)
            sizes[row] = len(text), words(text), len(data)
        progress("inspect", min(start + _ROWS, N), N)
    return Seen(
        _digests(contents), _digests(form), numbers, mask, head, garbled, markup, blank, sizes, texts, reasons,
        notice(texts),
    )  # fmt: skip


def light(text: str) -> str:
    """The form in which texts are compared: no case, no white space, no marks at the end."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    bare = "".join(text.replace(PAIR, "\u2016").casefold().split())
    return bare.rstrip(_END_MARKS) or bare


def words(text: str) -> int:
    """Words between blanks; a character of a script without blanks counts as one."""
    if text.isascii():
        return len(text.split())
    wide = len(_WIDE.findall(text))
    return wide + len(_WIDE.sub(" ", text).split()) if wide else len(text.split())


def _short(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _digests(block: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(block), np.uint8).reshape(-1, 16)


def _spread(values: NDArray[Any]) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
