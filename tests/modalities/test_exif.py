"""EXIF blocks as Pillow writes them, damaged ones, and none."""

import numpy as np
import pytest
from PIL import Image

from topwork.modalities.exif import Exif, read


def block(tags, more=None):
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if more:
        exif.get_ifd(0x8769).update(more)
    return exif.tobytes()


def test_what_is_written_is_read():
    data = block({0x0112: 6, 0x010F: "Acme", 0x0110: "One  II"}, {0x9003: "2026:11:21 18:45:30", 0xA431: "0042"})
    told = read(data)
    assert (told.turn, told.taken) == (6, 1795286730)
    assert told.camera.startswith("camera ")
    assert "Acme" not in told.camera
    other = block({0x0112: 6, 0x010F: "Acme", 0x0110: "One  II"}, {0xA431: "0043"})
    assert read(other).camera != told.camera
    assert read(b"Exif\0\0" + data.removeprefix(b"Exif\0\0")) == read(data)


def test_the_time_of_the_file_where_that_of_the_shot_is_missing():
    assert read(block({0x0132: "1999:12:31 23:59:59"})).taken == 946684799


@pytest.mark.parametrize("when", ["", "0000:00:00 00:00:00", "yesterday", "2026:13:01 00:00:00", "2026:11:21"])
def test_times_that_are_none(when):
    assert read(block({0x0132: when})).taken == 0


def test_odd_orientations_stand_upright():
    assert [read(block({0x0112: turn})).turn for turn in (1, 3, 8, 0, 9, 77)] == [1, 3, 8, 1, 1, 1]


def test_damage_means_not_known():
    whole = block({0x0112: 3, 0x010F: "Acme"}, {0x9003: "2026:11:21 18:45:30"})
    rng = np.random.default_rng(0)
    assert read(b"") == read(b"MM") == read(b"not at all") == Exif()
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(8, len(data), 3):
            data[at] = rng.integers(256)
        assert 1 <= read(bytes(data)).turn <= 8
        assert 1 <= read(whole[: rng.integers(len(whole))]).turn <= 8
