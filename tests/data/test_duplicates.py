import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from topwork.data import duplicates
from topwork.data.duplicates import (
    MAX_BITS,
    connected,
    exact,
    in_order,
    mirror_twins,
    mirrored,
    mirrored_pairs,
    near_pairs,
    twins,
)
from topwork.modalities.image import SKETCH, describe


def contents(*numbers):
    return np.stack([np.full(16, n, np.uint8) for n in numbers])


def components(n, pairs):
    """Plain union-find, the second computation."""
    parent = list(range(n))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in pairs:
        parent[root(max(a, b))] = root(min(a, b))
    return np.array([root(i) for i in range(n)])


def test_exact_copies():
    assert exact(contents(7, 3, 7, 255, 3)).tolist() == [0, 1, 0, 2, 1]


def test_components_and_numbering():
    assert in_order(connected(5, np.array([[4, 1], [0, 2]]))).tolist() == [0, 1, 0, 2, 1]
    assert in_order(connected(3, np.empty((0, 2), np.int64))).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("crowded", "many"), [(False, False), (True, False), (False, True)])
def test_pairs_are_those_of_comparing_all(crowded, many, monkeypatch):
    monkeypatch.setattr(duplicates, "MANY", 0 if many else 10**9)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 60, dtype=np.uint64)
    if crowded:  # a static camera: few different hashes
        base[:] = base[0]
    hashes = np.repeat(base, 20)
    for i in range(len(hashes)):
        for bit in rng.choice(64, rng.integers(3, 9), replace=False):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    kinds = rng.integers(0, 256, (40, SKETCH), dtype=np.uint8)
    sketches = kinds[rng.integers(0, 3, len(hashes)) if crowded else np.repeat(np.arange(60) % 40, 20)]
    labels = np.zeros(len(hashes), np.int32)
    plain = []
    for i in range(len(hashes)):
        for j in range(i):
            if int(hashes[i] ^ hashes[j]).bit_count() <= MAX_BITS and np.array_equal(sketches[i], sketches[j]):
                plain.append((i, j))
    found = in_order(connected(len(hashes), near_pairs(hashes, sketches, labels)))
    np.testing.assert_array_equal(found, in_order(components(len(hashes), plain)))
    assert found.max() < len(hashes) - 1


@pytest.mark.parametrize("bit", range(16))
@pytest.mark.parametrize("shift", range(4))
def test_six_bits_apart_in_all_four_bands(bit, shift):
    bands = [0b11, 0b110, 1 << bit, 1 << bit]
    mask = sum(bands[(k + shift) % 4] << (16 * k) for k in range(4))
    hashes = np.array([0x0123456789ABCDEF, 0x0123456789ABCDEF ^ mask], np.uint64)
    sketches = np.tile(np.arange(SKETCH, dtype=np.uint8), (2, 1))
    assert len(near_pairs(hashes, sketches, np.zeros(2))) > 0
    hashes[1] ^= np.uint64(1 << 20 | 1 << 21)
    apart = int(hashes[0] ^ hashes[1]).bit_count()
    assert (len(near_pairs(hashes, sketches, np.zeros(2))) > 0) == (apart <= MAX_BITS)


def facts_of(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return describe(out.getvalue())


def grouped(facts, labels=None):
    return twins(
        np.arange(len(facts), dtype=np.uint8).repeat(16).reshape(-1, 16),
        np.array([f.fingerprint for f in facts], np.uint64),
        np.stack([np.frombuffer(f.sketch, np.uint8) for f in facts]),
        np.array([f.blank for f in facts]),
        np.zeros(len(facts), np.int32) if labels is None else np.array(labels),
    ).tolist()


def scene(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (300, 220), Image.Resampling.BICUBIC
    )


def test_copies_are_found_and_nothing_else():
    facts, truth = [], []
    for seed in range(12):
        image = scene(seed)
        facts += [
            facts_of(image),
            facts_of(image, "JPEG", quality=25),
            facts_of(image.resize((150, 110)), "JPEG", quality=85),
            facts_of(image.resize((451, 330)), "WEBP"),
            facts_of(image.convert("P"), "GIF"),
            facts_of(image.convert("L")),
        ]
        truth += [seed] * 6
    assert grouped(facts) == truth


def test_colour_makes_the_difference_between_classes_only():
    red, blue = scene(1), Image.merge("RGB", scene(1).split()[::-1])
    facts = [facts_of(red), facts_of(blue), facts_of(red, "JPEG", quality=60)]
    grey = [f.sketch[:256] for f in facts]
    facts[1] = type(facts[1])(**{**vars(facts[1]), "fingerprint": facts[0].fingerprint})
    facts[1] = type(facts[1])(**{**vars(facts[1]), "sketch": grey[0] + facts[1].sketch[256:]})
    assert grouped(facts, [0, 1, 2]) == [0, 1, 0]
    assert grouped(facts, [5, 5, 5]) == [0, 0, 0]


def test_one_coloured_pictures_are_no_twins():
    facts = [facts_of(Image.new("RGB", (60, 40), (i, i, i))) for i in range(8)]
    assert grouped(facts) == list(range(8))


def test_nothing_and_one():
    assert exact(np.empty((0, 16), np.uint8)).tolist() == []
    assert grouped([facts_of(scene(0))]) == [0]


@pytest.mark.parametrize("many", [False, True])
def test_mirror_images_within_a_label(many, monkeypatch):
    monkeypatch.setattr(duplicates, "MANY", 0 if many else 10**9)
    facts = []
    for seed in range(8):
        facts += [facts_of(scene(seed)), facts_of(ImageOps.mirror(scene(seed)).resize((150, 110)), "JPEG", quality=70)]
    hashes = np.array([(f.fingerprint, f.mirrored) for f in facts], np.uint64)
    sketches = np.stack([np.frombuffer(f.sketch, np.uint8) for f in facts])
    for i in range(0, 16, 2):
        assert (int(hashes[i, 0]) ^ int(hashes[i + 1, 1])).bit_count() <= 4
    near, blank = np.arange(16, dtype=np.int32), np.zeros(16, bool)
    labels = np.array([0, 0] * 6 + [0, 1, -1, 1])  # of two classes; of which one is not known
    twin = mirror_twins(near, hashes[:, 0], hashes[:, 1], sketches, blank, labels)
    assert twin.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 8]
    same = mirrored(mirrored(sketches))
    np.testing.assert_array_equal(same, sketches)


def test_a_picture_that_is_its_own_mirror_image_is_no_copy():
    half = np.asarray(scene(3), float)
    even = Image.fromarray(((half + half[:, ::-1]) / 2).astype(np.uint8))
    facts = facts_of(even)
    pairs = mirrored_pairs(
        np.array([facts.fingerprint], np.uint64), np.array([facts.mirrored], np.uint64),
        np.frombuffer(facts.sketch, np.uint8)[None], np.zeros(1, int),
    )  # fmt: skip
    assert pairs.tolist() == []
