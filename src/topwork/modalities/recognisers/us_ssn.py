"""US social security numbers: 123-45-6789, together where words say so.

Never given out: area 000, 666 or 900 and above, group 00, serial 0000 (Social Security Administration, since 2011).
There is no check digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch
from topwork.modalities.recognisers._digits import digits_of, said_before

_AREA, _GROUP, _SERIAL = (
    r"[0-8](?<![A-Za-z0-9].)(?<!\d[-.,].)(?!(?<=0)00|(?<=6)66)\d{2}",
    r"(?!00)\d{2}",
    r"(?!0000)\d{4}",
)
_WRITTEN = re.compile(rf"{_AREA}(?:([- ]){_GROUP}\1|({_GROUP})){_SERIAL}(?![A-Za-z0-9])(?![-.,]\d)")
_WORDS = re.compile(r"\bssn\b|social[ -]security|\bsoc(?:ial)? ?sec", re.IGNORECASE)


@dataclass(frozen=True)
class UsSsn:
    """Area, group, serial."""

    rank: ClassVar[int] = 1

    def find(self, text: str) -> Iterator[Stretch]:
        """Numbers that could have been given out."""
        for match in _WRITTEN.finditer(text):
            if (match[2] is None and match[1] == "-") or said_before(_WORDS, text, match.start()):
                yield match.span()

    def canonical(self, found: str) -> str:
        """Nine digits."""
        return digits_of(found)
