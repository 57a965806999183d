"""Digits and what stands before them: what recognisers of numbers share."""

from __future__ import annotations

import re
from collections.abc import Iterator

REACH = 24  # characters before a number in which a word says what it is
_SPEAKS = re.compile(r"[^\d\s_.,:;()+\-/]")
_OTHERS = bytes(set(range(128)) - set(b"0123456789"))
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")


def digits_of(text: str) -> str:
    """The digits alone."""
    if text.isascii():
        return text.encode().translate(None, _OTHERS).decode()
    return "".join(filter(str.isdecimal, text))


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others: every second one doubled, digits summed, mod 10.

    H. P. Luhn, US patent 2,950,048, 1960; ISO/IEC 7812-1.
    """
    plain, doubled = digits[-1::-2].encode(), digits[-2::-2].encode().translate(_DOUBLED)
    return (sum(plain) + sum(doubled) - 48 * len(digits)) % 10 == 0


def candidates(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """All matches that begin at different places, overlapping ones, too: a wrong one does not hide a right one."""
    at = 0
    while (match := pattern.search(text, at)) is not None:
        yield match
        at = match.start() + 1


def said_before(words: re.Pattern[str], text: str, start: int) -> bool:
    """Whether one of these words stands shortly before; numbers after numbers are told at once."""
    at = max(0, start - REACH)
    return _SPEAKS.search(text, at, start) is not None and words.search(text, at, start) is not None
