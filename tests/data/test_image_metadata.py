import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from topwork.data.image_metadata import rewritten, strip
from topwork.errors import BadData
from topwork.modalities.image import decode

SECRETS = (b"SECRET", b"Exif", b"xap/1.0", b"8BIM", b"MPF\0", b"xmpmeta", b"GPSLatitude")
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>SECRETXMP</x:xmpmeta>"


def picture(height=96, width=128):
    y, x = np.mgrid[:height, :width]
    values = np.stack([128 + 60 * np.sin(x / 9 + y / 17), 128 + 60 * np.cos(y / 7), 60 + x], -1)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def exif(turn=1, thumbnail=False):
    """A block with maker, GPS directory, and a thumbnail in the second directory, as cameras write it."""
    made = Image.Exif()
    made[0x010F], made[0x0112], made[0x9286] = "SECRETMAKER", turn, "SECRETNOTE"
    place = made.get_ifd(0x8825)
    place[1], place[2] = "N", (48.0, 8.0, 12.0)
    block = made.tobytes()
    if not thumbnail:
        return block
    small = io.BytesIO()
    picture(24, 32).save(small, "JPEG", comment=b"SECRETSMALL")
    tiff = bytearray(block.removeprefix(b"Exif\0\0"))
    order = "<" if tiff[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    struct.pack_into(f"{order}I", tiff, start + 2 + 12 * count, len(tiff))
    tiff += struct.pack(f"{order}H", 2) + struct.pack(f"{order}HHII", 0x0201, 4, 1, len(tiff) + 30)
    tiff += struct.pack(f"{order}HHII", 0x0202, 4, 1, len(small.getvalue())) + struct.pack(f"{order}I", 0)
    return b"Exif\0\0" + bytes(tiff) + small.getvalue()


def segment(marker, body):
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def jpeg(turn=1, image=None, **options):
    """Everything that a camera and three programs may leave in a file."""
    out = io.BytesIO()
    (image or picture()).save(out, "JPEG", **{"quality": 90, **options})
    data = out.getvalue()
    jfif = b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"SECRETSECRET"  # a thumbnail of 2 x 2
    planted = [
        segment(0xE0, jfif),
        segment(0xE0, b"JFXX\0\x10SECRETTHUMB"),
        segment(0xE1, exif(turn, thumbnail=True)),
        segment(0xE1, XMP),
        segment(0xE2, b"MPF\0SECRET"),
        segment(0xED, b"Photoshop 3.0\08BIM\x04\x04\0\0\0\0\0\x06SECRET"),
        segment(0xFE, b"SECRETCOMMENT"),
        segment(0xEB, b"SECRETAPP"),
        b"\xff",  # a fill byte
    ]
    end = 4 + int.from_bytes(data[4:6], "big")  # without Pillow's own JFIF segment
    return data[:2] + b"".join(planted) + data[end:] + b"SECRETTRAILER"


def png(**chunks):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "SECRETAUTHOR")
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>SECRETXMP</x:xmpmeta>")
    info.add_text("Raw profile type iptc", "SECRET", zip=True)
    out = io.BytesIO()
    picture().save(out, "PNG", pnginfo=info, exif=exif(), **chunks)
    data = out.getvalue()
    own = b"\0\0\0\6prVtSECRET"
    crc = zlib.crc32(own[4:]).to_bytes(4, "big")
    return data[:-12] + own + crc + data[-12:] + b"SECRETTRAILER"


def gif():
    frames = [picture().convert("P"), picture().rotate(90).convert("P")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], comment=b"SECRETCOMMENT", loop=3, duration=70)
    xmp = b"\x21\xff\x0bXMP DataXMP" + b"\x09SECRETXMP" + b"\0"
    return out.getvalue()[:-1] + xmp + b"\x3bSECRETTRAILER"


def webp(**options):
    out = io.BytesIO()
    picture().save(out, "WEBP", exif=exif(), xmp=XMP, **options)
    return out.getvalue() + b"SECRETTRAILER"


def test_jpeg_loses_everything_but_its_pixels():
    data = jpeg()
    assert all(secret in data for secret in SECRETS[:-2])
    done = strip(data)
    assert not any(secret in done.data for secret in SECRETS)
    assert done.how == "stripped"
    assert dict(done.found) == {
        "thumbnail": 3, "exif": 1, "gps": 1, "xmp": 1, "preview": 1, "iptc": 1, "comment": 1, "other": 1, "trailer": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(decode(done.data), decode(data))
    scan = data[data.rindex(b"\xff\xda") :].removesuffix(b"SECRETTRAILER")
    assert done.data.endswith(scan)  # the pixels' bits as they were
    again = strip(done.data)
    assert (again.data, again.how, dict(again.found)) == (done.data, "unchanged", {})


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"optimize": True}]
)
def test_every_kind_of_jpeg(options):
    for image in (picture(), picture().convert("L"), picture().convert("CMYK")):
        data = jpeg(image=image, **options)
        done = strip(data)
        np.testing.assert_array_equal(decode(done.data), decode(data))
        assert not any(secret in done.data for secret in SECRETS)


