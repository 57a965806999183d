"""What every Store promises. A new one is tested by adding its factory to STORES."""

import random
import threading

import pytest

from topwork.store.cache import Cache
from topwork.store.encryption import Encrypted
from topwork.store.keys import Key
from topwork.types import Choice

KEY = Key(bytes(range(32)))


def lmdb(folder, limit):
    return Cache(folder, Choice("cache limit", limit, "test"))


def redis(request, limit, local=None):
    from topwork.store.redis_cache import RedisCache

    return RedisCache(request.getfixturevalue("redis_server").url(), local, Choice("cache limit", limit, "test"))


STORES = {
    "lmdb": lambda request, folder, limit: lmdb(folder, limit),
    "redis": lambda request, folder, limit: redis(request, limit),
    "redis over lmdb": lambda request, folder, limit: redis(request, limit, lmdb(folder, limit)),
    "encrypted lmdb": lambda request, folder, limit: Encrypted(lmdb(folder, limit), KEY),
    "encrypted redis": lambda request, folder, limit: Encrypted(redis(request, limit), KEY),
}


SINGLE = [name for name in STORES if name != "redis over lmdb"]  # what leaves one of two is still in the other


@pytest.fixture(params=STORES)
def make(request, tmp_path):
    """A store of this kind with a limit in bytes; another one of the same place when it is asked again."""
    made = []

    def make(limit=100_000_000):
        made.append(STORES[request.param](request, tmp_path / "store", limit))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make):
    return make()


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


def test_another_one_of_the_same_place_sees_it(make):
    first, second = make(), make()
    first.put_many("a", [(b"k", b"1")])
    first.close()
    assert second.get_many("a", [b"k"]) == [b"1"]
    assert second.notes == []


# the limit: what was used longest ago leaves

KEYS = [i.to_bytes(16, "big") for i in range(200)]
VALUES = [random.Random(i).randbytes(5120) for i in range(200)]


@pytest.fixture
def room(make):
    """Bytes that an entry of 5 KB takes."""
    store = make()
    store.put_many("f", [(KEYS[0], VALUES[0])])
    found = store.info()["namespaces"]["f"]["bytes"]
    store.clear()
    store.close()
    return found


def known(store, namespace, count):
    return [i for i, value in enumerate(store.get_many(namespace, KEYS[:count])) if value is not None]


@pytest.mark.parametrize("make", SINGLE, indirect=True)
def test_the_least_recently_used_leave_first(make, room):
    store = make(20 * room)
    for i in range(20):
        store.put_many("f", [(KEYS[i], VALUES[i])])
    assert None not in store.get_many("f", KEYS[:5])  # old, but used just now
    store.put_many("f", [(KEYS[20], VALUES[20])])
    assert known(store, "f", 21) == [0, 1, 2, 3, 4, *range(8, 21)]  # two for 90 %, one for the new one


@pytest.mark.parametrize("make", SINGLE, indirect=True)
def test_a_use_is_remembered_by_the_next_one(make, room):
    for use in (lambda store: [store.put_many("f", [(KEYS[i], VALUES[i])]) for i in range(20)],
                lambda store: store.get_many("f", KEYS[:10])):  # fmt: skip
        store = make(20 * room)
        use(store)
        store.close()
    store = make(20 * room)
    store.put_many("f", [(KEYS[20], VALUES[20])])
    assert known(store, "f", 21) == [*range(10), *range(13, 21)]


@pytest.mark.parametrize("make", SINGLE, indirect=True)
def test_entries_of_one_age_leave_one_by_one(make, room):
    store = make(100 * room)
    store.put_many("f", zip(KEYS[:90], VALUES[:90], strict=True))
    store.put_many("g", zip(KEYS[:11], VALUES[:11], strict=True))
    kept = store.info()["namespaces"]
    assert kept["g"]["entries"] == 11
    assert kept["f"]["entries"] == 79


def test_the_count_is_right_and_below_the_limit(make):
    draw, limit = random.Random(0), 3_000_000
    store = make(limit)
    for _ in range(60):
        pairs = [(draw.randbytes(16), draw.randbytes(draw.choice([10, 900, 5120, 9000]))) for _ in range(50)]
        store.put_many(draw.choice("abc"), pairs)
        store.put_many("a", [(b"again and again", draw.randbytes(draw.randrange(9000)))])
    namespaces = store.info()["namespaces"]
    assert 0.5 * limit < sum(part["bytes"] for part in namespaces.values()) <= limit
    assert namespaces["a"]["entries"] > 1
    assert store.notes == []


def test_what_is_larger_than_the_limit_is_not_kept(make):
    store = make(1_000_000)
    store.put_many("f", [(b"small", b"1")])
    store.put_many("f", [(b"large", bytes(2_000_000))])
    assert store.get_many("f", [b"small", b"large"]) == [b"1", None]
    assert store.notes == ["2.0 MB at once are not kept: the cache may take 1.0 MB"]
