"""Suspicious items: what was planted is named, nothing else is, and what holds for all is said without rows."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from tests.data.test_inspect_text import dataset as text_dataset
from tests.data.test_inspect_text import plain

from topwork import sources
from topwork.data.inspect import inspect


def grained(seed, size=(120, 96)):
    """A picture with detail at every scale."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size[1], size[0], 3))
    for cells in (4, 12, 36, 96):
        layer = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        out += np.asarray(layer.resize(size, Image.Resampling.BICUBIC), float) - 128
    return Image.fromarray((128 + out * 0.45).clip(0, 255).astype(np.uint8))


def bytes_of(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def photos(tmp_path):
    for i in range(40):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(grained(i), quality=90))
    return tmp_path / "photos"


def look(folder):
    found = inspect(sources.read(folder))
    items = found.dataset.table["item"].to_pylist()
    return {one.kind: [items[row] for row in one.rows] for one in found.findings}, {f.kind: f for f in found.findings}


def test_good_photos_raise_no_suspicion(photos):
    assert look(photos) == ({}, {})


def test_what_is_planted_is_named_and_nothing_else(photos):
    one = grained(99)
    turned = Image.Exif()
    turned[0x0112] = 6
    late = bytes_of(grained(98), quality=90)
    flat = Image.fromarray((np.asarray(grained(97), float) * 0.055 + 115).astype(np.uint8))
    night = Image.fromarray((np.asarray(grained(96), float) * 0.2).astype(np.uint8))
    glare = Image.fromarray((215 + np.asarray(grained(95), float) * 0.15).astype(np.uint8))
    planted = {
        "blurred": bytes_of(one.filter(ImageFilter.GaussianBlur(4)), quality=90),
        "cut_off": late[: len(late) // 2] + b"\xff\xd9",
        "nearly_uniform": bytes_of(flat, quality=95),
        "dark": bytes_of(night, quality=95),
        "overexposed": bytes_of(glare, quality=95),
        "tiny": bytes_of(grained(94).resize((20, 16)), "PNG"),
        "odd_size": bytes_of(grained(93, (1200, 960)), quality=80),
        "odd_shape": bytes_of(grained(92, (400, 96)), quality=90),
        "odd_colour": bytes_of(grained(91).convert("L"), quality=90),
        "turned": bytes_of(grained(90), quality=90, exif=turned),
        "animated": bytes_of(
            grained(89), "GIF", save_all=True, append_images=[grained(88), grained(87)], duration=40, loop=0
        ),
        "blank": bytes_of(Image.new("RGB", (120, 96), (200, 30, 30)), "PNG"),
    }
    for kind, data in planted.items():
        suffix = {"animated": "gif", "tiny": "png", "blank": "png"}.get(kind, "jpg")
        (photos / "a" / f"{kind}.{suffix}").write_bytes(data)
    rows, found = look(photos)
    assert {kind: [item.split("/")[1].split(".")[0] for item in items] for kind, items in rows.items()} == {
        kind: [kind] for kind in planted
    }
    for kind, finding in found.items():
        assert finding.fix
        assert kind == "blank" or len(finding.scores) == 1
    assert found["cut_off"].severity == "warning"
    assert 0.3 < found["cut_off"].scores[0] < 0.7
    assert found["turned"].scores == (6.0,)
    assert found["odd_size"].scores[0] == pytest.approx(100, rel=0.01)


def test_a_file_without_its_end_is_cut_off_even_if_it_decodes(photos):
    whole = bytes_of(grained(50), quality=90)
    (photos / "a" / "end.jpg").write_bytes(whole[:-2] + b"\0" * 300)
    (photos / "a" / "more.jpg").write_bytes(bytes_of(grained(51), quality=90) + b"left by a camera" * 9)
    assert look(photos)[0] == {"cut_off": ["a/end.jpg"]}


def test_what_holds_for_all_is_said_once_without_rows(photos):
    for path in photos.rglob("*.jpg"):
        path.write_bytes(bytes_of(Image.open(path).filter(ImageFilter.GaussianBlur(4)), quality=90))
    rows, found = look(photos)
    assert rows == {"blurred": []}
    assert found["blurred"].message == "40 images very blurred, of 40: the set is so"


def test_a_set_of_drawings_or_small_pictures_is_no_suspect(tmp_path):
    for i in range(30):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes_of(grained(i).convert("L").resize((28, 24)), "PNG"))
    assert look(tmp_path)[0] == {}


