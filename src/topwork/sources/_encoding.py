"""The text encoding of a file, told by its bytes: UTF-8, UTF-16, UTF-32, GB18030 or Western 8 bit.

A byte order mark or many NULs decide first; then UTF-8 of the whole file; then UTF-8 with damaged lines, where most of
the lines that are not ASCII are good (the others are left out, `damaged`); then GB18030 where it looks Chinese; then
Western (cp1252: at most a fifth of its letters are not ASCII, `western`), or refused: every 8-bit text
"decodes" as Western, Cyrillic too, and would silently be taken for something else.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from topwork.errors import BadData
from topwork.store import remote

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BLOCK = 1 << 20
_MOST_WESTERN = 0.2  # of all letters: German has 2 %, French 4 %, Cyrillic in 8 bits nearly all


@dataclass(frozen=True)
class Encoding:
    """How the bytes of one file are read."""

    name: str
    said: str = ""  # a note where it is not plain UTF-8
    damaged: int = 0  # lines that are not valid UTF-8
    western: bool = False  # guessed: any bytes decode so

    @property
    def certain(self) -> bool:
        """Whether the whole file decodes as what it says it is."""
        return not (self.damaged or self.western)

    def open(self, path: str, newline: str | None = None) -> IO[str]:
        """The file as text; bytes that are no UTF-8 become lone surrogates, see `is_damaged`."""
        errors = "surrogateescape" if self.damaged else "replace" if self.western else "strict"
        return open(remote.local(path), encoding=self.name, errors=errors, newline=newline)


def encoding_of(path: str) -> Encoding:
    """The encoding of a file; BadData where it cannot be told."""
    with open(remote.local(path), "rb") as file:
        head = file.read(1 << 16)
    likely = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if likely is None and len(head) > 3 and max(head[0::2].count(0), head[1::2].count(0)) > len(head) / 8:
        likely = "utf-16-be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16-le"
    if _decodes(path, likely or "utf-8"):
        said = {"utf-8": "", "utf-8-sig": "UTF-8 with a byte order mark"}
        name = likely or "utf-8"
        return Encoding(name, said.get(name, f"text encoding {name.upper()}, told by its bytes"))
    if likely in (None, "utf-8-sig"):
        return _of_lines(path, likely or "utf-8", _looks_chinese(head))
    raise refusal(path)


def decode(data: bytes) -> tuple[str, str]:
    """The text of a small file and the name of its encoding; BadData where it cannot be told."""
    name = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode(name), name
    lines = _Lines.of(data.splitlines())
    if name == "utf-8" and lines.good > lines.bad:
        raise BadData("some of its lines are not valid UTF-8")
    if name == "utf-8" and _looks_chinese(data):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("gb18030"), "gb18030"
    if name == "utf-8" and not lines.good and lines.western:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("cp1252"), "cp1252"
    raise BadData("its text is neither UTF-8, UTF-16 nor GB18030")


@dataclass(frozen=True)
class _Lines:
    """Lines that are not ASCII: how many are UTF-8, and letters of the 8-bit half and of ASCII in all of them."""

    good: int
    bad: int
    high: int
    plain: int

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> _Lines:
        good = bad = high = plain = 0
        for line in lines:
            if line.isascii():
                continue
            try:
                line.decode()
                good += 1
            except UnicodeDecodeError:
                bad += 1
            plain += len(re.findall(rb"[A-Za-z]", line))
            high += len(re.findall(rb"[\xa0-\xff]", line))
        return cls(good, bad, high, plain)

    @property
    def western(self) -> bool:
        return self.high <= _MOST_WESTERN * (self.high + self.plain)


def refusal(path: str) -> BadData:
    """What is said of a file that cannot be decoded."""
    return BadData(f"{path}: its text is neither UTF-8, UTF-16 nor GB18030. Save it again as UTF-8")


def is_damaged(text: str) -> bool:
    """Whether a text holds half a surrogate pair: bytes that were no UTF-8, or a broken escape in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _of_lines(path: str, name: str, chinese: bool) -> Encoding:
    """UTF-8 with damaged lines, GB18030 or Western."""
    with open(remote.local(path), "rb") as file:
        lines = _Lines.of(file)
    if lines.good > lines.bad or (lines.good and name == "utf-8-sig"):
        many = "1 line is" if lines.bad == 1 else f"{lines.bad:,} lines are"
        return Encoding(name, f"{many} not valid UTF-8 and left out", damaged=lines.bad)
    if name == "utf-8" and chinese and _decodes(path, "gb18030"):
        return Encoding("gb18030", "text encoding GB18030, told by its bytes")
    if lines.good:
        both = f"{lines.good:,} lines are UTF-8 and {lines.bad:,} are not"
        raise BadData(f"{path}: mixes encodings, {both}. Save it again as UTF-8")
    if name == "utf-8" and lines.western:
        return Encoding("cp1252", "text encoding Western (cp1252), guessed: its bytes are not UTF-8", western=True)
    raise refusal(path)


def _decodes(path: str, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open(remote.local(path), "rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _looks_chinese(head: bytes) -> bool:
    """False for Western 8-bit text: it may decode too, but into rare characters (second byte in the ASCII range)."""
    wide = re.findall(rb"[\x81-\xfe]([\x30-\x39][\x81-\xfe][\x30-\x39]|[\x40-\x7e\x80-\xfe])", head)
    return sum(len(rest) == 3 or rest[0] >= 0xA1 for rest in wide) >= len(wide) / 2
