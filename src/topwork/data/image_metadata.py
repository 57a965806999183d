"""A picture without its metadata: the same pixels, upright, and nothing that tells who, where, when or with what.

    strip(data) -> Stripped(data, found, how)

    JPEG   segments are left out and what follows the end is cut; the pixels' bits stay as they are
    PNG    chunks that no pixel needs are left out, with what follows the end; bits stay
    WebP, GIF   chunks and extensions alike
    TIFF, BMP, PNM   written anew without loss

What EXIF says of the orientation is done: such a JPEG is written anew with its own quantisation tables, turned like the
picture (error of that: tests/data/test_image_metadata.py); other formats without loss. Colour profiles stay: they say
what the numbers mean. EXIF goes with its GPS directory, maker's notes and thumbnail; XMP, IPTC, comments, previews
(MPF) and unknown blocks go, too. ITU-T T.81; CIPA DC-008; PNG 3rd edition, W3C 2025; RFC 9649 (WebP); GIF89a.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topwork.errors import BadData
from topwork.modalities import exif
from topwork.modalities.image import _opened as opened

if TYPE_CHECKING:
    from PIL.Image import Image

_GPS, _THUMBNAIL = 0x8825, 0x0201
_PNG = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV",
     b"cLLI", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT")
)  # fmt: skip
_WEBP = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # GIF extensions that say how often pictures are repeated


@dataclass(frozen=True)
class Stripped:
    """A clean file."""

    data: bytes = field(repr=False)
    found: Counter[str]  # exif, gps, thumbnail, xmp, iptc, comment, preview, trailer, other
    how: str  # "unchanged", "stripped" (the pixels' bits as they were), "turned", "rewritten"


def strip(data: bytes) -> Stripped:
    """The same picture without metadata; BadData where it cannot be read."""
    found: Counter[str] = Counter()
    with opened(data) as image:
        kind = image.format or ""
        image.load()  # damage is told before anything is written
        turn = 1 if kind == "TIFF" else exif.read(image.info.get("exif", b"")).turn
    if kind not in _WALKS:
        _look(data, kind, found)
        return Stripped(_rewritten(data, kind, 1), found, "rewritten")
    try:
        clean = b"".join(_WALKS[kind](data, found))
    except (BadData, IndexError):  # its pixels can be read, but something around them is damaged
        return Stripped(_rewritten(data, kind, turn), found, "rewritten")
    if turn > 1:
        return Stripped(_rewritten(data, kind, turn), found, "turned")
    return Stripped(clean, found, "unchanged" if clean == data else "stripped")


def _jpeg(data: bytes, found: Counter[str]) -> Iterator[bytes]:
    """Segments that the pixels need."""
    at = 2
    yield data[:2]
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        marker = data[at + 1] if at + 1 < len(data) and data[at] == 0xFF else 0
        if marker == 0xD9:
            yield data[at : at + 2]
            _trailer(data[at + 2 :], found)
            return
        if not marker or at + 4 > len(data):
            raise BadData("damaged: a JPEG segment is missing")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            end = _scan_end(data, end)
            yield data[at:end]
        else:
            yield _segment(marker, data[at + 4 : end], data[at:end], found)
        at = end


def _scan_end(data: bytes, at: int) -> int:
    """Where the next marker that is no restart and no stuffed byte begins."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise BadData("truncated: the JPEG does not end")
        if data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
            at += 2
        elif data[at + 1] == 0xFF:
            at += 1
        else:
            return at


def _segment(marker: int, body: bytes, whole: bytes, found: Counter[str]) -> bytes:
    """What is left of one segment."""
    if marker == 0xFE:
        found["comment"] += 1
        return b""
    if not 0xE0 <= marker <= 0xEF:
        return whole
    if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        if body[12] * body[13]:
            found["thumbnail"] += 1
        return b"\xff\xe0\x00\x10" + body[:12] + b"\0\0"
    if marker == 0xEE and body.startswith(b"Adobe"):  # tells what the colours are
        return b"\xff\xee\x00\x0e" + body[:12]
    if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
        return whole
    if marker == 0xE1 and body.startswith(b"Exif\0"):
        _exif(body[6:], found)
    elif marker == 0xE1 and b"ns.adobe.com/xap" in body[:40]:
        found["xmp"] += 1
    elif marker == 0xE0 and body.startswith(b"JFXX"):
        found["thumbnail"] += 1
    elif marker == 0xE2 and body.startswith(b"MPF\0"):
        found["preview"] += 1
    elif marker == 0xED and b"8BIM" in body:
        found["iptc"] += 1
    else:
        found["other"] += 1
    return b""


def _exif(tiff: bytes, found: Counter[str]) -> None:
    """What an EXIF block holds, by the tags of its first two directories."""
    found["exif"] += 1
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4) if order else (0,)
        for _ in range(2 if start else 0):
            (count,) = struct.unpack_from(f"{order}H", tiff, start)
            tags = {struct.unpack_from(f"{order}H", tiff, start + 2 + 12 * i)[0] for i in range(count)}
            found.update(name for tag, name in ((_GPS, "gps"), (_THUMBNAIL, "thumbnail")) if tag in tags)
            (start,) = struct.unpack_from(f"{order}I", tiff, start + 2 + 12 * count)
            if not start:
                break
    except struct.error:
        return  # damaged; it goes as a whole


def _png(data: bytes, found: Counter[str]) -> Iterator[bytes]:
    """Chunks that the pixels need."""
    yield data[:8]
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if end > len(data):
            break
        if name in _PNG:
            yield data[at:end]
        elif name == b"eXIf":
            _exif(body, found)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            _png_text(body, found)
        else:
            found["other"] += 1
        at = end
        if name == b"IEND":
            _trailer(data[at:], found)
            return
    raise BadData("truncated: the PNG does not end")


