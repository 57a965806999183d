"""UK national insurance numbers: two letters in use, six digits, A to D.

HM Revenue & Customs, NIM39110: D F I Q U V begin no prefix, O is no second letter, BG GB KN NK NT TN ZZ are not used.
There is no check digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_WRITTEN = re.compile(
    r"[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z](?<![A-Za-z0-9].)[A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z]"
    r"(?<!BG|GB|KN|NK|NT|TN|ZZ)(?<!bg|gb|kn|nk|nt|tn|zz)"
    r"(?:[ -]?\d\d){3}[ -]?[A-Da-d](?![A-Za-z0-9])"
)


@dataclass(frozen=True)
class UkNino:
    """Prefix, number, suffix."""

    rank: ClassVar[int] = 1

    def find(self, text: str) -> Iterator[Stretch]:
        """Numbers with a prefix in use."""
        return (match.span() for match in _WRITTEN.finditer(text))

    def canonical(self, found: str) -> str:
        """Without gaps, in capitals."""
        return "".join(filter(str.isalnum, found)).upper()
