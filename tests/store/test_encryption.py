"""Sealed files and entries: what can be done to them, and that all of it is noticed."""

import random
import sys

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from topwork.errors import MissingExtra
from topwork.store import encryption, keys
from topwork.store.cache import Cache, open_cache
from topwork.store.encryption import HEADER, MAGIC, TAG, Encrypted, NotOurs, seal, unseal
from topwork.store.keys import Key, Passphrase, Scrypt
from topwork.store.runs import Run
from topwork.types import Choice

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))
PLACE = [b"model", b"name"]
CHUNK = 1 << encryption.LOG_CHUNK
SIZES = [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5]


def data(size, seed=0):
    return random.Random(seed).randbytes(size)


# files


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_opens(size):
    sealed = seal(KEY, PLACE, data(size))
    assert unseal(KEY, PLACE, sealed) == data(size)
    assert len(sealed) == HEADER + size + TAG * max(1, -(-size // CHUNK))
    assert seal(KEY, PLACE, data(size)) != sealed


def test_the_format_is_the_one_that_is_described():
    """Opened by hand, as the docstring says."""
    sealed = seal(KEY, PLACE, data(CHUNK + 7))
    header, body = sealed[:HEADER], sealed[HEADER:]
    place = b"".join(len(part).to_bytes(8, "big") + part for part in PLACE)
    cipher = AESGCM(KEY.subkey(b"file" + place, header[8:24]))
    first = cipher.decrypt(bytes(11) + b"\x00", body[: CHUNK + TAG], header)
    second = cipher.decrypt(bytes(10) + b"\x01\x01", body[CHUNK + TAG :], header)
    assert header[:8] == MAGIC == b"TOPWORK\x01"
    assert header[24] == 16
    assert first + second == data(CHUNK + 7)


@pytest.mark.parametrize("size", [0, 10, CHUNK, 3 * CHUNK + 5])
def test_every_change_is_noticed(size):
    sealed, draw = seal(KEY, PLACE, data(size)), random.Random(1)
    for at in [*range(HEADER + 1), len(sealed) - 1, *(draw.randrange(len(sealed)) for _ in range(20))]:
        changed = bytearray(sealed)
        changed[at] ^= 1 << draw.randrange(8)
        with pytest.raises(NotOurs):
            unseal(KEY, PLACE, bytes(changed))


def test_every_truncation_is_noticed_even_between_chunks():
    sealed = seal(KEY, PLACE, data(3 * CHUNK))
    step = CHUNK + TAG
    for end in [0, 5, HEADER, HEADER + 3, HEADER + step, HEADER + 2 * step, len(sealed) - 1]:
        with pytest.raises(NotOurs):
            unseal(KEY, PLACE, sealed[:end])
    with pytest.raises(NotOurs):
        unseal(KEY, PLACE, sealed + b"\0" * 20)


def test_chunks_cannot_be_moved_left_out_repeated_or_taken_from_elsewhere():
    sealed, older = seal(KEY, PLACE, data(3 * CHUNK)), seal(KEY, PLACE, data(3 * CHUNK, 1))
    step = CHUNK + TAG

    def chunks(whole):
        return [whole[HEADER + i * step : HEADER + (i + 1) * step] for i in range(3)]

    a, b, c = chunks(sealed)
    head = sealed[:HEADER]
    for body in ([b, a, c], [a, c], [a, b, b], [a, b, c, c], [a, chunks(older)[1], c], [a, b], [c]):
        with pytest.raises(NotOurs):
            unseal(KEY, PLACE, b"".join([head, *body]))
    with pytest.raises(NotOurs):  # the header of one, the chunks of the other
        unseal(KEY, PLACE, older[:HEADER] + sealed[HEADER:])
    assert unseal(KEY, PLACE, b"".join([head, a, b, c])) == data(3 * CHUNK)


def test_another_place_or_key_does_not_open_it():
    sealed = seal(KEY, PLACE, b"content")
    for key, place in ((OTHER, PLACE), (KEY, [b"model", b"other"]), (KEY, [b"modelname"]), (KEY, [b"modeln", b"ame"])):
        with pytest.raises(NotOurs):
            unseal(key, place, sealed)


# entries


def inner(folder):
    return Cache(folder, Choice("cache limit", 10**9, "test"))


@pytest.fixture
def store(tmp_path):
    with Encrypted(inner(tmp_path / "c"), KEY) as store:
        yield store


def test_neither_keys_nor_values_are_in_the_file(store, tmp_path):
    key, value = b"a key of sixteen", b"a value that nobody may see" * 9
    store.put_many("n", [(key, value)])
    store.close()
    written = (tmp_path / "c" / "items-v1" / "data.mdb").read_bytes()
    assert key not in written
    assert b"nobody may see" not in written
    with inner(tmp_path / "c") as plain:
        plain.put_many("n", [(key, value)])
    assert b"nobody may see" in (tmp_path / "c" / "items-v1" / "data.mdb").read_bytes()


def test_another_key_finds_nothing_and_harms_nothing(store, tmp_path):
    store.put_many("n", [(b"k", b"1")])
    with Encrypted(store.store, OTHER) as other:
        assert other.get_many("n", [b"k"]) == [None]
        other.put_many("n", [(b"k", b"2")])
        assert other.notes == []
    assert store.get_many("n", [b"k"]) == [b"1"]
    assert store.store.get_many("n", [b"k"]) == [None]


def test_what_was_changed_or_moved_is_not_there_and_said(store):
    store.put_many("n", [(b"k", b"1" * 100), (b"l", b"2" * 100)])
    names = [store._name("n", key) for key in (b"k", b"l")]
    k, other = store.store.get_many("n", names)
    for value in (k[:-1] + bytes([k[-1] ^ 1]), k[:10], b"", b"\x02" + k[1:], other):
        store.store.put_many("n", [(names[0], value)])
        assert store.get_many("n", [b"k", b"l"]) == [None, b"2" * 100]
    assert len(store.notes) == 1
    assert "changed after they were written" in store.notes[0]
    store.store.put_many("m", [(store._name("m", b"k"), k)])
    assert store.get_many("m", [b"k"]) == [None]


def test_nonces_are_never_the_same(store):
    store.put_many("n", [(b"%d" % i, b"same") for i in range(500)])
    found = store.store.get_many("n", [store._name("n", b"%d" % i) for i in range(500)])
    assert len({value[1:13] for value in found}) == len({value[13:] for value in found}) == 500


def test_a_passphrase_opens_the_same_store_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Scrypt, "__init__", lambda self, salt, n=2**15, r=8, p=1: _set(self, salt, n, r, p))
    with Encrypted(inner(tmp_path / "c"), Passphrase("correct horse battery")) as store:
        store.put_many("n", [(b"k", b"1")])
    with Encrypted(inner(tmp_path / "c"), Passphrase("correct horse battery")) as again:
        assert again.get_many("n", [b"k"]) == [b"1"]
        again.clear()
        again.put_many("n", [(b"k", b"1")])
    with Encrypted(inner(tmp_path / "c"), Passphrase("correct horse battery")) as again:
        assert again.get_many("n", [b"k"]) == [b"1"]
    with Encrypted(inner(tmp_path / "c"), Passphrase("another horse battery")) as other:
        assert other.get_many("n", [b"k"]) == [None]


def _set(scrypt, *values):
    for name, value in zip(("salt", "n", "r", "p"), values, strict=True):
        object.__setattr__(scrypt, name, value)


def test_the_library_is_asked_for_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtra, match=r"pip install 'topwork\[encrypt\]'"):
        Encrypted(inner(tmp_path / "c"), KEY)


