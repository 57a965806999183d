import contextlib
import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from topwork.errors import BadData, BadSetting
from topwork.modalities.image import Facts, decode, describe, thumbnail

BROKEN = Path(__file__).parents[3] / "shared/data/broken"
needs_broken = pytest.mark.skipif(not BROKEN.is_dir(), reason=f"{BROKEN} is not here")


def scene(width=120, height=90, seed=0):
    """A smooth picture that is not symmetric in any way."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_the_pixels_that_pillow_gives(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(scene(), kind, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    facts = describe(data)
    assert (facts.width, facts.height, facts.format, facts.blank) == (120, 90, kind, False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_obeyed(turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(scene(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)
    facts = describe(data)
    assert (facts.height, facts.width) == expected.shape[:2]
    upright = describe(saved(Image.fromarray(expected), "PNG"))
    assert (facts.fingerprint ^ upright.fingerprint).bit_count() <= 4


def test_png_orientation_behind_the_pixels():
    plain = saved(scene(), "PNG")
    exif = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    assert decode(plain[:-12] + chunk + plain[-12:]).shape == (120, 90, 3)


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = np.round(values / 257).astype(int)
    for kind in ("PNG", "TIFF", "PPM"):
        got = decode(saved(Image.fromarray(values), kind))
        assert np.abs(got[..., 0].astype(int) - expected).max() <= 1, kind
        assert (got[..., 0] == got[..., 2]).all()
    big_endian = saved(Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes()), "TIFF")
    assert np.abs(decode(big_endian)[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 65535), (-5000, 90000)])
def test_32_bit_and_float_values_fit(low, high):
    for dtype in (np.int32, np.float32):
        values = np.linspace(low, high, 32 * 32).reshape(32, 32).astype(dtype)
        got = decode(saved(Image.fromarray(values), "TIFF"))[..., 0]
        expected = (values.astype(float) - low) * 255 / (high - low)
        assert np.abs(got - expected).max() <= 1
    unit = np.linspace(0, 1, 32 * 32).reshape(32, 32).astype(np.float32)
    unit[0, 0] = np.nan
    assert decode(saved(Image.fromarray(unit), "TIFF"))[..., 0].max() == 255


def test_transparency_lies_on_white():
    half = Image.new("RGBA", (20, 20), (200, 0, 0, 128))
    half.putpixel((0, 0), (0, 0, 0, 0))
    expected = np.round(np.array([200, 0, 0]) * 128 / 255 + 255 * 127 / 255)
    for kind in ("PNG", "WEBP", "TIFF"):
        pixels = decode(saved(half, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert (pixels[0, 0] == 255).all()
        assert np.abs(pixels[5, 5] - expected).max() <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 0), 0)
    for transparency in (0, b"\x00\xff"):
        pixels = decode(saved(palette, "PNG", transparency=transparency))
        assert pixels[0, 1].tolist() == [255, 255, 255]
        assert pixels[0, 0].tolist() == [10, 20, 30]
    grey = Image.new("LA", (4, 4), (50, 0))
    assert (decode(saved(grey, "PNG")) == 255).all()
    assert (decode(saved(Image.new("RGB", (4, 4), (9, 9, 9)), "PNG", transparency=(9, 9, 9))) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes(mode):
    image = scene().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    np.testing.assert_array_equal(decode(saved(image, kind)), np.asarray(image.convert("RGB")))


def test_adobe_cmyk_jpeg_is_not_inverted():
    pixels = decode(saved(scene().convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(pixels - np.asarray(scene())).mean() < 8


def test_the_marker_that_tells_cmyk_from_ycck_is_kept():
    data = bytearray(saved(scene().convert("CMYK"), "JPEG", quality=95))
    at = data.index(b"Adobe") + 11  # the colour transform
    for transform in (0, 2):
        data[at] = transform
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode(bytes(data)), np.asarray(image.convert("RGB")))


def test_a_scaled_jpeg_is_described_like_the_whole_picture():
    for width, height in ((513, 517), (519, 600), (601, 999)):
        image = scene(width, height)
        whole, scaled = describe(saved(image, "PNG")), describe(saved(image, "JPEG", quality=98))
        apart = np.frombuffer(whole.sketch, np.uint8).astype(int) - np.frombuffer(scaled.sketch, np.uint8)
        assert np.abs(apart).max() <= 2


def test_warnings_of_parsers_stay_inside():
    note = "x" * 40
    tiff = bytearray(saved(scene(), "TIFF", description=note))
    at = tiff.index(struct.pack("<HHI", 270, 2, 41))  # tag ImageDescription, text, 41 bytes
    tiff[at + 4 : at + 8] = struct.pack("<I", 1 << 30)  # its text is longer than the file
    np.testing.assert_array_equal(decode(bytes(tiff)), np.asarray(scene()))
    png = saved(scene(), "PNG")
    chunk = b"acTL" + struct.pack(">II", 0, 0)
    png = png[:33] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
    np.testing.assert_array_equal(decode(png), np.asarray(scene()))


def test_scaled_decoding_never_falls_below_what_is_asked():
    image = scene(801, 603)
    data = saved(image, "JPEG", quality=95)
    for min_px, height in ((None, 603), (400, 603), (301, 302), (150, 151), (75, 76), (10, 76)):
        pixels = decode(data, min_px)
        assert pixels.shape[0] == height
        assert min(pixels.shape[:2]) >= (min_px or 0)
        small = np.asarray(image.resize(pixels.shape[1::-1], Image.Resampling.BOX)).astype(int)
        assert np.abs(pixels - small).mean() < 4
    assert decode(saved(image, "PNG"), 100).shape == (603, 801, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (30, 20), colour) for colour in ((200, 10, 10), (10, 200, 10))]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode(data)[0, 0, 0] > 150, kind


def test_damage_has_a_reason():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        data = saved(noise, kind)
        for part in (0.1, 0.6, 0.9):
            for function in (decode, describe):
                with pytest.raises(BadData, match=r"^(truncated|damaged)") as caught:
                    function(data[: int(len(data) * part)])
                assert "\n" not in str(caught.value)
    with pytest.raises(BadData, match="empty file"):
        decode(b"")
    with pytest.raises(BadData, match="known format"):
        decode(b"just text")
    with pytest.raises(BadData, match="cannot be read: No such file"):
        decode("nowhere.jpg")


def test_random_damage_never_escapes():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"):
        exif = Image.Exif()
        exif[0x0112] = 6
        whole = saved(scene(40, 30), kind, **({} if kind in ("BMP", "PPM", "GIF") else {"exif": exif}))
        for _ in range(40):
            data = bytearray(whole)
            for at in rng.integers(4, len(data), 4):
                data[at] = rng.integers(256)
            with contextlib.suppress(BadData):
                describe(bytes(data))


def test_pixel_limit_holds_before_decoding(monkeypatch):
    data = saved(Image.new("L", (400, 300)), "PNG")
    monkeypatch.setenv("TOPWORK_MAX_PIXELS", "119999")
    with pytest.raises(BadData, match="400 x 300 pixels, the limit is 119,999"):
        decode(data)
    monkeypatch.setenv("TOPWORK_MAX_PIXELS", "120000")
    assert decode(data).shape == (300, 400, 3)
    monkeypatch.setenv("TOPWORK_MAX_PIXELS", "many")
    with pytest.raises(BadSetting, match="many"):
        decode(data)


def test_facts_survive_the_store():
    facts = describe(saved(scene(), "JPEG"))
    assert Facts.from_bytes(facts.to_bytes()) == facts
    assert len(facts.to_bytes()) < 400


def test_copies_have_near_fingerprints_and_others_do_not():
    original = scene(400, 300)
    facts = describe(saved(original, "PNG"))
    copies = [
        saved(original, "JPEG", quality=30),
        saved(original.resize((200, 150)), "WEBP"),
        saved(original.resize((640, 480)), "JPEG"),
        saved(original.convert("L"), "PNG"),
    ]
    for data in copies:
        assert (describe(data).fingerprint ^ facts.fingerprint).bit_count() <= 4
    for seed in range(1, 30):
        other = describe(saved(scene(400, 300, seed), "PNG"))
        assert (other.fingerprint ^ facts.fingerprint).bit_count() > 12


def test_blank_means_one_colour():
    assert describe(saved(Image.new("RGB", (50, 40), (3, 200, 40)), "JPEG")).blank
    assert not describe(saved(scene(), "JPEG")).blank


def test_thumbnail_is_small_and_bare():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "secret place"
    small = thumbnail(saved(scene(600, 400), "JPEG", exif=exif), 96)
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (64, 96)
        assert not image.getexif()
    assert b"secret" not in small
    assert len(small) < 5000


def test_threads_and_pillow_globals():
    data = [saved(scene(seed=s), kind) for s in range(4) for kind in ("JPEG", "PNG", "TIFF", "GIF")]
    expected = [decode(d) for d in data]
    before = Image.MAX_IMAGE_PIXELS
    wrong = []

    def work():
        wrong.extend(i for i, d in enumerate(data * 5) if not np.array_equal(decode(d), expected[i % len(data)]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert before == Image.MAX_IMAGE_PIXELS


@needs_broken
def test_fates_of_the_broken_images():
    fates = {
        "truncated.jpg": "truncated",
        "zero_bytes.jpg": "empty file",
        "text_named.png": "known format",
        "bomb_20000x20000.png": "20000 x 20000 pixels",
    }
    shapes = {
        "png_named.jpg": (240, 180),
        "cmyk.jpg": (240, 180),
        "grey16.png": (100, 100),
        "palette_transparent.png": (240, 180),
        "animated.gif": (120, 90),
        "exif_orientation6.jpg": (240, 180),
        "one_pixel.png": (1, 1),
    }
    names = {path.name for path in (BROKEN / "images").iterdir()}
    assert names == fates.keys() | shapes.keys()
    for name, reason in fates.items():
        for function in (decode, describe):
            with pytest.raises(BadData, match=reason):
                function((BROKEN / "images" / name).read_bytes())
    for name, shape in shapes.items():
        assert decode(BROKEN / "images" / name).shape == (*shape, 3)
        facts = describe((BROKEN / "images" / name).read_bytes())
        assert (facts.height, facts.width) == shape
    grey = decode(BROKEN / "images/grey16.png")
    assert (grey.min(), grey.max()) == (13, 193)  # 3,300 / 257 and 49,536 / 257
    for path in (BROKEN / "names").glob("*.jpg"):
        assert decode(path).ndim == 3
