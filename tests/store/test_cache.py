import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from topwork.store import entries
from topwork.store import lmdb_cache as module
from topwork.store.cache import Cache, open_cache
from topwork.types import Choice


def make(folder, limit=1_000_000_000):
    return Cache(folder, Choice("cache limit", limit, "test"))


def python(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


KEYS = [i.to_bytes(16, "big") for i in range(200)]
VALUES = [random.Random(i).randbytes(5120) for i in range(200)]


@pytest.fixture
def filled(tmp_path):
    """A cache folder with 200 features of 5 KB, closed."""
    with make(tmp_path / "c") as cache:
        for start in range(0, 200, 20):
            cache.put_many("f", zip(KEYS[start : start + 20], VALUES[start : start + 20], strict=True))
    return tmp_path / "c"


def recovers(folder, note):
    """Whatever the file holds: never wrong data, never an exception, a note, and a cache that works again."""
    with make(folder) as cache:
        for value, found in zip(VALUES, cache.get_many("f", KEYS), strict=True):
            assert found in (None, value)
        cache.put_many("f", zip(KEYS, VALUES, strict=True))
        assert cache.get_many("f", KEYS) == VALUES
        assert (note in " ".join(cache.notes)) if note else not cache.notes
    with make(folder) as cache:
        assert cache.get_many("f", KEYS) == VALUES
        assert cache.notes == []


def test_the_users_folder_and_one_object_per_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("TOPWORK_CACHE_GB", "0.5")
    cache = open_cache()
    cache.put_many("a", [(b"k", b"v")])
    assert open_cache() is cache
    facts = cache.info()
    assert facts["folder"] == str(tmp_path / "here")
    assert facts["limit"] == "0.5 GB (TOPWORK_CACHE_GB)"
    assert facts["bytes"] == sum(file.stat().st_size for file in (tmp_path / "here").rglob("data.mdb"))
    monkeypatch.setenv("TOPWORK_CACHE_GB", "2")
    assert open_cache().info()["limit_bytes"] == 2_000_000_000
    assert open_cache().get_many("a", [b"k"]) == [b"v"]


def test_nothing_is_made_by_opening_alone(tmp_path):
    make(tmp_path / "c").close()
    assert not (tmp_path / "c").exists()


# eviction


def test_the_file_stays_near_the_limit_and_the_count_is_right(tmp_path):
    limit = 3_000_000
    draw = random.Random(0)
    with make(tmp_path / "c", limit) as cache:
        for _ in range(60):
            pairs = [(draw.randbytes(16), draw.randbytes(draw.choice([10, 900, 5120, 9000]))) for _ in range(50)]
            cache.put_many(draw.choice("abc"), pairs)
            assert cache.get_many("a", [draw.randbytes(16)]) == [None]
        facts = cache.info()
        assert cache._env is not None
        assert sum(part["bytes"] for part in facts["namespaces"].values()) == entries.total(cache._env) <= limit
        assert facts["bytes"] < 1.5 * limit
        assert cache.notes == []


# damage


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.7, 0.95])
def test_a_cut_off_file(filled, share):
    file = filled / "items-v1" / "data.mdb"
    os.truncate(file, int(share * file.stat().st_size))
    recovers(filled, "damaged" if share else "")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 20_000, os.urandom(500_000)], ids=["text", "zeros", "random"])
def test_garbage_instead_of_the_file(filled, content):
    (filled / "items-v1" / "data.mdb").write_bytes(content)
    recovers(filled, "damaged")


@pytest.mark.parametrize("seed", range(6))
def test_garbage_inside_the_file(filled, seed):
    """Random bytes over leaf and branch pages, where LMDB follows pointers, and over values."""
    draw = random.Random(seed)
    file = filled / "items-v1" / "data.mdb"
    data = bytearray(file.read_bytes())
    pages = [at for at in range(8192, len(data), 4096) if data[at + 10] in (1, 2)]
    for at in draw.sample(pages, min(len(pages), 1 + seed)):
        start = at + draw.choice([0, 16, 100])
        data[start : start + 300] = draw.randbytes(300)
    file.write_bytes(data)
    code = "import sys; sys.path[:0] = sys.argv[2:]; import test_cache; test_cache.harmless(sys.argv[1])"
    assert python(code, filled, os.path.dirname(__file__)).wait(60) == 0  # its own process: a crash would be a signal


