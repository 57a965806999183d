import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tests.data.test_faces import photo, red_square
from tests.data.test_image_metadata import SECRETS, jpeg, png

from topwork import sources
from topwork.data.faces import Detector
from topwork.data.redact import Found, check_target, masked, write_images, write_texts
from topwork.errors import BadSetting, StoreError
from topwork.modalities.image import decode
from topwork.modalities.redaction import Redaction
from topwork.modalities.text import PAIR
from topwork.types import Dataset

MAIL = "anna{}@example.org"


def reviews(path, extra=""):
    rows = [
        f'"a text of number {i}, write to {MAIL.format(i % 3)}",{"ab"[i % 2]},{MAIL.format(i // 4)},2024-01-{i + 1:02d}'
        for i in range(12)
    ]
    path.write_text("\n".join(["text,label,group,date", *rows, extra]))
    return sources.read(path)


def test_texts_become_a_table_with_all_that_splits_need(tmp_path):
    data = reviews(tmp_path / "r.csv")
    told = write_texts(data, Redaction.of(), tmp_path / "new.csv", {})
    assert told["found"] == {"email": {"count": 15, "items": 13}}  # twelve texts, and the names of three groups
    assert json.loads((tmp_path / "new.redaction.json").read_text()) == told
    new = sources.read(tmp_path / "new.csv")
    assert new.table["text"][4].as_py() == "a text of number 4, write to [EMAIL]"
    assert new.table["target"] == data.table["target"]
    assert new.table["time"].to_pylist() == data.table["time"].to_pylist()
    assert new.table["group"].to_pylist() == [f"group {i // 4 + 1}" for i in range(12)]
    assert "anna" not in (tmp_path / "new.csv").read_text() + json.dumps(told)
    again = write_texts(new, Redaction.of(), tmp_path / "again.csv", {})
    assert again["found"] == {}
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "new.csv").read_bytes()


def test_texts_become_a_folder_that_is_read_again(tmp_path):
    data = reviews(tmp_path / "r.csv")
    redaction = Redaction.of("email", "pseudonym", b"0123456789abcdef")
    write_texts(data, redaction, tmp_path / "new", {"seed": 1})
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "items.parquet",
        "history.json",
        "redaction.json",
        "REDACTED.md",
    }
    new = sources.read(tmp_path / "new")
    texts = new.table["text"].to_pylist()
    assert texts[0].split("to ")[1] == texts[3].split("to ")[1] != texts[1].split("to ")[1]
    assert new.labels == ("a", "b")
    assert any("redacted: 12 places in 12 texts, pseudonym" in line for line in new.history)
    assert not any(b"anna" in path.read_bytes() for path in (tmp_path / "new").iterdir())


def test_pairs_stay_pairs_and_empty_texts_empty():
    columns = {"item": ["1", "2"], "text": [f"x@y.org{PAIR}13800138000", None], "target": pa.array([0, 0], pa.int32())}
    found = Found()
    done = masked(Dataset(pa.table(columns), "", ("a",), modality="text"), Redaction.of(), found)
    assert done.table["text"].to_pylist() == [f"[EMAIL]{PAIR}[PHONE]", ""]
    assert found.counts == {"email": 1, "phone": 1}


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    for i in range(6):
        path = place / "ab"[i % 2] / (f"{i}.jpg" if i < 4 else f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(6 if i == 1 else 1) if i < 4 else png())
    (place / "a" / "broken.jpg").write_bytes(jpeg()[:3000])
    (place / "b" / "anna@example.org.jpg").write_bytes(jpeg())
    return place


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_images_become_clean_copies(photos, tmp_path):
    data = sources.read(photos)
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    told = write_images(data, Redaction.of(), tmp_path / "new", {})
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    assert told["items"] == 7
    assert told["left_out"] == 1
    assert told["written"] == {"stripped": 6, "turned": 1}
    assert told["found"]["gps"] == {"count": 7, "items": 7}
    for path in (tmp_path / "new").rglob("*"):
        assert path.is_dir() or not any(secret in path.read_bytes() for secret in SECRETS)
    assert "b/[EMAIL].jpg" in files_of(tmp_path / "new")
    new = sources.read(tmp_path / "new")
    assert new.labels == ("a", "b")
    old = {Path(path).name: path for path in data.paths()}
    for path, target in zip(new.paths(), new.targets(), strict=True):
        name = Path(path).name
        if name in old:
            assert np.abs(decode(path).astype(float) - decode(old[name])).mean() < 1.5
            assert new.labels[target] == Path(old[name]).parent.name
    assert json.loads((tmp_path / "new" / "redaction.json").read_text()) == told


def test_faces_are_blurred(tmp_path):
    for i, box in enumerate([(40, 30, 100, 110), (0, 0, 0, 0), (150, 60, 260, 180)]):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(box)).save(path)
    detector = Detector.of(str(red_square(tmp_path / "d.onnx")))
    data = sources.read(tmp_path / "photos")
    film = [Image.new("L", (300, 200), shade) for shade in (90, 200)]
    film[0].save(tmp_path / "photos" / "a" / "film.gif", save_all=True, append_images=film[1:])
    told = write_images(data, Redaction.of(), tmp_path / "new", {}, detector)
    assert told["found"] == {"face": {"count": 2, "items": 2}}
    assert told["written"] == {"blurred": 2, "unchanged": 1}
    both = write_images(sources.read(tmp_path / "photos"), Redaction.of(), tmp_path / "both", {}, detector)
    assert both["written"] == {"blurred": 2, "unchanged": 1, "rewritten": 1}
    with Image.open(tmp_path / "both" / "a" / "film.gif") as first:
        assert getattr(first, "n_frames", 1) == 1
    new = sources.read(tmp_path / "new")
    for old_path in data.paths():
        old, same = (
            decode(old_path).astype(float),
            decode(next(p for p in new.paths() if Path(p).name == Path(old_path).name)).astype(float),
        )
        if old_path.endswith("1.png"):
            np.testing.assert_array_equal(old, same)
        else:
            at = (slice(35, 105), slice(45, 95)) if old_path.endswith("0.png") else (slice(65, 175), slice(155, 255))
            assert np.abs(np.diff(same[at], axis=1)).mean() < 0.2 * np.abs(np.diff(old[at], axis=1)).mean()
            np.testing.assert_array_equal(same[:, 120:125], old[:, 120:125])  # between them


def test_paths_outside_stay_inside(tmp_path):
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    for name in ("one.jpg", "deep/one.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    (place / "t.csv").write_text(f"path,label\n../one.jpg,a\n../../one.jpg,b\n{tmp_path / 'one.jpg'},b\n")
    write_images(sources.read(place / "t.csv"), Redaction.of(), tmp_path / "new", {})
    assert [name for name in files_of(tmp_path / "new") if name.endswith(".jpg")] == [
        "one.jpg",
        "one_2.jpg",
        "one_3.jpg",
    ]


def test_places_that_are_refused(photos, tmp_path):
    texts, images = reviews(tmp_path / "r.csv"), sources.read(photos)
    with pytest.raises(StoreError, match="was not written by topwork redact"):
        check_target(texts, tmp_path / "r.csv")
    with pytest.raises(BadSetting, match="images are copied into a folder"):
        check_target(images, tmp_path / "new.csv")
    for out in (photos, photos.parent):
        with pytest.raises((StoreError, BadSetting), match=r"not a Topwork folder|holds the data themselves"):
            check_target(images, out)
