"""What every Store promises. A new one is tested by adding its factory to STORES."""

import threading

import pytest

from topwork.store.cache import Cache
from topwork.types import Choice

STORES = {"lmdb": lambda folder: Cache(folder, Choice("cache limit", 100_000_000, "test"))}


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    store = STORES[request.param](tmp_path / "store")
    yield store
    store.close()


def test_values_come_back_in_the_order_of_the_keys(store):
    values = {bytes([i]) * 16: bytes([i]) * (1000 * i) for i in range(20)}  # 0 to 19,000 bytes
    store.put_many("a", values.items())
    asked = [b"\x03" * 16, b"missing", b"\x00" * 16, b"\x13" * 16, b"\x03" * 16]
    assert store.get_many("a", asked) == [values.get(key) for key in asked]
    assert all(type(value) is bytes for value in store.get_many("a", list(values)))


def test_an_empty_store_knows_nothing(store):
    assert store.get_many("a", [b"x", b"y"]) == [None, None]
    assert store.get_many("a", []) == []
    store.put_many("a", [])
    assert store.info()["namespaces"] == {}


def test_namespaces_are_apart(store):
    store.put_many("a", [(b"k", b"1")])
    store.put_many("a/b", [(b"k", b"2")])
    assert store.get_many("a", [b"k"]) == [b"1"]
    assert store.get_many("a/b", [b"k"]) == [b"2"]
    assert store.get_many("ab", [b"k"]) == [None]


def test_the_last_put_wins(store):
    store.put_many("a", [(b"k", b"1" * 5000)])
    store.put_many("a", iter([(b"k", b"2"), (b"k", b"3")]))
    assert store.get_many("a", [b"k"]) == [b"3"]
    assert store.info()["namespaces"]["a"]["entries"] == 1


def test_any_bytes_and_any_name(store):
    keys = [b"", b"\x00", b"\x00\x00", b"\xff" * 256, "schlüssel".encode()]
    store.put_many("größe/ä b", [(key, key * 2) for key in keys])
    assert store.get_many("größe/ä b", keys) == [key * 2 for key in keys]
    assert list(store.info()["namespaces"]) == ["größe/ä b"]


def test_a_key_too_long_is_refused_and_harms_nothing(store):
    store.put_many("a", [(b"k", b"1")])
    with pytest.raises(ValueError, match="257 bytes"):
        store.put_many("a", [(b"x" * 257, b"2")])
    assert store.get_many("a", [b"k"]) == [b"1"]


def test_a_put_that_fails_half_way_leaves_nothing(store):
    def pairs():
        yield b"k", b"1"
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        store.put_many("a", pairs())
    assert store.get_many("a", [b"k"]) == [None]


def test_clear_takes_a_namespace_with_all_below_it(store):
    for name in ("features/x/1", "features/y", "feature", "engine"):
        store.put_many(name, [(b"k", b"1")])
    store.clear("features")
    assert set(store.info()["namespaces"]) == {"feature", "engine"}
    store.clear("nobody")
    store.clear()
    assert store.info()["namespaces"] == {}
    store.put_many("a", [(b"k", b"2")])
    assert store.get_many("a", [b"k"]) == [b"2"]


def test_it_opens_again_after_close(store):
    store.put_many("a", [(b"k", b"1")])
    store.close()
    store.close()
    assert store.get_many("a", [b"k"]) == [b"1"]


def test_threads_share_it(store):
    def work(number):
        for i in range(20):
            key = f"{number} {i}".encode()
            store.put_many("a", [(key, key * 100)])
            seen.append(store.get_many("a", [key]) == [key * 100])

    seen = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80
    assert store.info()["namespaces"]["a"]["entries"] == 80
