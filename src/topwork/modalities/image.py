"""Images: any file -> upright RGB pixels, and the few facts that tell two pictures apart.

    decode(source, min_px)   pixels uint8 (H, W, 3): EXIF orientation obeyed, alpha on white, 16 bit divided by 257
    describe(data)           Facts: size, mode, format, perceptual hash, sharpness ...; the whole file, decoded small
    thumbnail(source, px)    a small JPEG without metadata

Pillow does the decoding. Its file classes are called directly, by the file's first bytes and not by its name: only the
formats below are ever tried, our own pixel limit holds, and no global state of Pillow is read or changed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import BadData, BadSetting
from topwork.modalities import exif
from topwork.modalities.image_measures import LOOK_PX, exposure, lost_rows, sharpness
from topwork.store import remote

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "bmp",
        "dib",
        "gif",
        "tif",
        "tiff",
        "pgm",
        "ppm",
        "pbm",
        "pnm",
    )
)
READABLE = "jpeg, png, webp, bmp, gif, tiff, pgm"
MAX_PIXELS = 100_000_000  # 300 MB as RGB: more than any camera writes; TOPWORK_MAX_PIXELS overrides it
MAX_BYTES = 2_000_000_000  # of a file

_KINDS = (  # first bytes, Pillow's plugin, its file class
    (b"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (b"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (b"RIFF", "WebPImagePlugin", "WebPImageFile"),
    (b"BM", "BmpImagePlugin", "BmpImageFile"),
    (b"GIF8", "GifImagePlugin", "GifImageFile"),
    (b"II", "TiffImagePlugin", "TiffImageFile"),
    (b"MM", "TiffImagePlugin", "TiffImageFile"),
    *((b"P" + kind, "PpmImagePlugin", "PpmImageFile") for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f")),
)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}  # marks that close a file
_FACTS = struct.Struct("<IIQQ?fBBBB??q")
SKETCH = 16 * 16 + 2 * 4 * 4  # bytes of Facts.sketch
_QUIET = threading.Lock()


@dataclass(frozen=True)
class Facts:
    """What one look at an image tells. Width and height are those of the upright picture."""

    width: int
    height: int
    mode: str  # Pillow's word: RGB, L, P, CMYK, I;16 ...
    format: str
    fingerprint: int  # 64-bit perceptual hash, see `phash`
    blank: bool  # one colour (nearly): its perceptual hash means nothing
    sketch: bytes  # 16 x 16 grey values, then 4 x 4 of Cb and of Cr: confirms what the hash suggests
    mirrored: int = 0  # the hash of the picture seen in a mirror
    sharpness: float = math.nan  # image_measures.sharpness; nan: too small to tell
    dark: int = 0  # grey values below which 1 %
    light: int = 255  # and 99 % of the pixels lie
    lost: int = 0  # rows at the bottom, of 64, that a decoder has filled in
    turn: int = 1  # EXIF orientation; 1: lies as it is
    animated: bool = False  # more pictures than the first one
    ended: bool = True  # the mark that closes the file is there
    taken: int = 0  # seconds since 1970 by the camera's clock; 0: not known
    camera: str = ""

    def to_bytes(self) -> bytes:
        """Compact form for a store."""
        head = _FACTS.pack(
            self.width, self.height, self.fingerprint, self.mirrored, self.blank, self.sharpness, self.dark, self.light,
            self.lost, self.turn, self.animated, self.ended, self.taken,
        )  # fmt: skip
        return head + self.sketch + f"{self.mode} {self.format} {self.camera}".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Facts:
        """Undo `to_bytes`."""
        width, height, fingerprint, mirrored, blank, sharp, dark, light, lost, *rest = _FACTS.unpack_from(data)
        turn, animated, ended, taken = rest
        sketch, words = data[_FACTS.size : _FACTS.size + SKETCH], data[_FACTS.size + SKETCH :].decode()
        mode, kind, camera = words.split(" ", 2)
        return cls(
            width, height, mode, kind, fingerprint, blank, sketch, mirrored, sharp, dark, light, lost, turn, animated,
            ended, taken, camera,
        )  # fmt: skip


def decode(source: str | os.PathLike[str] | bytes, min_px: int | None = None) -> NDArray[np.uint8]:
    """Upright RGB pixels (H, W, 3) of an image file or of its bytes.

    With `min_px` a JPEG may come out smaller by 2, 4 or 8 (scaled inverse DCT: several times faster), its shorter side
    never below min_px. Raises BadData with the reason; the caller knows which item it was.
    """
    with _opened(read_bytes(source)) as image:
        if min_px:
            image.draft(None, (min_px, min_px))
        pixels = np.asarray(_rgb(image))
        return _upright(pixels, _turn(image))


def describe(data: bytes) -> Facts:
    """Size, mode, format, perceptual hashes, sharpness and the like of an image file's bytes; damage raises BadData."""
    from PIL import Image

    with _opened(data) as image:
        mode, kind, (width, height) = image.mode, image.format or "", image.size
        box = (image.draft(None, (LOOK_PX, LOOK_PX)) or ("", None))[1]  # JPEG is rounded up: leave the padding out
        small = _rgb(image).resize((LOOK_PX, LOOK_PX), Image.Resampling.BILINEAR, box=box)
        known = exif.read(image.info.get("exif", b""))
        turn = _turn(image, known.turn)
        animated = bool(getattr(image, "is_animated", False))
    lost = lost_rows(np.asarray(small)) if kind == "JPEG" else 0
    if turn != 1:
        small = Image.fromarray(_upright(np.asarray(small), turn))
    if turn >= 5:
        width, height = height, width
    shades = small.convert("L")  # BT.601
    grey, coarse = np.asarray(shades), np.asarray(shades.reduce(4))  # (64, 64), (16, 16)
    plain, mirrored = _hashes(np.asarray(shades.reduce(2)))
    dark, light = exposure(grey)
    blank = light - dark <= 40 and _one_colour(np.asarray(small))
    sharp = float(np.float32(sharpness(grey, coarse))) if min(width, height) >= LOOK_PX else math.nan
    return Facts(
        width, height, mode, kind, plain, blank, _sketch(coarse, np.asarray(small.reduce(16))), mirrored,
        sharp, dark, light, lost, turn, animated, _ended(data, kind), known.taken, known.camera,
    )  # fmt: skip