@pytest.mark.parametrize(
    "data", [png(), gif(), webp(lossless=True), webp(quality=80)], ids=["png", "gif", "lossless", "webp"]
)
def test_other_formats_keep_their_bits(data):
    done = strip(data)
    assert b"SECRET" in data
    assert done.how == "stripped"
    assert not any(secret in done.data for secret in SECRETS)
    assert done.found["trailer"] == 1
    assert sum(done.found.values()) > 2
    np.testing.assert_array_equal(decode(done.data), decode(data))
    with Image.open(io.BytesIO(done.data)) as new, Image.open(io.BytesIO(data)) as old:
        assert new.size == old.size
        assert getattr(new, "n_frames", 1) == getattr(old, "n_frames", 1)
        assert new.info.get("loop") == old.info.get("loop")
    assert strip(done.data).how == "unchanged"


def test_formats_that_are_written_anew():
    for kind, options in (("TIFF", {"exif": exif()}), ("BMP", {}), ("PPM", {})):
        for mode in ("RGB", "L") + (("I;16",) if kind == "TIFF" else ()):
            image = picture().convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            out = io.BytesIO()
            image.save(out, kind, **options)
            data = out.getvalue()
            if kind == "PPM":
                data = data.replace(b"\n", b"\n#SECRETCOMMENT\n", 1)
            done = strip(data)
            assert done.how == "rewritten"
            assert not any(secret in done.data for secret in SECRETS)
            np.testing.assert_array_equal(decode(done.data), decode(data))
            with Image.open(io.BytesIO(done.data)) as new:
                assert new.mode == image.mode
    assert strip(data).found["comment"] == 1


@pytest.mark.parametrize("turn", range(2, 9))
def test_what_exif_says_of_the_orientation_is_done(turn):
    data = jpeg(turn)
    done = strip(data)
    assert done.how == "turned"
    assert not any(secret in done.data for secret in SECRETS)
    before, after = decode(data).astype(float), decode(done.data).astype(float)
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < 1.5  # grey levels; a JPEG of quality 75 of the same picture: 1.6
    assert np.abs(before - after).max() < 16
    with Image.open(io.BytesIO(done.data)) as new:
        assert not new.getexif()
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        out = io.BytesIO()
        picture().save(out, form, exif=exif(turn), **options)
        done = strip(out.getvalue())
        assert done.how == "turned"
        np.testing.assert_array_equal(decode(done.data), decode(out.getvalue()))
        assert b"SECRET" not in done.data


def test_modes_and_colours_stay():
    profile = b"a colour profile"
    for mode in ("P", "LA", "RGBA", "1", "L", "I;16"):
        image = (
            picture().convert(mode)
            if mode != "I;16"
            else Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
        )
        out = io.BytesIO()
        image.save(out, "PNG", exif=exif(6), icc_profile=profile, **({"transparency": 3} if mode == "P" else {}))
        done = strip(out.getvalue())
        with Image.open(io.BytesIO(done.data)) as new:
            assert new.mode == mode
            assert new.info["icc_profile"] == profile
        np.testing.assert_array_equal(decode(done.data), decode(out.getvalue()))
    out = io.BytesIO()
    picture().save(out, "JPEG", icc_profile=profile * 10, comment=b"SECRET")
    assert profile in strip(out.getvalue()).data


def test_damaged_files_are_told():
    whole = jpeg()
    for data in (
        b"",
        b"not an image",
        whole[:200],
        whole[: whole.index(b"\xff\xda") + 40],
        png()[:300],
        gif()[:200],
        webp()[:60],
    ):
        with pytest.raises(BadData):
            strip(data)
    rng = np.random.default_rng(0)
    for make in (jpeg, png, gif, webp):
        data = make()
        for _ in range(40):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 4):
                broken[at] = rng.integers(256)
            try:
                done = strip(bytes(broken))
            except BadData:
                continue
            assert decode(done.data).shape == decode(bytes(broken)).shape


def test_a_file_without_its_end_is_written_anew():
    for data in (png().removesuffix(b"SECRETTRAILER")[:-12], gif().removesuffix(b"\x3bSECRETTRAILER")):
        done = strip(data)
        assert done.how == "rewritten"
        assert not any(secret in done.data for secret in SECRETS)
        np.testing.assert_array_equal(decode(done.data), decode(data))
        assert strip(done.data).how == "unchanged"


def test_other_pixels_in_the_same_format():
    for data in (jpeg(), png(), webp(lossless=True)):
        clean = strip(data).data
        pixels = decode(clean).copy()
        pixels[10:40, 20:60] = 200
        new = rewritten(clean, pixels)
        assert new[:4] == clean[:4]
        assert np.abs(decode(new).astype(float) - pixels).mean() < 2
        assert b"SECRET" not in new
