"""Text to the tokens of a transformer, by its own tokenizer.json: special tokens around it, windows where it is long.

    "What a film!"     [CLS] what a film ! [SEP]
    a pair             [CLS] first [SEP] second [SEP]
    n tokens > M       windows of M tokens that overlap by `overlap`, the last one ending with the text

M is the window without its special tokens. Of a text that needs more than `most` windows the first ones are read and
`cut` says so. Of a pair the longer text is windowed and the other one stands in each window; where both are longer than
half a window, the first one is cut there. `prompt` stands before every text that is no pair ("query: ").

The file is parsed by the `tokenizers` library and by nothing else; what looks like a special token in a text is text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData, BadSetting, BadWeights, MissingExtra
from topwork.modalities.text import PAIR, READER, Tokens

FILE = "tokenizer.json"
MOST = 16  # windows of a text
LARGEST_BYTES = 100_000_000  # of a tokenizer.json; those of a hundred languages take 17 MB
KEPT = 2  # readings that are remembered: a ladder reads the same texts again and again
Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Frame:
    """The special tokens around one text, or around and between two."""

    before: Ids
    between: Ids
    after: Ids

    @property
    def size(self) -> int:
        """Special tokens of a window."""
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Texts to token numbers, under one tokenizer.json. Instances may be shared between threads."""

    source: bytes = field(repr=False)  # the content of tokenizer.json
    longest: int  # tokens of a window, special ones included
    overlap: int = 0  # tokens that two windows of a text share
    most: int = MOST  # windows of a text
    prompt: str = ""
    kind = "tokens"

    def __post_init__(self) -> None:
        if not (self.longest >= 8 and 0 <= self.overlap < self.longest // 2 and self.most >= 1):
            raise BadSetting(
                f"Windows of {self.longest} tokens that share {self.overlap}, at most {self.most} of them. Expected 8 "
                "tokens or more, an overlap below half of them, and one window or more"
            )
        object.__setattr__(self, "_recent", {})

    @classmethod
    def of_files(cls, files: Mapping[str, bytes]) -> TokenReader:
        """What `files` came from; BadWeights where they are damaged."""
        try:
            facts = json.loads(files[READER])
            longest, overlap, most = (int(facts[name]) for name in ("longest", "overlap", "most"))
            reader = cls(files[FILE], longest, overlap, most, str(facts.get("prompt", "")))
        except (KeyError, ValueError, TypeError) as error:
            raise BadWeights(f"{READER} or {FILE} is missing or damaged: {error}. Fit again") from error
        _ = reader.tokenizer
        return reader

    def files(self) -> dict[str, bytes]:
        """tokenizer.json as it is, and how texts are cut."""
        facts = {"kind": self.kind, "longest": self.longest, "overlap": self.overlap, "most": self.most}
        facts |= {"prompt": self.prompt} if self.prompt else {}
        return {READER: json.dumps(facts).encode(), FILE: self.source}

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; opened once in a process."""
        return _opened(self.source)

    @cached_property
    def single(self) -> Frame:
        """What stands around one text."""
        said = self.tokenizer.encode("a")
        inside = np.flatnonzero(np.array(said.special_tokens_mask) == 0)
        first, last = (inside[0], inside[-1] + 1) if len(inside) else (len(said.ids) - 1, len(said.ids) - 1)
        ids = np.array(said.ids, np.int32)
        return Frame(ids[:first], ids[:0], ids[last:])

    @cached_property
    def pair(self) -> Frame:
        """What stands around and between two texts."""
        said = self.tokenizer.encode("a", "a")
        ids, inside = np.array(said.ids, np.int32), np.array(said.special_tokens_mask) == 0
        one, two = (np.flatnonzero(inside & (np.array(said.sequence_ids) == which)) for which in (0, 1))
        if not (len(one) and len(two)):
            raise BadWeights(f"{FILE} reads no pairs of texts. Give one text an item")
        return Frame(ids[: one[0]], ids[one[-1] + 1 : two[0]], ids[two[-1] + 1 :])

    @cached_property
    def separator(self) -> int | None:
        """The token after which the second text begins, where the model tells the texts apart by type."""
        said = self.tokenizer.encode("a", "a")
        second = np.flatnonzero(np.array(said.type_ids) == 1)
        return int(said.ids[second[0] - 1]) if len(second) and second[0] else None

    def read(self, texts: Sequence[str]) -> Tokens:
        """Windows of tokens."""
        key = _key(texts)
        recent: dict[bytes, Tokens] = self._recent  # type: ignore[attr-defined]
        found = recent.get(key)  # asked once: another thread may push it out
        if found is None:
            found = self._read(texts)
            for old in list(recent)[: max(len(recent) - KEPT + 1, 0)]:
                recent.pop(old, None)
            recent[key] = found
        return found

    def _read(self, texts: Sequence[str]) -> Tokens:
        flat, ends = self._encode([text.partition(PAIR)[0] if PAIR in text else self.prompt + text for text in texts])
        paired = np.array([PAIR in text for text in texts], bool)
        other, others = self._encode([text.partition(PAIR)[2] for text in texts if PAIR in text])
        single, step = self.single, self.longest - self.single.size - self.overlap
        body = self.longest - single.size
        lengths = np.diff(ends)
        counts = np.where(lengths > body, 1 + -(-(lengths - body) // step), 1)
        cut = counts > self.most
        if not (paired.any() or (counts > 1).any()):
            return _framed(flat, ends, single, cut)
        parts: list[Ids] = []
        owner: list[int] = []
        second = iter(range(int(paired.sum())))
        for row, is_pair in enumerate(paired):
            tokens = flat[ends[row] : ends[row + 1]]
            if is_pair:
                at = next(second)
                windows, lost = self._pair(tokens, other[others[at] : others[at + 1]])
                cut[row] = lost
            else:
                windows = [
                    np.concatenate([single.before, part, single.after]) for part in self._windows(tokens, body)[0]
                ]
            parts += windows
            owner += [row] * len(windows)
        at = np.append(0, np.cumsum([len(part) for part in parts]))
        return Tokens(np.concatenate([*parts, flat[:0]]), None, at, np.array(owner, np.int64), cut)

    def _windows(self, tokens: Ids, body: int) -> tuple[list[Ids], bool]:
        """At most `most` parts of `body` tokens, and whether something was left over."""
        if len(tokens) <= body:
            return [tokens], False
        step = max(body - self.overlap, 1)
        starts = [*range(0, len(tokens) - body, step), len(tokens) - body]
        return [tokens[start : start + body] for start in starts[: self.most]], len(starts) > self.most

    def _pair(self, one: Ids, two: Ids) -> tuple[list[Ids], bool]:
        """Windows of a pair, and whether something was left over."""
        frame = self.pair
        room = self.longest - frame.size
        if len(one) + len(two) > room and len(one) > room // 2 >= len(two):
            ones, lost = self._windows(one, room - len(two))
            twos = [two] * len(ones)
        else:
            short = one if len(one) + len(two) <= room else one[: room // 2]
            twos, lost = self._windows(two, room - len(short))
            lost, ones = lost or len(short) < len(one), [short] * len(twos)
        return [
            np.concatenate([frame.before, a, frame.between, b, frame.after]) for a, b in zip(ones, twos, strict=True)
        ], lost

    def _encode(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """Numbers of all tokens one after the other, without special ones, and where each text begins and ends."""
        try:
            found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (UnicodeError, TypeError):  # lone surrogates, which no UTF-8 can say
            plain = [text.encode("utf-8", "replace").decode() for text in texts]
            found = self.tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        ids = [one.ids for one in found]
        ends = np.append(0, np.cumsum([len(one) for one in ids], dtype=np.int64)).astype(np.int64)
        return np.fromiter(chain.from_iterable(ids), np.int32, int(ends[-1])), ends


def _framed(flat: Ids, ends: NDArray[np.int64], frame: Frame, cut: NDArray[np.bool_]) -> Tokens:
    """One window a text, special tokens around all of them at once."""
    N, before, after = len(ends) - 1, len(frame.before), len(frame.after)
    outer = ends + np.arange(N + 1) * frame.size
    ids = np.empty(int(outer[-1]), np.int32)
    inside = np.ones(len(ids), bool)
    for j in range(before):
        ids[outer[:-1] + j], inside[outer[:-1] + j] = frame.before[j], False
    for j in range(after):
        ids[outer[1:] - after + j], inside[outer[1:] - after + j] = frame.after[j], False
    ids[inside] = flat
    return Tokens(ids, None, outer, np.arange(N), cut)


def _key(texts: Sequence[str]) -> bytes:
    """A name for these texts in this order; BadData where one is no text."""
    hashed = hashlib.blake2b(digest_size=16)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadData(f"Text {row} is of type {type(text).__name__}. Expected str; write '' for an empty text")
        data = text.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.digest()


@lru_cache(maxsize=4)
def _opened(source: bytes) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra.of("text", "Reading a tokenizer.json") from error
    if len(source) > LARGEST_BYTES:
        raise BadWeights(f"{FILE} takes {len(source) / 1e6:.0f} MB, expected {LARGEST_BYTES / 1e6:.0f} MB at most")
    try:
        tokenizer = Tokenizer.from_buffer(source)
    except Exception as error:  # the library raises a bare Exception
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadWeights(f"{FILE} cannot be read by the tokenizers library: {said}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