def phash(grey: NDArray[Any]) -> int:
    """Perceptual hash: the signs of the lowest frequencies of a 32 x 32 grey picture.

        F = C g C^T,  C[k, n] = cos(pi k (2 n + 1) / 64)       bit (u, v) = F[u, v] > median(F[1..8, 1..8]), u, v = 1..8

    Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010 (DCT hash). Row and column
    0 are left out, as in the author's pHash library: neither brightness nor a plain gradient sets bits.
    """
    return _hashes(grey)[0]


def _hashes(grey: NDArray[Any]) -> tuple[int, int]:
    """The hash of a picture and of its mirror image, whose F[u, v] is (-1)^v F[u, v]."""
    block = _COSINES @ grey @ _COSINES.T  # (8, 8)
    return _bits(block), _bits(block * _MIRROR)


def _bits(block: NDArray[Any]) -> int:
    middle = np.partition(block.ravel(), (31, 32))[31:33].sum() / 2  # the median, in a tenth of its time
    return int.from_bytes(np.packbits(block.ravel() > middle).tobytes(), "big")


def _one_colour(colours: NDArray[np.uint8]) -> bool:
    """Whether no channel varies by 2 or more (standard deviation)."""
    return bool(colours.std((0, 1)).max() < 2.0)


def _ended(data: bytes, kind: str) -> bool:
    """Whether the mark that closes a file is there; what some cameras write behind it is no harm."""
    mark = _ENDS.get(kind)
    return mark is None or data.rfind(mark, max(2, len(data) - (1 << 20))) >= 0


