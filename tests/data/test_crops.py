"""Crops, resized and mirrored copies of one picture, laid over each other; other pictures are not the same."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.data.test_suspects import bytes_of, grained

from topwork import sources
from topwork.data import crops
from topwork.data.inspect import inspect
from topwork.data.inspect_image import remembered
from topwork.data.overlay import same_picture, same_pictures


def cut(image, left, top, right, bottom):
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round(right * w), round(bottom * h)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("left", "top", "right", "bottom"),
    [(0, 0, 0.9, 0.9), (0.1, 0.04, 1, 0.94), (0.05, 0.1, 0.95, 1), (0.1, 0.15, 0.85, 0.9), (0, 0.2, 1, 1)],
)
def test_crops_are_the_same_picture(seed, left, top, right, bottom):
    whole = grained(seed, (300, 220))
    part = cut(whole, left, top, right, bottom)
    small = bytes_of(part.resize((160, 130)), quality=75)
    for one, other in ((bytes_of(whole, quality=90), small), (small, bytes_of(whole, quality=90))):
        found = same_picture(one, other)
        assert found.same
        assert not found.mirrored
    turned = same_picture(bytes_of(whole, quality=90), bytes_of(ImageOps.mirror(part), quality=80))
    assert turned.same
    assert turned.mirrored


def test_other_pictures_are_not():
    pictures = [bytes_of(grained(seed, (200, 160)), quality=90) for seed in range(8)]
    assert not any(same_picture(a, b).same for i, a in enumerate(pictures) for b in pictures[:i])


def test_the_same_layout_with_other_detail_is_another_picture():
    coarse = np.asarray(grained(1, (200, 160)).resize((6, 6)).resize((200, 160), Image.Resampling.BICUBIC), float)
    one, other = (
        Image.fromarray(
            (coarse + 0.3 * (np.asarray(grained(seed, (200, 160)), float) - 128)).clip(0, 255).astype(np.uint8)
        )
        for seed in (2, 3)
    )
    found = same_picture(bytes_of(one), bytes_of(other))
    assert not found.same
    assert same_picture(bytes_of(one), bytes_of(one, quality=40)).same


def test_files_that_are_gone_are_like_nothing(tmp_path):
    here = tmp_path / "a.jpg"
    here.write_bytes(bytes_of(grained(0)))
    pairs = np.array([[0, 1], [0, 0]])
    none, same = same_pictures([str(here), str(tmp_path / "none.jpg")], pairs)
    assert not none.same
    assert same.same


@pytest.fixture
def photos(tmp_path):
    """30 pictures; crops of three of them, one mirrored, one in the test split, one of another class."""
    for i in range(30):
        path = tmp_path / ("train" if i % 3 else "test") / "ab"[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_of(grained(i, (240, 180)), quality=90))
    parts = {
        "train/b/crop1.jpg": cut(grained(1, (240, 180)), 0.05, 0, 0.95, 0.9),
        "test/a/crop2.jpg": ImageOps.mirror(cut(grained(2, (240, 180)), 0, 0.1, 0.9, 1)),
        "train/a/crop5.jpg": cut(grained(5, (240, 180)), 0.1, 0.05, 1, 0.95),
        "train/b/crop4_mirrored_of_another_class.jpg": ImageOps.mirror(cut(grained(4, (240, 180)), 0, 0, 0.9, 0.9)),
    }
    for name, image in parts.items():
        (tmp_path / name).write_bytes(bytes_of(image, quality=85))
    return tmp_path


def test_crops_of_a_set_are_found_told_and_kept_together(photos):
    found = inspect(sources.read(photos), drop_leaks=False)
    assert found.findings == ()  # no copies in whole
    facts = remembered(found.dataset, None)
    sketches = np.stack([np.frombuffer(fact.sketch, np.uint8) for fact in facts])
    pairs = crops.find(found.dataset, sketches, np.zeros(len(facts), bool))
    items = found.dataset.table["item"].to_pylist()
    named = {frozenset((items[i], items[j])) for i, j in pairs.pairs.tolist()}
    assert named == {
        frozenset(("train/b/01.jpg", "train/b/crop1.jpg")),
        frozenset(("train/a/02.jpg", "test/a/crop2.jpg")),
        frozenset(("train/b/05.jpg", "train/a/crop5.jpg")),
    }
    assert pairs.scores.min() > 0.95
    assert pairs.mirrored.sum() == 1
    dataset, said = crops.findings(found.dataset, pairs)
    told = {one.kind: {items[row] for row in one.rows} for one in said}
    assert told == {
        "cropped_duplicates": set.union(*map(set, named)),
        "leakage": {"train/a/02.jpg", "test/a/crop2.jpg"},
        "conflicting_labels": {"train/b/05.jpg", "train/a/crop5.jpg"},
    }
    assert all("through crops" in one.message for one in said[1:])
    twin = dict(zip(items, dataset.table["twin"].to_pylist(), strict=True))
    assert twin["train/b/01.jpg"] == twin["train/b/crop1.jpg"]
    assert len(set(twin.values())) == 31


def test_features_find_what_sketches_do_not(photos):
    (photos / "train/b/crop7.jpg").write_bytes(bytes_of(cut(grained(7, (240, 180)), 0.25, 0.25, 1, 1), quality=85))
    found = inspect(sources.read(photos), drop_leaks=False)
    items = found.dataset.table["item"].to_pylist()
    nothing = np.zeros((len(items), 288), np.uint8)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((len(items), 16)).astype(np.float32)
    one, other = items.index("train/b/07.jpg"), items.index("train/b/crop7.jpg")
    features[other] = features[one] + 0.1
    blank = np.zeros(len(items), bool)
    pairs = crops.find(found.dataset, nothing, blank, features)
    assert sorted((one, other)) in pairs.pairs.tolist()
