"""Preprocessing as ONNX graphs: what features were extracted with is bit for bit what the artefact ships.

    geometry    pixels uint8 (N, H, W, 3), any N, H, W  ->  crop uint8 (N, S, S, 3)
    normalise   crop uint8 (N, S, S, 3)                 ->  images float32 (N, 3, S, S) = (crop / 255 - mean) / std

fit="crop" is torchvision's Resize(R) and CenterCrop(S), antialiased like Pillow (R resize_px, S crop_px, R >= S):
    shorter side -> R, longer side -> floor(R long / short); crop from round((side - S) / 2), halves to even.
An image longer than about 4:1 loses its ends first, evenly, so that time and memory stay within O(HW + R^2). Only the
centre is kept, so this moves nothing by more than a quarter of an output pixel. fit="squash": both sides -> S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topwork.errors import BadSetting
from topwork.types import Preprocess

if TYPE_CHECKING:
    import onnx

# Pillow's filters: what lies outside the image has no weight (ONNX's default repeats the border), bicubic a = -1/2
_RESIZE = {
    "bilinear": 'mode="linear", antialias=1, exclude_outside=1, coordinate_transformation_mode="half_pixel"',
    "bicubic": 'mode="cubic", cubic_coeff_a=-0.5, antialias=1, exclude_outside=1, '
    'coordinate_transformation_mode="half_pixel"',
    "nearest": 'mode="nearest", nearest_mode="round_prefer_ceil", coordinate_transformation_mode="half_pixel"',
}

_CROP = """
<ir_version: 9, opset_import: ["" : 19]>
geometry (uint8[N, H, W, 3] pixels) => (uint8[N, S, S, 3] crop)
<int64 R = {%(resize_px)d}, int64 S = {%(crop_px)d}, int64 zero = {0}, int64 two = {2}, int64 four = {4},
 int64 margin = {8}, int64[1] three = {3}, int64[2] sides = {1, 2}>
{
    n = Shape <start = 0, end = 1> (pixels)
    size = Shape <start = 1, end = 3> (pixels)
    short = ReduceMin (size)

    most = Mul (short, four)
    limit = Add (most, margin)
    over = Sub (size, limit)
    surplus = Max (over, zero)
    first = Div (surplus, two)
    last = Sub (size, first)
    kept = Slice (pixels, first, last, sides)

    scaled = Mul (size, R)
    whole = Div (scaled, short)
    first_scaled = Mul (first, whole)
    lost = Div (first_scaled, size)
    lost_twice = Mul (lost, two)
    kept_size = Sub (whole, lost_twice)
    target = Concat <axis = 0> (n, kept_size, three)
    resized = Resize <%(resize)s> (kept, , , target)

    gap = Sub (whole, S)
    half = Div (gap, two)
    odd = Mod (half, two)
    even_gap = Add (gap, odd)
    offset = Div (even_gap, two)
    top_left = Sub (offset, lost)
    bottom_right = Add (top_left, S)
    crop = Slice (resized, top_left, bottom_right, sides)
}"""

_SQUASH = """
<ir_version: 9, opset_import: ["" : 19]>
geometry (uint8[N, H, W, 3] pixels) => (uint8[N, S, S, 3] crop)
<int64[3] rest = {%(crop_px)d, %(crop_px)d, 3}>
{
    n = Shape <start = 0, end = 1> (pixels)
    target = Concat <axis = 0> (n, rest)
    crop = Resize <%(resize)s> (pixels, , , target)
}"""

_NORMALISE = """
<ir_version: 9, opset_import: ["" : 19]>
normalise (uint8[N, S, S, 3] crop) => (float[N, 3, S, S] images)
{
    planes = Transpose <perm = [0, 3, 1, 2]> (crop)
    levels = Cast <to = 1> (planes)
    scaled = Mul (levels, scale)
    images = Add (scaled, shift)
}"""


def geometry(p: Preprocess) -> onnx.ModelProto:
    """Resize and crop: pixels uint8 (N, H, W, 3) -> crop uint8 (N, S, S, 3)."""
    from onnx import parser

    _check(p)
    text = _SQUASH if p.fit == "squash" else _CROP
    facts = {"resize_px": p.resize_px, "crop_px": p.crop_px, "resize": _RESIZE[p.interpolation]}
    return _with_side(parser.parse_model(text % facts), p.crop_px)


def normalise(p: Preprocess) -> onnx.ModelProto:
    """Scale and standardise: crop uint8 (N, S, S, 3) -> images float32 (N, 3, S, S)."""
    from onnx import numpy_helper, parser

    _check(p)
    model = parser.parse_model(_NORMALISE)
    mean, std = np.asarray(p.mean, np.float64), np.asarray(p.std, np.float64)
    for name, value in (("scale", 1 / (255 * std)), ("shift", -mean / std)):
        plane = value.astype(np.float32).reshape(1, 3, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(plane, name))
    return _with_side(model, p.crop_px)


def _check(p: Preprocess) -> None:
    if p.fit == "squash" and p.resize_px != p.crop_px:
        raise BadSetting(f"fit='squash' needs resize_px = crop_px, not {p.resize_px} and {p.crop_px}")
    if not 1 <= p.crop_px <= p.resize_px:
        raise BadSetting(
            f"A crop of {p.crop_px} px from a shorter side of {p.resize_px} px: crop_px must be 1..resize_px"
        )
    if p.interpolation not in _RESIZE:
        raise BadSetting(f"No interpolation '{p.interpolation}'. Expected one of: {', '.join(_RESIZE)}")
    if len(p.mean) != 3 or len(p.std) != 3 or not all(value > 0 for value in p.std):
        raise BadSetting(f"mean {p.mean} and std {p.std} must be three numbers each, std above 0")


def _with_side(model: onnx.ModelProto, side_px: int) -> onnx.ModelProto:
    """Write the crop's side into the shapes that the text calls S."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "S":
                axis.dim_value = side_px
    return model
