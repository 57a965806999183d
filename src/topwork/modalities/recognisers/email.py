"""E-mail addresses, also anna(at)example(dot)org and those in other scripts.

Names of files (icon@2x.png), versions (react@18.2.0) and the git user of a server are none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

LONGEST = 256  # characters before the @
_AT = re.compile(r"@| ?[\[({<] ?at ?[\])}>] ?", re.IGNORECASE)
_DOT = r"(?:\.| ?[\[({<] ?dot ?[\])}>] ?)"
_DOMAIN = re.compile(
    rf"(?:[\w-]{{1,63}}{_DOT}){{1,8}}(xn--[a-z0-9-]{{2,59}}|[a-z]{{2,24}}|рф|公司|中国|中國|网络|网址|台灣|香港|한국)",
    re.IGNORECASE,
)
_FILES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "ico", "css", "js", "ts", "json", "html", "xml", "txt", "md",
     "py", "pdf", "mp3", "mp4", "wav", "zip", "gz")
)  # fmt: skip
# letters of Latin, Greek and Cyrillic are written with a gap to an address; others end it
_NAME = frozenset("._%+'-") | {character for character in map(chr, range(0x530)) if character.isalnum()}


@dataclass(frozen=True)
class Email:
    """Name, @ and domain."""

    rank: ClassVar[int] = 1

    def find(self, text: str) -> Iterator[Stretch]:
        """Every @ that has a domain behind and a name before it."""
        for at in _AT.finditer(text):
            domain = _DOMAIN.match(text, at.end())
            if domain is None:
                continue
            end, before = domain.end(), at.start()
            if domain[1].lower() in _FILES:  # anna@example.org.jpg
                shorter = _DOMAIN.match(text, at.end(), domain.start(1) - 1)
                end = shorter.end() if shorter is not None and shorter.end() == domain.start(1) - 1 else 0
            start = _begin(text, before) if end else before
            if start < before and text[start:before] != "git":
                yield start, end

    def canonical(self, found: str) -> str:
        """Lower case, with @ and dots."""
        plain = re.sub(rf"(?i){_AT.pattern}", "@", unicodedata.normalize("NFKC", found), count=1)
        return re.sub(rf"(?i){_DOT}", ".", plain).casefold()


def _begin(text: str, at: int) -> int:
    """Where the name before an @ begins."""
    least = max(0, at - LONGEST)
    start = at
    while start > least and text[start - 1] in _NAME:
        start -= 1
    if start == at:  # a script that is written without blanks
        while start > least and text[start - 1].isalnum():
            start -= 1
    while start < at and text[start] in ".'-%+":
        start += 1
    return start