def _png_text(body: bytes, found: Counter[str]) -> None:
    keyword = body.partition(b"\0")[0]
    if keyword == b"XML:com.adobe.xmp":
        found["xmp"] += 1
    elif keyword.startswith(b"Raw profile type "):
        kind = keyword.removeprefix(b"Raw profile type ").decode("latin-1")
        found[{"exif": "exif", "APP1": "exif", "iptc": "iptc", "xmp": "xmp"}.get(kind, "other")] += 1
    else:
        found["comment"] += 1


def _webp(data: bytes, found: Counter[str]) -> Iterator[bytes]:
    """The RIFF container anew."""
    size = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    kept: list[bytes] = []
    at = 12
    while at + 8 <= size:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        if name == b"VP8X":
            kept.append(name + data[at + 4 : at + 8] + bytes([body[0] & ~0x0C]) + body[1:])  # no EXIF, no XMP
        elif name in _WEBP:
            kept.append(data[at : at + 8] + body + b"\0" * (length % 2))
        elif name == b"EXIF":
            _exif(body.removeprefix(b"Exif\0\0"), found)
        else:
            found["xmp" if name == b"XMP " else "other"] += 1
        at += 8 + length + length % 2
    inside = b"".join(kept)
    yield b"RIFF" + (4 + len(inside)).to_bytes(4, "little") + b"WEBP" + inside
    _trailer(data[size + size % 2 :], found)


def _gif(data: bytes, found: Counter[str]) -> Iterator[bytes]:
    """Blocks that the pictures need."""
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    yield data[:at]
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            yield data[at : at + 1]
            _trailer(data[at + 1 :], found)
            return
        if kind == 0x21:
            end = _gif_blocks(data, at + 2)
            label, name = data[at + 1], data[at + 3 : at + 14]
            if label == 0xF9 or (label == 0xFF and name in _LOOPS):
                yield data[at:end]
            else:
                found["comment" if label == 0xFE else "xmp" if name.startswith(b"XMP Data") else "other"] += 1
        elif kind == 0x2C and at + 10 <= len(data):
            colours = 3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0
            end = _gif_blocks(data, at + 11 + colours)
            yield data[at:end]
        else:
            break
        at = end
    raise BadData("truncated: the GIF does not end")


def _gif_blocks(data: bytes, at: int) -> int:
    """Behind a chain of sub-blocks."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


_WALKS: dict[str, Any] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "GIF": _gif}


def _trailer(rest: bytes, found: Counter[str]) -> None:
    if rest.strip(b"\0\r\n "):
        found["trailer"] += 1


def _look(data: bytes, kind: str, found: Counter[str]) -> None:
    """What a file that is written anew held."""
    if kind == "TIFF":
        _exif(data, found)
        if not found["gps"]:
            del found["exif"]  # every TIFF is a directory
        found.update(name for word, name in ((b"<x:xmpmeta", "xmp"), (b"8BIM", "iptc")) if word in data)
    elif kind == "PPM" and b"#" in data[:4096].partition(b"\n255")[0]:
        found["comment"] += 1


def is_animated(data: bytes) -> bool:
    """Whether a file holds more pictures than the first one."""
    with opened(data) as image:
        return bool(getattr(image, "is_animated", False))


def rewritten(data: bytes, pixels: Any) -> bytes:
    """Other upright pixels (H, W, 3) in the format of a file, without metadata."""
    from PIL import Image

    with opened(data) as image:
        image.load()
        kind, grey, how = image.format or "", image.mode[:1] in ("L", "1", "I"), _how(image, 1)
        if image.mode == "CMYK":
            how.pop("icc_profile", None)  # of other colours
    new = Image.fromarray(pixels)
    return _saved(new.convert("L") if grey else new, kind, how)


def _rewritten(data: bytes, kind: str, turn: int) -> bytes:
    """The picture upright, saved anew."""
    from PIL import Image

    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    with opened(data) as image:
        image.load()
        how = _how(image, turn)
        upright = image.transpose(turned[turn]) if turn > 1 else image.copy()
    upright.info = {name: value for name, value in image.info.items() if name in ("transparency", "gamma")}
    return _saved(upright, kind, how)


def _how(image: Image, turn: int) -> dict[str, Any]:
    """How a file like this one is saved, so that as little as can be changes."""
    how: dict[str, Any] = {}
    if profile := image.info.get("icc_profile"):
        how["icc_profile"] = profile
    if image.format == "JPEG":
        from PIL import JpegImagePlugin

        tables: Any = image.quantization  # type: ignore[attr-defined]
        sampling = JpegImagePlugin.get_sampling(image)
        if turn >= 5:
            tables = {n: [table[8 * (i % 8) + i // 8] for i in range(64)] for n, table in tables.items()}
            sampling = 0 if sampling == 1 else sampling  # 4:2:2 on its side is none that is written
        how |= {"qtables": tables, "subsampling": max(sampling, 0), "optimize": True}
    elif image.format == "WEBP":
        how |= {"lossless": True, "exact": True}
    elif image.format == "TIFF":
        how |= {"compression": "tiff_deflate"}
    return how


def _saved(image: Image, kind: str, how: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    if kind == "PPM" and image.mode == "I":
        image = image.convert("I;16")
    try:
        image.save(out, kind, **how)
    except (OSError, ValueError, zlib.error) as error:
        raise BadData(f"cannot be written as {kind}: {error}") from error
    return out.getvalue()
