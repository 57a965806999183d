"""International bank account numbers: length by country, checked modulo 97.

    move the first four characters to the end, A = 10 ... Z = 35, as one number: its remainder by 97 is 1

ISO 13616; lengths from the SWIFT IBAN registry, 2024.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_LENGTHS = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
LENGTHS = {country: length for length, countries in _LENGTHS.items() for country in countries.split()}
_BEGIN = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z][ -]?\d(?=[ -]?\d)")
_BODY = {n: re.compile(rf"(?:[A-Za-z0-9][ \-]?){{{n - 1}}}[A-Za-z0-9](?![A-Za-z0-9])") for n in _LENGTHS}


@dataclass(frozen=True)
class Iban:
    """Country, check digits, account."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """Those with the right length and remainder."""
        for begin in _BEGIN.finditer(text):
            length = LENGTHS.get(begin[0][:2].upper())
            match = _BODY[length].match(text, begin.start()) if length else None
            if match is not None and remainder(self.canonical(match[0])) == 1:
                yield match.span()

    def canonical(self, found: str) -> str:
        """Capitals and digits without gaps."""
        return "".join(filter(str.isalnum, found)).upper()


def remainder(iban: str) -> int:
    """Of the number that an IBAN without gaps stands for, by 97."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97
