"""Spanish identity numbers: DNI and NIE, eight digits and a letter that checks them.

    letter = TRWAGMYFPDXBNJZSQVHLCKE[number mod 23];  of a NIE X, Y, Z in front count as 0, 1, 2

Real Decreto 1553/2005; Ministerio del Interior.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_WRITTEN = re.compile(
    r"[0-9XYZxyz](?<![A-Za-z0-9].)(?<!\d[-.,].)(?:[ -]?\d{7}|\d\.?\d{3}\.?\d{3})[ -]?[A-HJ-NP-TV-Za-hj-np-tv-z]"
    r"(?![A-Za-z0-9])"
)


@dataclass(frozen=True)
class SpanishId:
    """DNI and NIE."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """Those whose letter is right."""
        for match in _WRITTEN.finditer(text):
            plain = self.canonical(match[0])
            number = plain[:-1].translate(str.maketrans("XYZ", "012"))
            if LETTERS[int(number) % 23] == plain[-1]:
                yield match.span()

    def canonical(self, found: str) -> str:
        """Without gaps, in capitals."""
        return "".join(filter(str.isalnum, found)).upper()
