import json

import numpy as np
import pytest

from topwork import sources
from topwork.errors import BadData, StoreError
from topwork.features import frames as room
from topwork.features.contents import distinct
from topwork.features.frames import frames
from topwork.features.pixels import Loader
from topwork.types import Preprocess


@pytest.fixture
def data(photos, tmp_path):
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "moss" / "copy.png").write_bytes((photos / "amber" / "03.png").read_bytes())
    (tmp_path / "photos" / "moss" / "broken.png").write_bytes((photos / "amber" / "03.png").read_bytes()[:200])
    return sources.read(tmp_path / "photos")


def test_every_image_once_as_extraction_cuts_it(data):
    contents = distinct(data)
    found = frames(data, contents, 24)
    assert found.pixels.shape == (61, 24, 24, 3)  # 62 files, one of them a copy
    loader = Loader(data, contents, Preprocess(24, 24, (0, 0, 0), (1, 1, 1)))
    rows = np.array([45, 2, 2, 17])
    for row, picture in zip(rows, found(rows), strict=True):
        np.testing.assert_array_equal(picture, loader.load([int(contents.index[row])], 1).crops[0])
    items = data.table["item"].to_pylist()
    copy, original, broken = (
        next(i for i, x in enumerate(items) if x.endswith(e)) for e in ("copy.png", "amber/03.png", "broken.png")
    )
    assert found.index[copy] == found.index[original] >= 0
    assert found.index[broken] == -1
    assert [s.item for s in found.skipped] == ["moss/broken.png"]
    assert "truncated" in found.skipped[0].reason


def test_the_second_time_nothing_is_decoded(data, monkeypatch):
    contents = distinct(data)
    one = frames(data, contents, 16)
    monkeypatch.setattr(Loader, "load", lambda *_: pytest.fail("decoded again"))
    two = frames(data, contents, 16)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert two.skipped == one.skipped


def test_goes_on_where_it_was_killed(data, monkeypatch):
    monkeypatch.setattr(room, "CHUNK", 16)
    monkeypatch.setattr(room, "AT_ONCE", 4)
    contents = distinct(data)
    load, seen = Loader.load, []

    def dying(self, wanted, size):
        if wanted[0] >= 32:
            raise KeyboardInterrupt
        return load(self, wanted, size)

    monkeypatch.setattr(Loader, "load", dying)
    with pytest.raises(KeyboardInterrupt):
        frames(data, contents, 20)
    (note,) = room._folder().glob("*.part.json")
    assert json.loads(note.read_bytes())["done"] == 32
    monkeypatch.setattr(Loader, "load", lambda self, wanted, size: (seen.extend(wanted), load(self, wanted, size))[1])
    found = frames(data, contents, 20)
    assert sorted(seen) == list(range(32, 61))
    assert len(found.skipped) == 1
    assert not list(room._folder().glob("*.part*"))
    monkeypatch.setattr(Loader, "load", load)
    whole = Loader(data, contents, Preprocess(20, 20, (0, 0, 0), (1, 1, 1))).load(list(range(40)), 40)
    np.testing.assert_array_equal(found.pixels[whole.contents], whole.crops[: len(whole.contents)])


def test_old_frames_make_room_and_too_large_ones_are_refused(data, monkeypatch):
    contents = distinct(data)
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.00025")  # 61 x 32 x 32 x 3 take 0.00019
    frames(data, contents, 32)
    frames(data, contents, 31)
    assert len(list(room._folder().glob("*.npy"))) == 1
    with pytest.raises(StoreError, match=r"Raise TOPWORK_CACHE_GB, or take a smaller --size"):
        frames(data, contents, 64)


def test_a_damaged_note_is_no_note(data):
    contents = distinct(data)
    frames(data, contents, 16)
    (note,) = room._folder().glob("*.json")
    note.write_text("{")
    assert len(frames(data, contents, 16).skipped) == 1


def test_nothing_readable_is_an_error(tmp_path):
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.png").write_bytes(b"nonsense" + name.encode())
    dataset = sources.read(tmp_path / "d")
    with pytest.raises(BadData, match=r"none of its 2 images can be read, e.g. a/x.png: not an image"):
        frames(dataset, distinct(dataset), 16)
