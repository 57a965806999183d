"""Several workers over one real Redis server: every item is computed once, whatever happens to one of them."""

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from topwork.backbones import find
from topwork.features.extract import extract
from topwork.sources import read
from topwork.store.cache import Cache
from topwork.store.redis_cache import RedisCache
from topwork.types import Choice

from ..redis_server import RedisServer
from .test_texts import Small, dataset, some_texts

WORKER = """
import json, os, sys, time
from pathlib import Path
import topwork.store.redis_cache as module
from topwork.backbones import find
from topwork.features import engines, pixels, text_engines
from topwork.features.extract import extract
from topwork.sources import read
from topwork.store.cache import open_cache
import topwork.features.remembering as remembering

data, seconds, out = sys.argv[1], float(sys.argv[2]), sys.argv[3]
remembering.WRITE_EVERY_SECONDS = 0.05
module.CLAIM_SECONDS = 1.0
module.RedisCache.__init__.__defaults__ = (*module.RedisCache.__init__.__defaults__[:-1], 1.0)

def noted(load):
    def slow(self, wanted, size):
        for u in wanted:
            print(self._contents.keys[u].hex(), flush=True)
        time.sleep(seconds * len(wanted))
        return load(self, wanted, size)
    return slow

pixels.Loader.load = noted(pixels.Loader.load)
cache = open_cache()
print("ready", flush=True)
sys.stdin.readline()
found = extract(read(data), find("bundled"), cache, batch_size=2, threads=1)
import numpy as np
np.save(out, found.x)
print(json.dumps({"computed": found.computed, "cached": found.cached, "notes": cache.notes}), flush=True)
"""


