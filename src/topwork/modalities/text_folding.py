"""A text as recognisers read it: plain digits, blanks and dashes, nothing invisible.

    folded, places = fold("＋８６ 138\u200b0013\u200b8000")     "+86 13800138000"
    where(places, start, end)                              the same stretch of the text as it was

Characters are folded one by one, so that every place of the folded text is a place of the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d")
_UNSEEN = frozenset((0x034F, 0x20E3, 0x3164, *range(0x0332, 0x0339), *range(0xFE00, 0xFE10)))  # besides category Cf


class _Table(dict[int, "int | None"]):
    """Code point -> code point, or None where it is dropped; learnt as they come."""

    def __missing__(self, code: int) -> int | None:
        self[code] = found = _folded(code)
        return found


def fold(text: str) -> tuple[str, Sequence[int] | None]:
    """The folded text, and of each of its characters the place in `text`; None: the same places."""
    if text.isascii() and "\t" not in text:
        return text, None
    folded = text.translate(_TABLE)
    if len(folded) == len(text):
        return folded, None
    return folded, [i for i, character in enumerate(text) if _TABLE[ord(character)] is not None]


def where(places: Sequence[int] | None, start: int, end: int) -> tuple[int, int]:
    """The stretch of the text that folded[start:end] came from; start < end."""
    return (start, end) if places is None else (places[start], places[end - 1] + 1)


def _folded(code: int) -> int | None:
    character = chr(code)
    kind = unicodedata.category(character)
    if kind == "Cf" or code in _UNSEEN:
        return None
    if kind == "Nd":
        return ord("0") + unicodedata.decimal(character)
    if kind == "Zs" or character == "\t":
        return ord(" ")
    if character in _DASHES:
        return ord("-")
    if 0xFF00 <= code <= 0xFFEF or 0xFE50 <= code <= 0xFE6F or 0x1D400 <= code <= 0x1D7FF:  # forms of ASCII characters
        plain = unicodedata.normalize("NFKC", character)
        return ord(plain) if len(plain) == 1 else code
    return code


_TABLE = _Table()