# what else is kept on this machine


@pytest.fixture
def encrypted(monkeypatch):
    monkeypatch.setenv("TOPWORK_ENCRYPT", "1")
    monkeypatch.setenv("TOPWORK_KEY", KEY.secret.hex())


def test_the_settings_ask_for_it(encrypted, monkeypatch):
    store = open_cache()
    store.put_many("n", [(b"k", b"1")])
    assert store.info()["encrypted"] == KEY.id
    assert open_cache() is store
    assert open_cache().get_many("n", [b"k"]) == [b"1"]
    monkeypatch.delenv("TOPWORK_ENCRYPT")
    assert open_cache().get_many("n", [b"k"]) == [None]
    monkeypatch.setenv("TOPWORK_ENCRYPT", "1")
    monkeypatch.delenv("TOPWORK_KEY")
    with pytest.raises(keys.BadSetting, match="needs a key"):
        open_cache()


def test_graphs_are_sealed(encrypted, tmp_path, monkeypatch):
    from topwork.store.weights import load_graph, save_graph

    save_graph("g", b"a graph with secret weights")
    assert load_graph("g") == b"a graph with secret weights"
    assert all(b"secret" not in file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    monkeypatch.setenv("TOPWORK_KEY", OTHER.secret.hex())
    assert load_graph("g") is None
    monkeypatch.delenv("TOPWORK_ENCRYPT")
    assert load_graph("g") is None


def test_checkpoints_are_sealed(encrypted, tmp_path, monkeypatch):
    import torch

    weights = {"w": torch.arange(1000, dtype=torch.float32)}
    with Run(tmp_path / "run", {"a": 1}) as run:
        run.save(5, weights)
    assert weights["w"].numpy().tobytes()[:400] not in (tmp_path / "run" / "state-000000005.safetensors").read_bytes()
    with Run(tmp_path / "run", {"a": 1}) as run:
        assert run.load()["w"].equal(weights["w"])
        assert run.step == 5
    monkeypatch.setenv("TOPWORK_KEY", OTHER.secret.hex())
    with Run(tmp_path / "run", {"a": 1}) as run:
        assert run.load() is None  # begun anew