class Worker:
    def __init__(self, tmp_path, name, url, data, seconds=0.01):
        self.x = tmp_path / f"{name}.npy"
        env = {**os.environ, "TOPWORK_CACHE": url, "TOPWORK_CACHE_FOLDER": str(tmp_path / name), "TOPWORK_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(data), str(seconds), str(self.x)],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def go(self):
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def until(self, count):
        """The first so many contents that it works on."""
        return [self.process.stdout.readline().strip() for _ in range(count)]

    def rest(self):
        with self.process as process:
            return process.stdout.read()

    def end(self):
        """All further contents that it worked on, and what it says at the end."""
        *contents, said = self.rest().splitlines()
        assert self.process.returncode == 0
        return contents, json.loads(said)


@pytest.fixture(scope="module")
def alone(photos):
    """Features by one worker without a store."""
    return extract(read(str(photos)), find("bundled"), None, batch_size=2, threads=1, engine="onnxruntime").x


def workers(tmp_path, url, data, **options):
    both = [Worker(tmp_path, name, url, data, **options) for name in "ab"]
    for one in both:
        one.go()
    return both


def test_two_workers_compute_every_item_once(redis_server, photos, tmp_path, alone):
    both = workers(tmp_path, redis_server.url(), photos)
    ended = [one.end() for one in both]
    times = collections.Counter(content for contents, _ in ended for content in contents)
    assert len(times) == 60
    assert set(times.values()) == {1}
    assert sum(said["computed"] for _, said in ended) == 60
    assert all(0 < said["computed"] < 60 and said["cached"] == 60 - said["computed"] for _, said in ended)
    assert all(said["notes"] == [] for _, said in ended)
    for one in both:
        assert np.load(one.x).tobytes() == alone.tobytes()
    assert redis_server.client.keys("topwork:1:c:*") == []  # every claim was given back


def test_the_other_takes_over_from_one_that_is_killed(redis_server, photos, tmp_path, alone):
    first, second = workers(tmp_path, redis_server.url(), photos, seconds=0.03)
    begun = first.until(9)  # four batches, and one in work
    first.process.send_signal(signal.SIGKILL)
    begun += first.rest().split()
    contents, said = second.end()
    assert len(set(contents) | set(begun)) == 60
    assert len(contents) == len(set(contents)) == said["computed"]
    kept = 60 - said["computed"]  # by the dead one, before it died
    assert 0 <= kept <= len(begun)
    assert np.load(second.x).tobytes() == alone.tobytes()


def test_both_go_on_alone_when_the_server_is_killed(tmp_path, photos, alone):
    server = RedisServer(tmp_path / "redis")
    try:
        both = workers(tmp_path, server.url(), photos, seconds=0.03)
        seen = [one.until(7) for one in both]
        server.kill()
        for one, before in zip(both, seen, strict=True):
            contents, said = one.end()
            done = [*before, *contents]
            assert len(done) == len(set(done)) == said["computed"]  # nothing that was computed here is lost
            (note,) = said["notes"]
            assert "went away" in note
            assert "Nothing that was computed here is lost" in note
            assert np.load(one.x).tobytes() == alone.tobytes()
            with Cache(tmp_path / one.x.stem, Choice("cache limit", 10**9, "test")) as folder:
                again = extract(
                    read(str(photos)), find("bundled"), folder, batch_size=2, threads=1, engine="onnxruntime"
                )
            assert again.computed == 60 - said["computed"]
    finally:
        server.kill()


def test_a_server_that_hangs_costs_seconds(tmp_path, photos, alone, monkeypatch):
    monkeypatch.setattr("topwork.store.redis_cache.SECONDS", 1.0)
    server = RedisServer(tmp_path / "redis")
    try:
        store = RedisCache(server.url())
        timer = threading.Timer(0.3, server.pause)
        timer.start()
        began = time.monotonic()
        found = extract(
            read(str(photos)),
            find("bundled"),
            store,
            batch_size=2,
            threads=1,
            engine="onnxruntime",
            progress=lambda *_: time.sleep(0.02),
        )
        timer.join()
        assert 1.0 < time.monotonic() - began < 8
        assert "went away (Timeout" in store.notes[0]
        assert found.x.tobytes() == alone.tobytes()
    finally:
        server.kill()


def side_by_side(url, work):
    """What `work(store)` gives in two threads with a store each."""
    stores, found = [RedisCache(url) for _ in range(2)], []
    threads = [threading.Thread(target=lambda store=store: found.append(work(store))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        assert store.notes == []
        store.close()
    return found


def test_an_unreadable_item_keeps_nobody_waiting(redis_server, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "own")
    (tmp_path / "own" / "moss" / "broken.png").write_bytes(b"no picture")

    def work(store):
        return extract(
            read(str(tmp_path / "own")), find("bundled"), store, batch_size=2, threads=1, engine="onnxruntime"
        )

    found = side_by_side(redis_server.url(), work)
    assert sum(one.computed for one in found) == 60
    assert [len(one.skipped) for one in found] == [1, 1]
    assert redis_server.client.keys("topwork:1:c:*") == []


def test_texts_are_shared_too(redis_server):
    def work(store):
        return extract(dataset(some_texts(600)), Small(), store, batch_size=4, threads=1, engine="onnxruntime")

    whole, found = work(None), side_by_side(redis_server.url(), work)
    assert sum(one.computed for one in found) == whole.computed
    assert all(one.computed for one in found)
    assert all(one.x.tobytes() == whole.x.tobytes() for one in found)


def test_a_value_of_another_length_is_computed_again(redis_server, photos, alone):
    with RedisCache(redis_server.url()) as store:
        extract(read(str(photos)), find("bundled"), store, batch_size=2, threads=1, engine="onnxruntime")
        (namespace,) = [name for name in store.info()["namespaces"] if name.startswith("features/")]
        keys = [key[len("topwork:1:v:") + 8 :] for key in redis_server.client.keys("topwork:1:v:*")]
        some = [key for key, value in zip(keys, store.get_many(namespace, keys), strict=True) if value][:5]
        store.put_many(namespace, [(key, b"short") for key in some])
        found = extract(read(str(photos)), find("bundled"), store, batch_size=2, threads=1, engine="onnxruntime")
        assert found.x.tobytes() == alone.tobytes()
        assert found.computed == 5