def harmless(folder):
    with make(Path(folder)) as cache:
        for _ in range(2):  # what is found damaged on the way is begun anew once
            for value, found in zip(VALUES, cache.get_many("f", KEYS), strict=True):
                assert found in (None, value)
            for i in range(0, 200, 20):
                cache.put_many("f", zip(KEYS[i : i + 20], VALUES[i : i + 20], strict=True))
        assert cache.get_many("f", KEYS) == VALUES


def test_a_changed_value_is_not_there(filled):
    file = filled / "items-v1" / "data.mdb"
    data = bytearray(file.read_bytes())
    at = data.index(VALUES[7])
    data[at + 2000] ^= 1
    file.write_bytes(data)
    with make(filled) as cache:
        assert [i for i, value in enumerate(cache.get_many("f", KEYS)) if value is None] == [7]
        assert cache.notes == [f"The cache in {filled} held damaged entries; they are computed again"]


def test_another_format_is_begun_anew(filled, monkeypatch):
    monkeypatch.setattr(module, "_STAMP", b"topwork cache 0 little")
    recovers(filled, "another format")


def test_a_garbled_lock_file_is_nothing(filled):
    (filled / "items-v1" / "lock.mdb").write_bytes(os.urandom(8192))
    recovers(filled, "")


# a machine that refuses


@pytest.mark.parametrize("place", ["file", "file/below", "folder"])
def test_a_folder_that_cannot_be_used(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "items-v1").write_text("in the way")
    with make(tmp_path / place) as cache:
        cache.put_many("f", [(b"k", b"1")])
        assert cache.get_many("f", [b"k"]) == [None]
        assert cache.info()["namespaces"] == {}
        assert len(cache.notes) == 1
        assert "nothing more is kept. TOPWORK_CACHE names another folder" in cache.notes[0]


FULL = """
import resource, sys, pathlib
from topwork.store.cache import Cache
from topwork.types import Choice
cache = Cache(pathlib.Path(sys.argv[1]), Choice("cache limit", 1_000_000_000, "test"))
cache.put_many("f", [(b"before", b"1" * 5000)])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for i in range(100):
    cache.put_many("f", [(b"%d" % i, b"2" * 5000)])
there = [value is not None for value in cache.get_many("f", [b"%d" % i for i in range(100)])]
assert cache.get_many("f", [b"before"]) == [b"1" * 5000]
assert any(there) and there == sorted(there, reverse=True) and not all(there), there
print(len(cache.notes), cache.notes[0])
"""


def test_a_disk_that_fills_up_stops_the_writing_and_nothing_else(tmp_path):
    writer = python(FULL, tmp_path / "c", stdout=subprocess.PIPE)
    out, _ = writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert out.startswith(f"1 The cache {tmp_path / 'c'} cannot be written (Input/output error): nothing more is kept.")
    with make(tmp_path / "c") as cache:
        assert cache.get_many("f", [b"before", b"0"]) == [b"1" * 5000, b"2" * 5000]
        assert cache.notes == []


def test_a_full_disk_is_called_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_is_full", lambda folder: True)
    (tmp_path / "file").write_text("")
    with make(tmp_path / "file") as cache:
        cache.put_many("f", [(b"k", b"1")])
        assert "is full: nothing more is kept. Free some space" in cache.notes[0]


# several processes

WRITE = """
import itertools, sys, pathlib
from topwork.store.cache import Cache
from topwork.types import Choice
cache = Cache(pathlib.Path(sys.argv[1]), Choice("cache limit", int(sys.argv[3]), "test"))
name = sys.argv[2]
for i in itertools.count() if sys.argv[4] == "forever" else range(int(sys.argv[4])):
    cache.put_many("f", [(b"%s %d %d" % (name.encode(), i, j), b"%d" % i * 3000) for j in range(5)])
    print(i, flush=True)
cache.close()
"""