def test_texts():
    rows = plain(60)
    rows += [
        ("The actor\u00e2\u20ac\u2122s caf\u00c3\u00a9 scene is the best of the whole long film that I saw", "a"),
        ("It was <br /> as good as the book and the song, which is rare for a film like that one", "b"),
        ("word " * 2000 + "end", "a"),
        ("ok", "b"),
    ]
    found = inspect(text_dataset(rows))
    assert {f.kind: f.rows for f in found.findings} == {
        "garbled": (60,), "markup": (61,), "very_long": (62,), "very_short": (63,)
    }  # fmt: skip
    long = next(f for f in found.findings if f.kind == "very_long")
    assert long.scores[0] == pytest.approx(10003 / np.median([len(t) for t, _ in rows]), abs=1e-3)


def test_texts_of_one_template():
    rows = [
        *plain(300),
        *[(f"Order {i} of {i * 7} has left our house and will be there in {i % 5} days", "a") for i in range(30)],
    ]
    head = "Dear customer, thank you so much for having bought one of our many different products in our shop in town."
    rows += [(f"{head} {text}", label) for text, label in plain(25)]
    found = {f.kind: f.rows for f in inspect(text_dataset(rows)).findings}
    assert found == {"template": tuple(range(300, 355))}


def test_label_names_and_conflicts_propose_a_fix():
    rows = [(text, "a" if i % 3 else "A ") for i, (text, _) in enumerate(plain(30))]
    found = {f.kind: f for f in inspect(text_dataset(rows, labels=("A ", "a"))).findings}
    assert found["label_names"].rows == tuple(range(0, 30, 3))
    assert set(found["label_names"].suggest) == {"a"}
    again = [*plain(40), plain(40)[0], (plain(40)[0][0], "b"), (plain(40)[1][0], None)]
    found = {f.kind: f for f in inspect(text_dataset(again)).findings}
    assert found["conflicting_labels"].rows == (0, 40, 41)
    assert found["conflicting_labels"].suggest == ("a", "a", "a")
    assert found["unlabelled"].rows == (42,)
    assert found["unlabelled"].suggest == ("b",)


def test_copies_say_how_like_they_are(photos):
    whole = grained(0)
    (photos / "a" / "equal.jpg").write_bytes((photos / "a" / "00.jpg").read_bytes())
    (photos / "a" / "again.jpg").write_bytes(bytes_of(whole.resize((60, 48)), quality=60))
    (photos / "a" / "mirrored.jpg").write_bytes(bytes_of(ImageOps.mirror(grained(2)), quality=80))
    rows, found = look(photos)
    assert rows == {
        "exact_duplicates": ["a/00.jpg", "a/equal.jpg"],
        "near_duplicates": ["a/00.jpg", "a/again.jpg", "a/equal.jpg"],
        "mirrored_duplicates": ["a/02.jpg", "a/mirrored.jpg"],
    }
    assert found["exact_duplicates"].scores == (1.0, 1.0)
    assert found["near_duplicates"].scores[0] == found["near_duplicates"].scores[2] == 1.0
    assert 0.99 <= found["near_duplicates"].scores[1] < 1.0
    assert 0.99 <= found["mirrored_duplicates"].scores[1] < 1.0
    text = "The film that I have seen in the new house by the river was about a book and its song"
    near = {f.kind: f for f in inspect(text_dataset([*plain(), (text, "a"), (f"{text}s", "a")])).findings}
    shingles = [
        {t[i : i + 5] for i in range(len(t) - 4)} for t in (text.lower().replace(" ", "") + end for end in ("", "s"))
    ]
    jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    assert near["near_duplicates"].scores == (1.0, pytest.approx(jaccard, abs=1e-4))
