import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from topwork import sources
from topwork.data import inspect_image as room
from topwork.data.inspect import check_trainable, inspect
from topwork.errors import BadData


class Memory:
    """The plainest store."""

    def __init__(self):
        self.held, self.asked = {}, Counter()

    def get_many(self, namespace, keys):
        self.asked["get"] += len(keys)
        return [self.held.get((namespace, key)) for key in keys]

    def put_many(self, namespace, pairs):
        self.held |= {(namespace, key): value for key, value in pairs}


def draw(path, seed, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    large = np.asarray(small.resize((90, 70), Image.Resampling.BICUBIC), np.int16)
    grained = large + rng.integers(-25, 26, (70, 90, 1))  # without grain it would be blurred
    Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """10 + 10 different pictures."""
    for i in range(20):
        draw(tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.jpg", i)
    return tmp_path / "photos"


def kinds(findings):
    return {f.kind: f for f in findings.findings}


def test_a_clean_set_has_nothing_to_say(photos):
    steps = []
    found = inspect(sources.read(photos), progress=lambda *step: steps.append(step))
    assert found.findings == ()
    assert steps == [("inspect", 20, 20)]
    assert found.dataset.table["twin"].to_pylist() == list(range(20))
    assert len(set(found.dataset.table["content"].to_pylist())) == 20
    assert json.loads(json.dumps(found.facts)) == {
        "items": 20,
        "unreadable": 0,
        "pictures": 20,
        "bytes": sum(path.stat().st_size for path in photos.rglob("*.jpg")),
        "classes": {"cat": 10, "dog": 10},
        "unlabelled": 0,
        "splits": {"unassigned": {"cat": 10, "dog": 10}},
        "width": {"min": 90, "median": 90, "max": 90},
        "height": {"min": 70, "median": 70, "max": 70},
        "modes": {"RGB": 20},
        "formats": {"JPEG": 20},
    }


def test_the_second_time_nothing_is_decoded(photos, monkeypatch):
    store = Memory()
    (photos / "cat" / "broken.jpg").write_bytes(b"not at all")
    first = inspect(sources.read(photos), store)
    monkeypatch.setattr(room, "describe", lambda data: pytest.fail("decoded") if len(data) > 20 else describe(data))
    second = inspect(sources.read(photos), store, threads=3)
    assert second.findings == first.findings
    assert second.facts == first.facts
    assert second.dataset.table == first.dataset.table
    assert second.dataset.skipped == first.dataset.skipped


describe = room.describe


def test_a_limit_holds_for_what_is_remembered(photos, monkeypatch):
    store = Memory()
    inspect(sources.read(photos), store)
    monkeypatch.setenv("TOPWORK_MAX_PIXELS", "100")
    with pytest.raises(BadData, match="none of its 20 images can be read"):
        inspect(sources.read(photos), store)


def test_unreadable_files_are_named_and_left_out(photos):
    (photos / "cat" / "zero.png").write_bytes(b"")
    whole = (photos / "cat" / "0.jpg").read_bytes()
    (photos / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    found = inspect(sources.read(photos))
    assert len(found.dataset) == 20
    assert {s.item: s.reason.split(":")[0] for s in found.dataset.skipped} == {
        "cat/zero.png": "empty file (0 bytes)",
        "dog/cut.jpg": "truncated",
    }
    assert kinds(found)["unreadable"].message.startswith("2 images cannot be read, e.g. cat/zero.png")
    assert found.facts["unreadable"] == 2


def test_copies_within_a_set(photos):
    shutil.copy(photos / "cat" / "0.jpg", photos / "cat" / "again.jpg")
    draw(photos / "cat" / "saved.jpg", 2, quality=30)
    found = inspect(sources.read(photos))
    said = kinds(found)
    assert said.keys() == {"exact_duplicates", "near_duplicates"}
    assert set(said["exact_duplicates"].items) == {"cat/0.jpg", "cat/again.jpg"}
    assert set(said["near_duplicates"].items) == {"cat/2.jpg", "cat/saved.jpg"}
    assert found.facts["pictures"] == 20
    items = found.dataset.table["item"].to_pylist()
    assert {items[row] for row in said["near_duplicates"].rows} == {"cat/2.jpg", "cat/saved.jpg"}
    twin = dict(zip(items, found.dataset.table["twin"].to_pylist(), strict=True))
    assert twin["cat/2.jpg"] == twin["cat/saved.jpg"] != twin["cat/0.jpg"] == twin["cat/again.jpg"]


def test_one_picture_with_two_labels(photos):
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "not_a_cat.jpg")
    shutil.copy(photos / "cat" / "0.jpg", photos / "cat" / "1_same.jpg")
    conflict = kinds(inspect(sources.read(photos)))["conflicting_labels"]
    assert conflict.severity == "warning"
    assert "1 pictures have two different labels, e.g. cat/0.jpg and dog/not_a_cat.jpg" in conflict.message
    assert set(conflict.items) == {"cat/0.jpg", "cat/1_same.jpg", "dog/not_a_cat.jpg"}


@pytest.fixture
def split_photos(tmp_path):
    for i in range(24):
        split = ("train", "train", "test", "val")[i // 6]
        draw(tmp_path / "s" / split / ("cat", "dog")[i % 2] / f"{i}.jpg", i)
    shutil.copy(tmp_path / "s/test/cat/12.jpg", tmp_path / "s/train/cat/leak.jpg")
    draw(tmp_path / "s/train/dog/leak2.png", 19)
    return tmp_path / "s"


def test_leaking_training_copies_are_left_out(split_photos):
    found = inspect(sources.read(split_photos))
    leak = kinds(found)["leakage"]
    assert leak.severity == "warning"
    assert "2 images of the training set" in leak.message
    assert len(found.dataset) == 24
    assert {s.item: s.reason for s in found.dataset.skipped} == {
        "train/cat/leak.jpg": "same picture as test/cat/12.jpg",
        "train/dog/leak2.png": "same picture as val/dog/19.jpg",
    }
    assert found.facts["splits"] == {s: {"cat": n, "dog": n} for s, n in (("test", 3), ("train", 6), ("val", 3))}


def test_leaks_that_stay_are_an_error(split_photos):
    found = inspect(sources.read(split_photos), drop_leaks=False)
    leak = found.findings[0]
    assert (leak.kind, leak.severity) == ("leakage", "error")
    assert "1 in train and test, 1 in train and val" in leak.message
    assert len(leak.rows) == 4
    assert len(found.dataset) == 26


def test_val_and_test_that_share_a_picture(split_photos):
    shutil.copy(split_photos / "test/cat/14.jpg", split_photos / "val/cat/leak.jpg")
    messages = [f.message for f in inspect(sources.read(split_photos)).findings if f.kind == "leakage"]
    assert any("1 in val and test" in message for message in messages)


def test_classes_with_few_and_many(tmp_path):
    for i in range(31):
        draw(tmp_path / "a" / f"{i}.png", i)
    draw(tmp_path / "b" / "1.png", 99)
    said = kinds(inspect(sources.read(tmp_path)))
    assert said["imbalance"].severity == "warning"
    assert "31 times" in said["imbalance"].message
    assert said["tiny_class"].severity == "warning"
    assert "'b' (1)" in said["tiny_class"].message


def test_labels_that_look_alike(tmp_path):
    for i, label in enumerate(("Cat", "cat ", "dog", "fish", "\uff26ish")):
        draw(tmp_path / label / f"{i}.png", i)
    finding = kinds(inspect(sources.read(tmp_path)))["label_names"]
    assert finding.message == "2 classes are written in several ways: 'Cat' and 'cat '; 'fish' and '\uff26ish'"


def test_a_split_without_a_class(tmp_path):
    for i in range(12):
        draw(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", i)
        draw(tmp_path / "test" / "ac"[i % 2] / f"{i}.png", 100 + i)
    said = kinds(inspect(sources.read(tmp_path)))["missing_in_split"]
    assert said.severity == "error"
    assert said.message == "train has no 'c'; test has no 'b'"


def test_a_class_without_a_readable_image_is_no_class(photos):
    (photos / "bird").mkdir()
    (photos / "bird" / "1.jpg").write_bytes(b"")
    found = inspect(sources.read(photos))
    assert found.dataset.labels == ("cat", "dog")
    assert Counter(found.dataset.targets().tolist()) == {0: 10, 1: 10}
    assert "'bird'" in kinds(found)["empty_class"].message


def test_several_labels(photos):
    rows = ["path,label"] + [f"{'cat' if i % 2 == 0 else 'dog'}/{i}.jpg,{'a|b' if i % 3 else 'a'}" for i in range(20)]
    shutil.copy(photos / "cat" / "0.jpg", photos / "copy.jpg")
    (photos / "t.csv").write_text("\n".join([*rows, "copy.jpg,b|c", "none.jpg,d"]))
    found = inspect(sources.read(photos / "t.csv", separator="|"))
    assert found.dataset.labels == ("a", "b", "c")
    assert found.dataset.targets().sum(0).tolist() == [20, 14, 1]
    assert set(kinds(found)["conflicting_labels"].items) == {"cat/0.jpg", "copy.jpg"}
    check_trainable(found.dataset)


def test_blank_pictures_are_named(photos):
    for i in range(3):
        Image.new("RGB", (50, 50), (i * 80, 9, 9)).save(photos / "cat" / f"blank{i}.png")
    found = inspect(sources.read(photos))
    assert kinds(found)["blank"].rows == tuple(
        i for i, item in enumerate(found.dataset.table["item"].to_pylist()) if "blank" in item
    )
    assert "near_duplicates" not in kinds(found)


def test_what_cannot_be_learnt_is_refused_in_one_line(tmp_path, photos):
    check_trainable(sources.read(photos))
    draw(tmp_path / "one" / "cat" / "1.png", 1)
    with pytest.raises(BadData, match=r"one class only \('cat', 1 images\)"):
        check_trainable(sources.read(tmp_path / "one"))
    draw(tmp_path / "one" / "dog" / "1.png", 2)
    with pytest.raises(BadData, match="each of the 2 classes has a single training image"):
        check_trainable(sources.read(tmp_path / "one"))
    for label in ("cat", "dog"):
        draw(tmp_path / "two" / "test" / label / "1.png", 2)
    draw(tmp_path / "two" / "train" / "cat" / "1.png", 3)
    with pytest.raises(BadData, match="one class only"):
        check_trainable(sources.read(tmp_path / "two"))
    (tmp_path / "t.csv").write_text(f"path\n{photos}/cat/0.jpg\n")
    with pytest.raises(BadData, match="no labels"):
        check_trainable(sources.read(tmp_path / "t.csv"))
