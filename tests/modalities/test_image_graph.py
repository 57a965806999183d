"""Geometry and normalisation as graphs: against Pillow, against float64 by the book, and at the edges."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topwork.errors import BadSetting
from topwork.modalities import image_graph
from topwork.nn import onnx_graph
from topwork.nn.session import session
from topwork.types import Preprocess

PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
REAL = sorted((Path(__file__).parents[3] / "shared/data/broken/images").glob("*.jpg"))


def preprocess(resize_px=64, crop_px=48, interpolation="bilinear", fit="crop") -> Preprocess:
    return Preprocess(resize_px, crop_px, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation, fit)


def crop(pixels: np.ndarray, p: Preprocess) -> np.ndarray:
    """Run the graph on (N, H, W, 3) or one (H, W, 3)."""
    batch = pixels if pixels.ndim == 4 else pixels[None]
    (out,) = session(onnx_graph.to_bytes(image_graph.geometry(p)), 1).run(None, {"pixels": batch})
    return out if pixels.ndim == 4 else out[0]


def torchvisions_plan(height: int, width: int, p: Preprocess) -> tuple[int, int, int, int]:
    """torchvision's Resize and CenterCrop, as it writes them: new height and width, top and left."""
    short, long = min(height, width), max(height, width)
    new_long = int(p.resize_px * long / short)
    h, w = (p.resize_px, new_long) if height <= width else (new_long, p.resize_px)
    return h, w, round((h - p.crop_px) / 2.0), round((w - p.crop_px) / 2.0)


def with_pillow(pixels: np.ndarray, p: Preprocess) -> np.ndarray:
    image = Image.fromarray(pixels)
    if p.fit == "squash":
        # width first, as we do: Pillow takes the cheaper order, which rounds otherwise (0.2 grey levels on average)
        wide = image.resize((p.crop_px, image.height), PILLOW[p.interpolation])
        return np.asarray(wide.resize((p.crop_px, p.crop_px), PILLOW[p.interpolation]))
    h, w, top, left = torchvisions_plan(*pixels.shape[:2], p)
    return np.asarray(image.resize((w, h), PILLOW[p.interpolation]))[top : top + p.crop_px, left : left + p.crop_px]


def weights(size: int, new: int, interpolation: str) -> np.ndarray:
    """Antialiased resampling of one axis, float64 (new, size): the filter stretched by the scale, rows sum to 1."""
    scale = size / new
    centre = (np.arange(new) + 0.5) * scale
    t = np.abs(np.arange(size) + 0.5 - centre[:, None]) / max(scale, 1.0)
    if interpolation == "bilinear":
        w = np.maximum(1 - t, 0)
    else:  # Keys, a = -1/2
        w = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, np.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0))
    return w / w.sum(axis=1, keepdims=True)


def by_the_book(pixels: np.ndarray, p: Preprocess) -> np.ndarray:
    h, w, top, left = torchvisions_plan(*pixels.shape[:2], p)
    rows, columns = (weights(a, b, p.interpolation) for a, b in zip(pixels.shape, (h, w), strict=False))
    wide = np.einsum("jw,hwc->hjc", columns, pixels.astype(np.float64)).clip(0, 255)  # each pass ends in bytes
    return np.einsum("ih,hjc->ijc", rows, wide).clip(0, 255)[top : top + p.crop_px, left : left + p.crop_px]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(float)
    return np.stack([127 + 90 * np.sin(x / 9 + c) * np.cos(y / 11 - c) for c in range(3)], -1).astype(np.uint8)


SIZES = [(64, 64), (97, 64), (64, 97), (200, 131), (33, 50), (20, 79), (79, 20), (500, 301), (65, 66), (48, 48)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES)
def test_crop_against_float64(size, interpolation):
    p = preprocess(interpolation=interpolation)
    difference = np.abs(crop(noise(*size), p) - by_the_book(noise(*size), p))
    assert difference.max() <= 2.0  # two roundings to a byte, the second one after a filter with negative weights
    assert difference.mean() < 0.4  # one rounding alone gives 0.25


@pytest.mark.parametrize("interpolation", list(PILLOW))
@pytest.mark.parametrize("size", SIZES)
def test_crop_against_pillow(size, interpolation):
    p = preprocess(interpolation=interpolation)
    ours, theirs = crop(noise(*size), p).astype(int), with_pillow(noise(*size), p).astype(int)
    assert ours.shape == theirs.shape
    if interpolation == "nearest":
        assert (ours == theirs).mean() > 0.97  # a row exactly between two may go either way
        return
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - theirs).mean() < 0.02


@pytest.mark.skipif(not REAL, reason="no images in ../shared/data")
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_real_photos_against_pillow(interpolation, fit):
    seen = 0
    for path in REAL:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError:  # broken on purpose
            continue
        p = Preprocess(160 if fit == "crop" else 128, 128, (0.5,) * 3, (0.5,) * 3, interpolation, fit)
        assert np.abs(crop(pixels, p).astype(int) - with_pillow(pixels, p)).mean() < 0.01
        seen += 1
    assert seen


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("interpolation", list(PILLOW))
def test_tiny_images(size, interpolation):
    p = preprocess(interpolation=interpolation)
    assert np.abs(crop(noise(*size), p).astype(int) - with_pillow(noise(*size), p)).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 20000), (2, 12)])
def test_extreme_shapes_cost_little(size, fit):
    """Resized whole, 1 x 5000 would be 224 x 1,120,000."""
    p = preprocess(224, 224, fit=fit)
    begun = time.monotonic()
    out = crop(noise(*size), p)
    assert out.shape == (224, 224, 3)
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (21, 333)])
def test_long_images_keep_their_centre(size):
    """Ends are cut off first; nothing moves by more than a quarter of an output pixel."""
    p = preprocess(32, 32)
    ours, theirs = crop(smooth(*size), p).astype(float), with_pillow(smooth(*size), p).astype(float)
    steepest = max(np.abs(np.diff(theirs, axis=axis)).max() for axis in (0, 1))
    assert np.abs(ours - theirs).max() <= 0.25 * steepest + 1


def test_the_right_size_already_is_left_alone():
    assert (crop(noise(64, 64), preprocess(64, 64)) == noise(64, 64)).all()
    assert (crop(noise(64, 64), preprocess(64, 48)) == noise(64, 64)[8:56, 8:56]).all()
    assert (crop(noise(64, 64), preprocess(64, 64, fit="squash")) == noise(64, 64)).all()


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_batch_is_its_images(fit):
    p = preprocess(48, 48, "bicubic", fit)
    batch = np.stack([noise(90, 70, seed) for seed in range(3)])
    assert (crop(batch, p) == np.stack([crop(image, p) for image in batch])).all()


def test_normalise_is_the_formula():
    p = preprocess()
    pixels = noise(48, 48)[None]
    (images,) = session(onnx_graph.to_bytes(image_graph.normalise(p)), 1).run(None, {"crop": pixels})
    expected = ((pixels / 255 - np.array(p.mean)) / np.array(p.std)).transpose(0, 3, 1, 2)
    assert images.dtype == np.float32
    assert np.abs(images - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (preprocess(32, 48), "resize_px"),
        (preprocess(64, 0), "crop_px"),
        (preprocess(64, 48, fit="squash"), "squash"),
        (preprocess(interpolation="lanczos"), "lanczos"),
        (Preprocess(64, 48, (0, 0, 0), (1, 0, 1)), "std"),
    ],
)
def test_settings_that_cannot_work(p, message):
    for make in (image_graph.geometry, image_graph.normalise):
        with pytest.raises(BadSetting, match=message):
            make(p)
