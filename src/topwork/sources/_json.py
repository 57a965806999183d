"""The elements of a JSON list one by one: never more than one of them is in memory, however large the file.

    [{"text": ..., "label": ...}, ...]               a list
    {"version": 1, "data": [{...}, ...], ...}        the list called data in an object
    {...} {...}                                      objects one after the other: no list, `is_lines`

An element may be LONGEST characters long. Behind an element that cannot be read nothing can: `Broken` names its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

LONGEST = 1 << 22  # characters
_BLOCK = 1 << 20
_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_EXPECTED = 'Expected a list of objects, [{"text": ..., "label": ...}, ...], or {"data": [...]}'


class Broken(ValueError):
    """What is wrong, for people; `row` where it is an element of the list."""

    def __init__(self, why: str, row: int | None = None) -> None:
        super().__init__(why)
        self.row = row


def is_lines(file: IO[str]) -> bool:
    """Whether objects stand one after the other, as in JSON lines."""
    try:
        return not _Text(file).enter()
    except Broken:
        return False


def elements(file: IO[str]) -> Iterator[tuple[int, str, Any]]:
    """Number from 1, text and value of each."""
    text, number = _Text(file), 0
    if not text.enter():
        raise Broken(f"holds one object after the other. {_EXPECTED}")
    if text.next() == "]":
        return
    while True:
        number += 1
        try:
            raw, value = text.value()
        except Broken as error:
            raise Broken(str(error), number) from None
        yield number, raw, value
        mark = text.take()
        if mark == "]":
            return
        if mark != ",":
            raise Broken(f"expected , or ] behind it, found {mark!r}" if mark else "the file ends behind it", number)


class _Text:
    """A window that moves over a file."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at = file, "", 0

    def enter(self) -> bool:
        """Go to the first element of the list; False where objects follow one another instead."""
        mark = self.take()
        if mark == "[":
            return True
        if mark != "{":
            raise Broken(f"begins with {mark!r}. {_EXPECTED}" if mark else f"is empty. {_EXPECTED}")
        names: list[str] = []
        while self.next() != "}":
            name = self.value()[1]
            if not isinstance(name, str) or self.take() != ":":
                raise Broken(f"is not JSON: a name and a colon are missing in its object. {_EXPECTED}")
            if name == "data" and self.next() == "[":
                self.take()
                if self.next() in "{]":
                    return True
                raise Broken(f"the list 'data' holds no objects. {_EXPECTED}")
            self.value()
            names.append(name)
            if self.next() == ",":
                self.take()
            elif self.next() != "}":
                raise Broken("is not JSON: expected , or } in its object")
        self.take()
        if self.next() == "{":
            return False
        shown = ", ".join(names[:5]) + " ..." * (len(names) > 5)
        raise Broken(f"holds one object ({shown}) and no list. {_EXPECTED}; pandas writes it with orient='records'")

    def next(self) -> str:
        """The next character that is not blank, "" at the end; it stays."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self) -> str:
        """The same, and go behind it."""
        found = self.next()
        self.at += len(found)
        return found

    def value(self) -> tuple[str, Any]:
        """The next value's text and the value itself."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                raise Broken("is nested too deep") from None
            except json.JSONDecodeError as error:
                why = f"not JSON: {error.msg}"
            except ValueError as error:  # a number of thousands of digits
                raise Broken(f"not JSON: {error}") from None
            else:
                if end < len(self.text) or not self.more():  # 12 may be the beginning of 123
                    raw, self.at = self.text[self.at : end], end
                    return raw, value
                continue
            if len(self.text) - self.at > LONGEST:
                raise Broken(f"{why}, or over {LONGEST:,} characters long")
            if not self.more():
                raise Broken(why)

    def more(self) -> bool:
        """As much again of the file; what lies behind us is forgotten."""
        rest = self.text[self.at :]
        found = self.file.read(max(_BLOCK, len(rest)))
        if found:
            self.text, self.at = rest + found, 0
        return bool(found)
