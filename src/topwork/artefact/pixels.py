"""Whatever a caller holds -> pixels uint8 (H, W, 3), by the rules that image files follow.

path, bytes      decoded as in training: large JPEGs at reduced size
PIL image        EXIF upright, any mode; a JPEG that is opened but not loaded yet: like its file
numpy array      (H, W), (H, W, 1), (H, W, 3) or (H, W, 4, alpha on white); uint8, uint16, or floats in 0..1
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import BadData
from topwork.modalities.image import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

ONE = "an image"
EXPECTED = "a path, the bytes of an image file, a PIL image or a numpy array (H, W, 3)"


def is_single(x: Any) -> bool:
    """Whether this is one input, not many."""
    if isinstance(x, np.ndarray):
        return x.ndim in (2, 3)
    return isinstance(x, (str, os.PathLike, bytes, bytearray, memoryview)) or _is_pillow(x)


def name_of(x: Any, number: int) -> str:
    """What to call an input: its path, else its place in the list."""
    path = x if isinstance(x, (str, os.PathLike)) else getattr(x, "filename", "")
    return os.fsdecode(path) if path else f"input {number}"


def pixels(x: Any, min_px: int | None = None) -> NDArray[np.uint8]:
    """Upright RGB pixels (H, W, 3) of one input; BadData says what is wrong with it."""
    if isinstance(x, (str, os.PathLike)):
        return decode(x, min_px)
    if isinstance(x, (bytes, bytearray, memoryview)):
        return decode(bytes(x), min_px)
    if isinstance(x, np.ndarray):
        return _from_array(x)
    if _is_pillow(x):
        return _from_pillow(x, min_px)
    raise BadData(f"a {type(x).__name__} is not an image. Expected {EXPECTED}")


def _is_pillow(x: Any) -> bool:
    from PIL import Image

    return isinstance(x, Image.Image)


def _from_array(x: NDArray[Any]) -> NDArray[np.uint8]:
    grey = x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 1)
    if not x.size or not (grey or (x.ndim == 3 and x.shape[2] in (3, 4))):
        fix = ": use x.transpose(1, 2, 0)" if x.ndim == 3 and x.shape[0] in (1, 3, 4) else ""
        raise BadData(f"an array of shape {x.shape} is not an image. Expected (H, W), (H, W, 3) or (H, W, 4){fix}")
    values = _eight_bits(x)
    if grey:
        return np.ascontiguousarray(np.broadcast_to(values.reshape(*x.shape[:2], 1), (*x.shape[:2], 3)))
    if x.shape[2] == 4:
        from PIL import Image

        return _from_pillow(Image.fromarray(values, "RGBA"))
    return np.ascontiguousarray(values)


def _eight_bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    if x.dtype == np.uint8:
        return x
    if x.dtype == np.uint16:
        return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 -> 255
    if not np.issubdtype(x.dtype, np.floating):
        raise BadData(f"an array of {x.dtype} is not an image. Expected uint8, uint16, or floats in 0..1")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise BadData(f"floats in {low:.4g}..{high:.4g} are not an image. Expected 0..1, or uint8 in 0..255")
    return (x * 255).round().astype(np.uint8)


def _from_pillow(image: Image, min_px: int | None = None) -> NDArray[np.uint8]:
    """Where transparency or more than 8 bits need a rule, the file decoder's rule is used: written and read again."""
    from PIL import ImageOps

    try:
        if data := _unread_jpeg(image):
            return decode(data, min_px)
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":
            return decode(_as_file(image, "TIFF"))
        if image.has_transparency_data:
            return decode(_as_file(image.convert("RGBA"), "PNG", compress_level=0))
        return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, BadData):
            raise
        raise BadData(f"damaged: {error}") from error


def _unread_jpeg(image: Any) -> bytes:
    """The file behind an image that was opened and not loaded; `draft` on the caller's own image would change it."""
    if image.format not in ("JPEG", "MPO") or not image.tile or not image.fp:
        return b""
    at = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(at)
    return data


def _as_file(image: Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