def test_a_killed_writer_leaves_whole_puts_only(tmp_path):
    for attempt in range(3):
        writer = python(WRITE, tmp_path / "c", attempt, 1_000_000_000, "forever", stdout=subprocess.PIPE)
        assert writer.stdout.readline() == "0\n"
        time.sleep(random.Random(attempt).uniform(0.0, 0.1))
        writer.send_signal(signal.SIGKILL)
        said = [0, *map(int, writer.stdout.read().split())]
        writer.wait()
        writer.stdout.close()
        with make(tmp_path / "c") as cache:
            for i in range(said[-1] + 10):
                found = cache.get_many("f", [b"%d %d %d" % (attempt, i, j) for j in range(5)])
                assert found == [b"%d" % i * 3000] * 5 or (i > said[-1] and found == [None] * 5)
            assert cache.notes == []


def test_processes_write_side_by_side_and_the_map_grows(tmp_path):
    """The readers' limit is 40 times smaller than what the writers may fill: the map must be taken over as it grows."""
    with make(tmp_path / "c", limit=1_000_000) as small:
        small.put_many("f", [(b"k", b"1")])
        writers = [python(WRITE, tmp_path / "c", name, 40_000_000, 15, stdout=subprocess.DEVNULL) for name in "ab"]
        while any(writer.poll() is None for writer in writers):
            assert small.get_many("f", [b"k"]) == [b"1"]
            time.sleep(0.02)
        assert [writer.returncode for writer in writers] == [0, 0]
        for name in (b"a", b"b"):
            for i in range(15):
                assert small.get_many("f", [b"%s %d 4" % (name, i)]) == [b"%d" % i * 3000]
        assert small.notes == []


def test_the_map_is_taken_over_when_another_process_has_grown_it(tmp_path):
    with make(tmp_path / "c", limit=1_000_000) as small:
        small.put_many("f", [(b"k", b"1")])
        code = (
            "import sys, pathlib; from topwork.store.cache import Cache; from topwork.types import Choice;"
            "c = Cache(pathlib.Path(sys.argv[1]), Choice('', 10**9, ''));"
            "c.put_many('f', [(b'%d' % i, bytes(1_000_000)) for i in range(100)]); c.close()"
        )
        assert python(code, tmp_path / "c").wait(60) == 0  # 100 MB; the small map has 65 MB
        assert small.get_many("f", [b"99", b"k"]) == [bytes(1_000_000), b"1"]
        assert small.notes == []


def test_a_forked_child_works_on_its_own(tmp_path):
    cache = make(tmp_path / "c")
    cache.put_many("f", [(b"k", b"1")])
    child = os.fork()
    if child == 0:
        ok = cache.get_many("f", [b"k"]) == [b"1"]
        cache.put_many("f", [(b"child", b"2")])
        os._exit(0 if ok and not cache.notes else 1)
    assert os.waitpid(child, 0)[1] == 0
    cache.put_many("f", [(b"parent", b"3")])
    assert cache.get_many("f", [b"k", b"child", b"parent"]) == [b"1", b"2", b"3"]
    cache.close()


def test_clearing_while_another_process_reads(filled):
    code = (
        "import sys, pathlib; from topwork.store.cache import Cache; from topwork.types import Choice;"
        "c = Cache(pathlib.Path(sys.argv[1]), Choice('', 10**9, '')); k = (5).to_bytes(16, 'big');"
        "c.get_many('f', [k]); print('open', flush=True); input();"
        "assert c.get_many('f', [k])[0] and not c.notes; c.close()"
    )
    reader = python(code, filled, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdout.readline() == "open\n"
    with make(filled) as cache:
        cache.clear()
        assert list(filled.iterdir()) == []
        cache.put_many("f", [(b"k", b"1")])
        reader.communicate("\n", timeout=60)
        assert reader.returncode == 0
        assert cache.get_many("f", [b"k", KEYS[5]]) == [b"1", None]


def test_what_was_cleared_takes_no_room(filled):
    (filled / "items-v0").mkdir()  # of an older version
    with make(filled) as cache:
        cache.clear()
        assert cache.info()["bytes"] == 0
    assert list(filled.iterdir()) == []
    shutil.rmtree(filled)
    make(filled).clear()


def test_reading_keeps_memory_and_readers_free(filled):
    with make(filled) as cache:
        held = [cache.get_many("f", KEYS) for _ in range(3)]
        assert cache._env is not None
        assert "no active readers" in cache._env._env.readers()
        cache.clear()
        assert held[0] == VALUES  # copies: good after the file is gone
