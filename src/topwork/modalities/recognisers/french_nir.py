"""French social security numbers (NIR): sex, year, month, place, order, and a key of two digits.

    key = 97 - (the thirteen digits mod 97);  in them 2A (Corse-du-Sud) counts as 19, 2B as 18

INSEE; decree 82-103 of 1982.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_WRITTEN = re.compile(
    r"[12](?<![A-Za-z0-9].)(?<!\d[-.,].)([ .\-]?)\d\d\1(?:0[1-9]|1[0-2]|[2-9]\d)\1(?:\d\d|2[ABab])\1\d{3}\1\d{3}"
    r"[ .\-]?\d\d(?![A-Za-z0-9])(?![.,\-]\d)"
)


@dataclass(frozen=True)
class FrenchNir:
    """NIR with its key."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """Those whose key is right."""
        for match in _WRITTEN.finditer(text):
            plain = self.canonical(match[0])
            number = plain[:13].replace("2A", "19").replace("2B", "18") if not plain.isdecimal() else plain[:13]
            if 97 - int(number) % 97 == int(plain[13:]):
                yield match.span()

    def canonical(self, found: str) -> str:
        """Without gaps, in capitals."""
        return "".join(filter(str.isalnum, found)).upper()
