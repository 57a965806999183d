"""Addresses of machines, IPv4 and IPv6: no versions, no chapters, no times.

RFC 791; RFC 4291, section 2.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from topwork.modalities.recognisers import Stretch
from topwork.modalities.recognisers._digits import said_before

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|0?\d?\d)"
_FOUR = re.compile(
    rf"(?=\d)(?<![A-Za-z0-9_])(?<![\d.]\.)(?<![A-Za-z0-9][/-]){_OCTET}(?:\.{_OCTET}){{3}}(?![A-Za-z0-9_])(?!\.\d)"
)
_SIX = re.compile(
    r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f:]{3,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?:%[A-Za-z0-9]{1,15})?(?![A-Za-z0-9_:])"
)
_NO_ADDRESS = re.compile(
    r"(?:\bver(?:sion|\.)?s?|\brev(?:ision)?|\brelease|\bbuild|\bfirmware|\bdriver|\bup(?:dat|grad)e[sd]?(?: to)?"
    r"|\bsection|\bsec\.|\bchapter|\bclause|\bstep|\bfig(?:ure|\.)?|\btable|\bparagraph|\barticle|\bappendix|§|版本|章|节|第)"
    r"(?: (?:is|was|number|no\.?))?[ :=#v.\"']{0,3}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class IpAddress:
    """IPv4 and IPv6."""

    rank: ClassVar[int] = 1

    def find(self, text: str) -> Iterator[Stretch]:
        """Valid addresses that nothing calls a version."""
        fours = list(_FOUR.finditer(text))
        versions = {match[0] for match in fours if said_before(_NO_ADDRESS, text, match.start())}
        for match in fours:
            if match[0] not in versions and not match[0].startswith("0."):
                yield match.span()
        for match in _SIX.finditer(text):
            end = match.end() - (match[0].endswith(":") and not match[0].endswith("::"))
            if _is_six(text[match.start() : end]):
                yield match.start(), end

    def canonical(self, found: str) -> str:
        """The shortest way to write it."""
        if ":" in found:
            return str(ipaddress.IPv6Address(found.partition("%")[0]))
        return ".".join(str(int(octet)) for octet in found.split("."))


def _is_six(word: str) -> bool:
    """Whether it is an address that a machine may have: a::b in a program is a name."""
    if word.count(":") < 2 or not any(character.isalnum() for character in word):
        return False
    first, _, rest = word.partition("::")
    long = max(map(len, first.split(":"))) > 2
    if not (long or "::" not in word or (not first and any(map(str.isdecimal, rest)))):
        return False
    try:  # last: it takes the longest
        ipaddress.IPv6Address(word.partition("%")[0])
    except ValueError:
        return False
    return True
