"""Chinese resident identity numbers: region, birthday and a check character.

    sum_{i=0..16} 2^(17 - i) d_i  +  d_17  =  1  (mod 11),   d_17 = 10 is written X

GB 11643-1999; ISO 7064, MOD 11-2.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_PROVINCES = frozenset((*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66)))
_OTHERS = frozenset((71, 81, 82, 83, 91))  # Taiwan, Hong Kong, Macao, residents from there, foreigners
_WRITTEN = re.compile(
    r"[1-9](?<![A-Za-z0-9].)\d{5}([ -]?)(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"\1\d{3}[\dXx](?![A-Za-z0-9])"
)
_WEIGHTS = [2 ** (17 - i) % 11 for i in range(18)]


@dataclass(frozen=True)
class ChineseId:
    """Region, birthday, number, check character."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """Those with a day that there was and the right check character."""
        for match in _WRITTEN.finditer(text):
            if is_valid(self.canonical(match[0])):
                yield match.span()

    def canonical(self, found: str) -> str:
        """Without gaps, X as a capital."""
        return "".join(filter(str.isalnum, found)).upper()


def is_valid(number: str) -> bool:
    """Whether 18 characters have a region, a day and the right check character."""
    if int(number[:2]) not in _PROVINCES | _OTHERS:
        return False
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    values = [10 if character == "X" else int(character) for character in number]
    return sum(w * v for w, v in zip(_WEIGHTS, values, strict=True)) % 11 == 1
