"""Numbers of payment cards: issuer, length, and the check digit of Luhn.

    Visa 4 (16, 19)   Mastercard 51-55, 2221-2720 (16)   American Express 34, 37 (15)   Diners 30, 36, 38, 39 (14)
    Discover 6011, 644-649, 65 (16-19)   JCB 3528-3589 (16-19)   UnionPay 62 (16-19)   Mir 2200-2204 (16)
    Maestro 50, 56-58, 63, 67 (16-19)    RuPay 60, 81, 82, 508 (16)

ISO/IEC 7812-1. Visa's 13 digits are not issued any more and would be every tenth EAN that begins with 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch
from topwork.modalities.recognisers._digits import candidates, digits_of, luhn

_GAP = r"[ .\-]{1,2}"
_WRITTEN = re.compile(
    r"[2-68](?<![A-Za-z0-9_].)(?<!\d[.,\-].)(?:"
    r"\d{13,18}"
    rf"|\d{{3}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{4}}(?:\1\d{{3}})?"
    rf"|\d{{3}}({_GAP})\d{{6}}\2\d{{4,5}}"
    rf"|(?<!\d[ .\-].)({_GAP})\d(?:\3\d){{12,17}}"
    r")(?![A-Za-z0-9_])(?![.,\-]\d)"
)
_ISSUED = re.compile(
    r"4\d{15}(?:\d{3})?"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|220[0-4])\d{12}"
    r"|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}"
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|35(?:2[89]|[3-8]\d)|50\d\d|5[678]\d\d|6[37]\d\d)\d{12,15}"
    r"|(?:60\d\d|8[12]\d\d)\d{12}"
)


@dataclass(frozen=True)
class Card:
    """Visa, Mastercard, American Express, UnionPay and others."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """Numbers that an issuer may give out and whose check digit is right."""
        for match in candidates(_WRITTEN, text):
            digits = digits_of(match[0])
            if _ISSUED.fullmatch(digits) and luhn(digits) and digits.strip(digits[0]):
                yield match.span()

    def canonical(self, found: str) -> str:
        """Its digits."""
        return digits_of(found)
