"""Keys: where they come from, what is refused, and that no error tells them."""

import base64
import os
import stat

import pytest

from topwork.errors import BadSetting, StoreError
from topwork.store import keys
from topwork.store.keys import Key, Passphrase, Scrypt

SECRET = bytes(range(100, 132))


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("TOPWORK_KEY", raising=False)
    monkeypatch.delenv("TOPWORK_KEY_FILE", raising=False)


@pytest.mark.parametrize("text", [SECRET.hex(), SECRET.hex().upper(), base64.b64encode(SECRET).decode() + "\n"])
def test_hexadecimal_and_base64_are_the_same_key(text, monkeypatch, tmp_path):
    monkeypatch.setenv("TOPWORK_KEY", text)
    assert keys.current() == Key(SECRET)
    (tmp_path / "key").write_text(f"\n{text}\n")
    monkeypatch.setenv("TOPWORK_KEY", "not looked at")
    monkeypatch.setenv("TOPWORK_KEY_FILE", str(tmp_path / "key"))
    assert keys.current() == Key(SECRET)


@pytest.mark.parametrize(
    "text", ["hunter2-hunter2", SECRET[:31].hex(), base64.b64encode(SECRET + b"1").decode(), "x" * 44]
)
def test_what_is_no_key_is_one_line_that_does_not_tell_it(text, monkeypatch):
    monkeypatch.setenv("TOPWORK_KEY", text)
    with pytest.raises(BadSetting, match=r"TOPWORK_KEY holds no key. Expected 64 hexadecimal digits") as caught:
        keys.current()
    assert text not in str(caught.value)
    monkeypatch.setenv("TOPWORK_KEY", "passphrase: too short")
    with pytest.raises(BadSetting, match=r"passphrase of 9 letters. Expected at least 12"):
        keys.current()


def test_no_key_says_how_to_get_one(monkeypatch, tmp_path):
    with pytest.raises(BadSetting, match=r"--key-file FILE, or TOPWORK_KEY. topwork key new FILE makes one"):
        keys.current()
    monkeypatch.setenv("TOPWORK_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(BadSetting, match="cannot be read: No such file"):
        keys.current()
    (tmp_path / "none").write_bytes(os.urandom(32) + b"\xff")
    with pytest.raises(BadSetting, match="it is not text"):
        keys.current()


def test_a_new_key_is_for_its_owner_alone_and_replaces_nothing(tmp_path, monkeypatch):
    old = os.umask(0)
    try:
        made = keys.new_file(tmp_path / "deep" / "key")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "deep" / "key").stat().st_mode) == 0o600
    monkeypatch.setenv("TOPWORK_KEY_FILE", str(tmp_path / "deep" / "key"))
    assert keys.current() == made
    with pytest.raises(StoreError, match="A key that is replaced cannot be had again"):
        keys.new_file(tmp_path / "deep" / "key")
    assert keys.current() == made
    assert keys.new_file(tmp_path / "other") != made


def test_subkeys_are_those_of_rfc_5869():
    """HKDF by hand: extract with HMAC, expand once."""
    import hashlib
    import hmac

    salt = b"salt" * 4
    extracted = hmac.digest(salt, SECRET, hashlib.sha256)
    assert Key(SECRET).subkey(b"purpose", salt) == hmac.digest(extracted, b"topwork 1 purpose\x01", hashlib.sha256)
    assert Key(SECRET).id == Key(SECRET).subkey(b"id").hex()[:16]
    assert len({Key(SECRET).subkey(purpose) for purpose in (b"", b"a", b"b")}) == 3


def test_nothing_prints_a_key():
    for secret in (Key(SECRET), Passphrase("correct horse battery")):
        assert repr(secret) in ("Key()", "Passphrase()")


def test_a_passphrase_is_stretched_by_scrypt():
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt as Other

    how = Scrypt(bytes(16), 2**15)
    found = Passphrase("correct horse battery").key(how)
    assert found.secret == Other(bytes(16), 32, 2**15, 8, 1).derive(b"correct horse battery")
    assert found != Passphrase("correct horse battery").key(Scrypt(bytes(15) + b"1", 2**15))
    assert Scrypt.from_json(how.to_json()) == how
    assert Scrypt.new().salt != Scrypt.new().salt


@pytest.mark.parametrize(
    "changed",
    [{"n": 2**10}, {"n": 2**30}, {"n": 2**17 + 1}, {"n": "131072"}, {"r": 1000}, {"p": 0}, {"p": 99}, {"salt": "00"},
     {"salt": "no"}, {"n": True}],
)  # fmt: skip
def test_costs_that_we_would_not_write_are_refused(changed):
    with pytest.raises(ValueError, match=r".*"):
        Scrypt.from_json({**Scrypt.new().to_json(), **changed})
