"""Whatever a caller holds -> the text itself, a str.

str              the text
(str, str)       two texts that belong together
path             a file that holds one text: pathlib.Path("review.txt"); a str is never a path
bytes            a text in UTF-8, or in UTF-16 with its mark
open file        what is left to read in it, text or bytes
"""

from __future__ import annotations

import codecs
import os
from typing import Any, TypeGuard

from topwork.errors import BadData
from topwork.modalities.text import PAIR

ONE = "a text"
EXPECTED = "a str, a pair of them, bytes in UTF-8, a pathlib.Path or an open file"
SHOWN = 120  # letters of a text that name it in an answer
LARGEST_BYTES = 100_000_000  # of a file: no text is so long
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def is_single(x: Any) -> bool:
    """Whether this is one input, not many; a tuple of two str is a pair, a list of two str is two texts."""
    return isinstance(x, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(x, "read") or _is_pair(x)


def name_of(x: Any, number: int) -> str:
    """What to call an input: the path of a file, the text's beginning, else its place in the list."""
    path = x if isinstance(x, os.PathLike) else getattr(x, "name", "") if hasattr(x, "read") else ""
    if isinstance(path, (str, os.PathLike)) and path:
        return os.fsdecode(path)
    if _is_pair(x):
        x = PAIR.join(x)
    return shortened(x) if isinstance(x, str) and x.strip() else f"input {number}"


def shortened(text: str, length: int = SHOWN) -> str:
    """The beginning of a text on one line, the two of a pair with a bar between them."""
    line = " | ".join(" ".join(part[: 4 * length].split()) for part in text[: 8 * length].split(PAIR))
    whole = len(line) <= length and len(text) <= 4 * length
    shown = line if whole else line[: length - 1].rstrip() + "…"
    return shown.encode(errors="replace").decode()  # half a character can be printed nowhere


def text(x: Any) -> str:
    """The text of one input; BadData says what is wrong with it."""
    if isinstance(x, os.PathLike):
        return _from_file(x)
    if hasattr(x, "read"):
        x = x.read()
    if _is_pair(x):
        x = PAIR.join(x)
    if isinstance(x, (bytes, bytearray, memoryview)):
        return _decoded(bytes(x))
    if not isinstance(x, str):
        raise BadData(f"a {type(x).__name__} is not a text. Expected {EXPECTED}")
    try:
        x.encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"not UTF-8: character {error.start + 1} is half of one. Decode it with its own encoding"
        ) from error
    return str(x)


def _is_pair(x: Any) -> TypeGuard[tuple[str, str]]:
    return isinstance(x, tuple) and len(x) == 2 and all(isinstance(part, str) for part in x)


def _from_file(path: os.PathLike[Any]) -> str:
    try:
        if (size := os.stat(path).st_size) > LARGEST_BYTES:
            raise BadData(f"{size / 1e6:,.0f} MB are no text. Expected at most {LARGEST_BYTES / 1e6:,.0f} MB")
        with open(path, "rb") as file:
            return _decoded(file.read(LARGEST_BYTES))
    except OSError as error:
        raise BadData(f"cannot be read: {error.strerror or error}") from error


def _decoded(data: bytes) -> str:
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise BadData(
            f"not {encoding.upper()[:6].rstrip('-')}: byte {error.start + len(mark) + 1} is "
            f"0x{data[error.start + len(mark)]:02x}. Decode it with its own encoding and give the str"
        ) from error
