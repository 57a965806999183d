"""Addresses of network cards: six or eight pairs, or Cisco's three groups.

IEEE 802, EUI-48 and EUI-64. Pairs with dashes and groups with dots need a letter among them: else they may be dates,
lots or phone numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_WRITTEN = re.compile(
    r"[0-9A-Fa-f](?<![A-Za-z0-9:.\-].)(?:[0-9A-Fa-f](?P<gap>[:-])(?:[0-9A-Fa-f]{2}(?P=gap)){4}[0-9A-Fa-f]{2}"
    r"(?:(?P=gap)[0-9A-Fa-f]{2}(?P=gap)[0-9A-Fa-f]{2})?"
    r"|[0-9A-Fa-f]{3}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![A-Za-z0-9])(?![:.\-][A-Za-z0-9])"
)


@dataclass(frozen=True)
class MacAddress:
    """EUI-48 and EUI-64."""

    rank: ClassVar[int] = 1

    def find(self, text: str) -> Iterator[Stretch]:
        """Addresses that are no other kind of number."""
        for match in _WRITTEN.finditer(text):
            if match["gap"] == ":" or any(map(str.isalpha, match[0])):
                yield match.span()

    def canonical(self, found: str) -> str:
        """Its digits in lower case."""
        return "".join(filter(str.isalnum, found)).lower()
