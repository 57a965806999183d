"""What opens doors: passwords in addresses, tokens, keys of well-known makes.

https://anna:secret@host/       anna:secret           postgresql:// and every other scheme, too
?access_token=...&id=3          the value             also key, sig, password, auth, session, secret, code
ghp_..., AKIA..., eyJ...        all of it             GitHub, AWS, JSON web tokens, Slack, Google, Stripe, OpenAI
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch

_USER = re.compile(r"://([^\s/@:\[\]\"'<>]{0,128}:[^\s/@\[\]\"'<>]{1,256})@")
_VALUE = re.compile(
    r"[?&#](?:[a-z_-]{0,20}token|(?:api|access|secret|private|auth)?[_-]?key(?:[_-]?id)?|sig|signature|x-amz-signature"
    r"|pass(?:word|wd)?|pwd|secret|client[_-]secret|auth|session(?:[_-]?id)?|sid|code)=([^\s&#\[\]\"'<>]{1,2048})",
    re.IGNORECASE,
)
_MAKES = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}"
    r"|eyJ[\w-]{10,2048}\.eyJ[\w-]{10,4096}\.[\w-]{10,1024}|xox[abeoprs]-[A-Za-z0-9-]{10,250}|AIza[\w-]{35}"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,128}|sk-(?:proj-|ant-)?[\w-]{32,200})(?![A-Za-z0-9_])"
)
_BEGIN = re.compile(r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----")
_END = re.compile(r"-----END [A-Z ]{0,24}KEY-----")


@dataclass(frozen=True)
class Credentials:
    """Passwords and tokens."""

    rank: ClassVar[int] = 0

    def find(self, text: str) -> Iterator[Stretch]:
        """The secret part alone; the address around it stays."""
        for pattern in (_USER, _VALUE):
            for match in pattern.finditer(text):
                yield match.span(1)
        yield from (match.span() for match in _MAKES.finditer(text))
        ends = [match.end() for match in _END.finditer(text)] if "PRIVATE KEY-----" in text else []
        for match in _BEGIN.finditer(text) if ends else ():
            if (at := bisect.bisect(ends, match.end())) < len(ends):
                yield match.start(), ends[at]

    def canonical(self, found: str) -> str:
        """As it is."""
        return found
