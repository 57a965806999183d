"""EXIF: how a picture lies, when it was taken and by which camera. Read with our own eyes: nothing else is looked at.

An EXIF block is a small TIFF file: a header names the byte order and where the first directory begins; a directory is
a count and 12 bytes per entry: tag, type, count, value or where it lies. CIPA DC-008, Exif 3.0, 2023.
Damaged blocks are common; what cannot be read is not there.
"""

from __future__ import annotations

import calendar
import contextlib
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_ORIENTATION, _MAKE, _MODEL, _TIME, _MORE, _TAKEN, _SERIAL = 0x0112, 0x010F, 0x0110, 0x0132, 0x8769, 0x9003, 0xA431
_LONGEST = 64  # characters of a text that are kept


@dataclass(frozen=True)
class Exif:
    """What is read."""

    turn: int = 1  # orientation: 1 upright, 2 to 8 turned or mirrored
    taken: int = 0  # seconds since 1970 of the camera's own clock; 0: not known
    camera: str = ""  # a hash of maker, model and serial number: which one it is, nobody needs to keep


def read(block: bytes) -> Exif:
    """The facts of an EXIF block, with or without its first six bytes."""
    tiff = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    if not order:
        return Exif()
    found: dict[int, int | str] = {}
    with contextlib.suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        found.update(_directory(tiff, order, start))
    with contextlib.suppress(struct.error):
        if isinstance(more := found.get(_MORE), int):
            found |= {tag: value for tag, value in _directory(tiff, order, more) if tag in (_TAKEN, _SERIAL)}
    turn = found.get(_ORIENTATION, 1)
    told = " ".join(str(found[tag]) for tag in (_MAKE, _MODEL, _SERIAL) if found.get(tag))
    camera = f"camera {hashlib.blake2b(told.encode(), digest_size=4).hexdigest()}" if told else ""
    when = found.get(_TAKEN) or found.get(_TIME)
    return Exif(turn if isinstance(turn, int) and 1 <= turn <= 8 else 1, _seconds(when), camera)


def _directory(tiff: bytes, order: str, start: int) -> Iterator[tuple[int, int | str]]:
    """Numbers and texts of the tags that are asked for, until the block ends."""
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, size, where = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag == _ORIENTATION:
            yield tag, struct.unpack_from(f"{order}H", tiff, entry + 8)[0]
        elif tag == _MORE:
            yield tag, where
        elif tag in (_MAKE, _MODEL, _TIME, _TAKEN, _SERIAL) and kind == 2 and size:
            at = entry + 8 if size <= 4 else where
            text = tiff[at : at + min(size, _LONGEST)].split(b"\0")[0].decode("utf-8", "replace")
            yield tag, " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _seconds(when: int | str | None) -> int:
    """2026:11:21 18:45:00 as seconds since 1970."""
    digits = [int(part) for part in str(when or "").replace(":", " ").split() if part.isdecimal()]
    if len(digits) != 6 or not (1970 < digits[0] < 2200 and 1 <= digits[1] <= 12 and 1 <= digits[2] <= 31):
        return 0
    return calendar.timegm((*digits, 0, 0, 0))
