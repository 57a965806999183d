"""Local copies: whole or not there, within their limit."""

import contextlib
import os
import threading
import time

import pytest

from topwork.errors import StoreError
from topwork.store.remote import local_copies as module
from topwork.store.remote.local_copies import Copies, address_key
from topwork.types import Choice


def shelf(tmp_path, limit=1000):
    return Copies(tmp_path, Choice("remote limit", limit, "a test"))


def name(address, version="1"):
    return f"{address_key(address)}-{address_key(version)}.bin"


def keep(held, address, size, version="1"):
    with held.coming(name(address, version), size, resume=False) as new:
        new.part.write_bytes(bytes(size))
    return name(address, version)


def on_disk(held):
    return sum(path.stat().st_size for path in held.folder.rglob("*") if path.is_file())


def test_the_least_recently_used_leave(tmp_path):
    held = shelf(tmp_path)
    for i, address in enumerate("abcd"):
        os.utime(held.find(keep(held, address, 230)), ns=(i * 10**9, i * 10**9))
    held.find(name("a"))  # used just now
    keep(held, "e", 230)
    assert [held.find(name(x)) is not None for x in "abcde"] == [True, False, True, True, True]
    assert on_disk(held) <= 1000
    for i, address in enumerate("dcae"):
        os.utime(held.find(name(address)), ns=(i * 10**9, i * 10**9))
    other = shelf(tmp_path)  # another process
    keep(other, "f", 300)
    assert [other.find(name(x)) is not None for x in "acdef"] == [True, False, False, True, True]


def test_room_is_made_before_a_file_comes(tmp_path):
    held = shelf(tmp_path)
    keep(held, "a", 600)
    with held.coming(name("b"), 600, resume=False) as new:
        assert on_disk(held) == 0
        new.part.write_bytes(bytes(600))


def test_what_is_on_its_way_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.2)
    held = shelf(tmp_path)
    with held.coming(name("a"), 700, resume=False) as new:
        with pytest.raises(StoreError, match=r"No room for 0.00 MB of remote data"):
            held.reserve(400)
        new.part.write_bytes(bytes(700))
    held.reserve(400)  # now the copy leaves


def test_who_finds_no_room_waits_for_the_others(tmp_path):
    held, done = shelf(tmp_path), []
    with held.coming(name("a"), 700, resume=False) as new:
        waiting = threading.Thread(target=lambda: done.append(keep(held, "b", 700)))
        waiting.start()
        time.sleep(0.1)
        assert not done
        new.part.write_bytes(bytes(700))
    waiting.join(5)
    assert done
    assert held.find(name("a")) is None


def test_pinned_copies_stay(tmp_path):
    held = shelf(tmp_path)
    keep(held, "a", 600)
    held.find(name("a"), pin=True)
    with pytest.raises(StoreError, match=r"tables and archives in use take 0.00 MB .*Raise TOPWORK_REMOTE_GB"):
        keep(held, "b", 600)
    keep(held, "b", 300)


def test_larger_than_all(tmp_path):
    with pytest.raises(StoreError, match="does not fit"):
        keep(shelf(tmp_path), "a", 1001)


def test_another_version_takes_the_place_of_the_old_one(tmp_path):
    held = shelf(tmp_path)
    keep(held, "a", 100)
    keep(held, "a", 100, "2")
    assert held.find(name("a")) is None
    assert held.find(name("a", "2")) is not None
    assert held.known(address_key("a"))
    assert not held.known(address_key("b"))


def test_what_breaks_off_leaves_nothing(tmp_path):
    held = shelf(tmp_path)

    def half(resume):
        with held.coming(name("a"), 100, resume=resume) as new:
            new.part.write_bytes(bytes(50))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half(resume=False)
    assert on_disk(held) == 0
    with pytest.raises(ZeroDivisionError):
        half(resume=True)
    assert held.find(name("a")) is None
    with held.coming(name("a"), 100, resume=True) as new:
        assert new.part.stat().st_size == 50  # a large one goes on
        new.part.write_bytes(bytes(100))
    assert held.find(name("a")) is not None
    assert held.info()["bytes"] == 100


def test_leftovers_of_dead_processes_are_swept(tmp_path):
    held = shelf(tmp_path)
    keep(held, "a", 10)
    new = held.folder / "new"
    (new / f"{name('b')}.999999999.0.part").write_bytes(b"x")
    (new / f"{name('c')}.{os.getpid()}.0.part").write_bytes(b"x")
    (new / f"{name('d')}.part").write_bytes(b"x")
    os.utime(new / f"{name('d')}.part", (0, 0))
    shelf(tmp_path).info()
    assert [path.name for path in new.iterdir()] == [f"{name('c')}.{os.getpid()}.0.part"]


def test_threads_keep_to_the_limit(tmp_path):
    held, most = shelf(tmp_path, 2000), []

    def work(letter):
        for i in range(20):
            keep(held, f"{letter}{i}", 150)
            most.append(on_disk_safely(held))

    def on_disk_safely(held):
        sizes = {}
        with held._room:  # nothing leaves meanwhile, but files get their names: told apart by their numbers
            for root, _, files in os.walk(held.folder):
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        facts = os.stat(os.path.join(root, file))
                        sizes[facts.st_ino] = facts.st_size
        return sum(sizes.values())

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 2000
    assert held.info()["bytes"] <= 2000


def test_clear(tmp_path):
    held = shelf(tmp_path)
    keep(held, "a", 100)
    held.clear()
    assert on_disk(held) == 0
    assert held.info()["files"] == 0


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    held = shelf(tmp_path)
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="The disk is full"), held.coming(name("a"), 100, resume=False):
        full()
