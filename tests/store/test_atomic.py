import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from topwork.errors import StoreError
from topwork.store import atomic
from topwork.store.atomic import check_replaceable, new_folder, write_file


def fill(folder, text):
    (folder / "sub").mkdir()
    (folder / "sub" / "part").write_text(text)
    (folder / "model.json").write_text(text)


def write(target, text, error=None):
    with new_folder(target, "model.json") as building:
        fill(building, text)
        if error:
            raise error


def content(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def whole(text):
    return {"sub/part": text, "model.json": text}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "photos"


def test_a_folder_appears_when_the_block_ends(target):
    with new_folder(target, "model.json") as building:
        fill(building, "one")
        assert not target.exists()
    assert content(target) == whole("one")
    assert target.stat().st_mode & 0o777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def test_one_of_ours_is_replaced(target):
    for text in ("one", "two"):
        write(target, text)
    assert content(target) == whole("two")
    assert list(target.parent.iterdir()) == [target]


def test_an_error_inside_leaves_the_old_one(target):
    write(target, "one")
    with pytest.raises(KeyboardInterrupt):
        write(target, "two", KeyboardInterrupt())
    assert content(target) == whole("one")
    assert list(target.parent.iterdir()) == [target]


def test_an_empty_folder_is_taken(target):
    target.mkdir(parents=True)
    write(target, "one")
    assert content(target) == whole("one")


def test_foreign_folders_and_files_are_refused_before_any_work(target):
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"not a Topwork folder \(no model.json in it\). Choose another --out"):
        write(target, "two", AssertionError("no work may begin"))
    assert content(target) == {"thesis.tex": "precious"}
    with pytest.raises(StoreError, match=r"thesis.tex exists and is not a Topwork folder"):
        check_replaceable(target / "thesis.tex", "model.json")
    with pytest.raises(StoreError, match=r"thesis.tex is a file, so .* cannot be written"):
        check_replaceable(target / "thesis.tex" / "below" / "it", "model.json")


def test_a_folder_that_may_not_be_written(target, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(StoreError, match="is not writable"):
        check_replaceable(target, "model.json")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_the_old_one(target, monkeypatch, code):
    write(target, "one")

    def full(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"The disk is full: .*photos was not written. Free some space and run again"):
        write(target, "two")
    with pytest.raises(StoreError, match="The disk is full"):
        write_file(target / "model.json", b"two")
    assert content(target) == whole("one")
    assert list(target.parent.iterdir()) == [target]


def test_a_disk_that_really_ends(target):
    """The kernel refuses to let a file grow: the nearest thing to a full disk that needs no rights."""
    code = (
        "import sys, pathlib, resource\n"
        "from topwork.errors import StoreError; from topwork.store.atomic import write_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
        "try: write_file(pathlib.Path(sys.argv[1]), bytes(20_000))\n"
        "except StoreError as error: print(error)"
    )
    target.parent.mkdir()
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{target} cannot be written: File too large\n"
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_appears_at_once_with_its_folder(target):
    write_file(target / "a.txt", b"one")
    write_file(target / "a.txt", b"two")
    assert content(target) == {"a.txt": "two"}
    assert (target / "a.txt").stat().st_mode & 0o777 == 0o644


def test_a_file_below_a_file(target):
    target.parent.mkdir()
    target.write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write_file(target / "a.txt", b"one")


WRITER = """
import sys, pathlib
from topwork.store.atomic import new_folder
print("ready", flush=True)
number = 0
while True:
    number += 1
    with new_folder(pathlib.Path(sys.argv[1]), "model.json") as folder:
        (folder / "sub").mkdir()
        for name in ("sub/part", "model.json"):
            (folder / name).write_text(str(number))
"""


def test_a_killed_writer_leaves_a_whole_folder_and_the_next_one_sweeps(target):
    draw = random.Random(5)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.0, 0.08))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        if target.exists():
            found = content(target)
            assert found == whole(found["model.json"])
    write(target, "last")
    assert content(target) == whole("last")
    assert list(target.parent.iterdir()) == [target]


def test_a_writer_killed_between_its_two_renames_loses_nothing(target):
    """Old folder set aside, new one not in place yet: the next writer puts the old one back before it begins."""
    nobody = subprocess.Popen(["true"])
    nobody.wait()
    target.parent.mkdir()
    aside = target.parent / f".photos.{nobody.pid}.x.old"
    aside.mkdir()
    fill(aside, "good")
    unfinished = target.parent / f".photos.{nobody.pid}.x"
    unfinished.mkdir()
    with pytest.raises(RuntimeError):
        write(target, "two", RuntimeError())
    assert content(target) == whole("good")
    assert list(target.parent.iterdir()) == [target]


def test_a_living_writer_is_left_alone(target):
    target.parent.mkdir()
    other = target.parent / f".photos.{os.getppid()}.x"
    other.mkdir()
    write(target, "one")
    assert other.is_dir()


def test_what_the_system_said_is_kept():
    error = atomic.explain(OSError(errno.EROFS, "Read-only file system"), atomic.Path("/x"))
    assert str(error) == "/x cannot be written: Read-only file system"
    assert isinstance(error, OSError)