def _sketch(grey: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """16 x 16 grey values, then 4 x 4 of Cb = 128 + 0.564 (B - Y) and of Cr = 128 + 0.713 (R - Y) (ITU-R BT.601)."""
    return grey.tobytes() + (_CHROMA @ colours.reshape(16, 3).T + 128.5).astype(np.uint8).tobytes()


def thumbnail(source: str | os.PathLike[str] | bytes, px: int) -> bytes:
    """A JPEG of at most px x px without metadata."""
    from PIL import Image

    small = Image.fromarray(decode(source, min_px=px))
    small.thumbnail((px, px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()


def read_bytes(source: str | os.PathLike[str] | bytes) -> bytes:
    """The bytes of a file, here, remote or in an archive; why they cannot be read is a BadData like any other."""
    if isinstance(source, bytes):
        return source
    return remote.read(source, MAX_BYTES)


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture that would fill the memory, before it is decoded."""
    text = os.environ.get("TOPWORK_MAX_PIXELS", str(MAX_PIXELS))
    if not text.isdigit():
        raise BadSetting(f"TOPWORK_MAX_PIXELS={text!r} is not a whole number")
    if width * height > int(text):
        raise BadData(
            f"too large: {width} x {height} pixels, the limit is {int(text):,} (TOPWORK_MAX_PIXELS raises it)"
        )


_CHROMA = np.array([[-0.564 * 0.299, -0.564 * 0.587, 0.564 * 0.886], [0.713 * 0.701, -0.713 * 0.587, -0.713 * 0.114]])
_MIRROR = np.where(np.arange(1, 9) % 2, -1.0, 1.0)  # (8,) over v
_COSINES = np.cos(np.pi / 64 * np.outer(np.arange(1, 9), 2 * np.arange(32) + 1))  # (8, 32)


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image]:
    """The image, not yet decoded; whatever Pillow raises inside the block becomes BadData."""
    if not data:
        raise BadData("empty file (0 bytes)")
    plugin, kind = next((tuple(row[1:]) for row in _KINDS if data.startswith(row[0])), ("", ""))
    if not plugin:
        raise BadData(f"not an image in a known format ({READABLE})")
    exif = b""
    if kind == "JpegImageFile":
        data, exif = _without_metadata(data)
    may_warn = kind == "TiffImageFile" or b"acTL" in data[:4096]
    try:
        with _quiet() if may_warn else contextlib.nullcontext():
            image = getattr(importlib.import_module(f"PIL.{plugin}"), kind)(io.BytesIO(data), "")
            check_pixels(*image.size)
            if exif:
                image.info["exif"] = exif
            yield image
    except (BadData, BadSetting):
        raise
    except MemoryError as error:
        raise BadData("does not fit into the memory of this machine") from error
    except Exception as error:  # parsers raise almost anything on damaged bytes
        raise BadData(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    cut = isinstance(error, EOFError) or any(word in text.lower() for word in ("truncat", "not enough", "end of file"))
    return f"truncated: {text}" if cut else f"damaged: {text}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings off for the rare formats whose parser warns; one thread at a time, because filters are global."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG without its APP1..13 and 15 segments, and the EXIF block found there.

    Pillow would parse EXIF just to learn the resolution, and warn where it is damaged. APP0 and APP14 tell the colours.
    """
    keep, at, exif = [data[:2]], 2, b""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            exif = exif or data[at + 4 : end]
        if not 0xE1 <= marker <= 0xEF or marker == 0xEE:
            keep.append(data[at:end])
        at = end
    return b"".join([*keep, data[at:]]), exif


def _turn(image: Image, known: int | None = None) -> int:
    """EXIF orientation of a loaded image, 1 (upright) to 8; anything odd is 1."""
    if image.format == "TIFF":  # Pillow has turned it already
        return 1
    return exif.read(image.info.get("exif", b"")).turn if known is None else known


def _upright(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation (CIPA DC-008, tag 0x0112): 5 to 8 are transposed, the rest are flips."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):  # bottom first
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):  # right first
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _rgb(image: Image) -> Image:
    """Any mode as RGB: transparency on white, more than 8 bits scaled, not clipped."""
    from PIL import Image as pillow

    if image.mode[0] in "IF":
        image.load()
        return pillow.fromarray(_eight_bits(np.asarray(image), image.mode, image.format)).convert("RGB")
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    image.load()  # before looking: transparency can come after the header
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return pillow.alpha_composite(pillow.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: NDArray[Any], mode: str, kind: str | None) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits or floats as 0..255.

    16 bit: divided by 257 (65535 -> 255). 32 bit and float: from the smallest of 0..1 (float only), 0..255, 0..65535
    that holds them all, else from their own range.
    """
    if mode.startswith("I;16") or kind == "PPM":
        return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = values[np.isfinite(values)] if mode == "F" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    ceilings = [top for top in ((1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)) if high <= top]
    if low >= 0 and ceilings:
        low, high = 0.0, ceilings[0]
    with np.errstate(invalid="ignore"):
        scaled = (values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-30))
    return np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
