"""Encryption at rest with AES-256-GCM: bytes that become a sealed file, and a Store whose entries are sealed.

A sealed file   "TOPWORK\\1" salt(16) log2(chunk)(1)  then for every chunk of 64 KiB: ciphertext, tag(16)
                file key = HKDF(key, salt, "file" + place)     place: what the file belongs to, and its name
                nonce of chunk i = 0(7) i(4) last(1)           as in STREAM: Hoang et al., Online authenticated
                associated data  = the header                  encryption and its nonce-reuse misuse-resistance, 2015

A chunk that was changed, moved, left out or taken from another file or an older version of this one does not open, nor
does a file that was cut off, even between two chunks, or renamed: no chunk is given out before all were opened.

A sealed entry  version(1) nonce(12, random) ciphertext tag(16)          associated data = namespace and key
                its name in the store = BLAKE2b(key "cache names"; namespace, key)

Names are keyed, since a plain hash of a short text tells whoever guesses the text that it is there. Entries of another
key are not found, plain ones are never read, and one that was changed counts as absent and is said in `notes`. What
stays visible: namespaces (names of backbones), how many entries there are, how large and how old they are. An older
sealed value can be put back in place of a newer one of the same name; values are functions of their names, so that
gains nothing. One key is good for 2^32 entries.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from topwork.errors import MissingExtra
from topwork.store import Claims, Remembering, check_key, claims_of
from topwork.store.keys import Key, Scrypt, Secret

MAGIC = b"TOPWORK\x01"
SALT, TAG, NONCE = 16, 16, 12
LOG_CHUNK = 16  # 64 KiB
HEADER = len(MAGIC) + SALT + 1
ENTRY = b"\x01"


class NotOurs(ValueError):
    """Sealed bytes that do not open: changed, cut off, moved from elsewhere, or of another key."""


def seal(key: Key, place: Sequence[bytes], data: bytes) -> bytes:
    """A sealed file that opens with this key and in this place alone."""
    salt = secrets.token_bytes(SALT)
    header = MAGIC + salt + bytes([LOG_CHUNK])
    cipher, size = _file_cipher(key, salt, place), 1 << LOG_CHUNK
    view, last = memoryview(data), max(0, len(data) - 1) >> LOG_CHUNK
    chunks = (cipher.encrypt(_nonce(i, i == last), view[i * size : (i + 1) * size], header) for i in range(last + 1))
    return b"".join((header, *chunks))


def unseal(key: Key, place: Sequence[bytes], data: bytes) -> bytes:
    """What was sealed; raises NotOurs unless all of it opens."""
    from cryptography.exceptions import InvalidTag

    header, body = data[:HEADER], memoryview(data)[HEADER:]
    if len(body) < TAG or header[: len(MAGIC)] != MAGIC or header[-1] != LOG_CHUNK:
        raise NotOurs("it is not a sealed file of this version, or cut off")
    cipher, size = _file_cipher(key, header[len(MAGIC) : -1], place), (1 << LOG_CHUNK) + TAG
    last = (len(body) - 1) // size
    try:
        return b"".join(
            cipher.decrypt(_nonce(i, i == last), body[i * size : (i + 1) * size], header) for i in range(last + 1)
        )
    except InvalidTag:
        raise NotOurs("it was changed, cut off or moved after it was written") from None


class Encrypted:
    """A Store around another one; whoever holds the other one sees no key and no value."""

    def __init__(self, store: Remembering, secret: Secret) -> None:
        _aes(bytes(32))  # the library is there, before anything is computed
        self.store = store
        self._salt = b"" if isinstance(secret, Key) else _salt_of(store)
        self.key = secret if isinstance(secret, Key) else secret.key(Scrypt(self._salt))
        self._names = self.key.subkey(b"cache names")
        self._cipher = _aes(self.key.subkey(b"cache values"))
        self._own_notes: list[str] = []
        inner = claims_of(store)
        self.claims: Claims | None = None if inner is None else _SealedClaims(inner, self._name)

    @property
    def notes(self) -> list[str]:
        """What went wrong, here and in the store inside."""
        return [*self._own_notes, *self.store.notes]

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys, None where there is none."""
        found = self.store.get_many(namespace, [self._name(namespace, key) for key in keys])
        return [
            None if value is None else self._opened(namespace, key, value)
            for key, value in zip(keys, found, strict=True)
        ]

    def put_many(self, namespace: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs in one transaction."""
        sealed = []
        for key, value in pairs:
            nonce = secrets.token_bytes(NONCE)
            text = self._cipher.encrypt(nonce, value, _framed(namespace.encode(), key))
            sealed.append((self._name(namespace, key), ENTRY + nonce + text))
        self.store.put_many(namespace, sealed)

    def info(self) -> dict[str, Any]:
        """That of the store inside, and with which key its entries are sealed."""
        return {**self.store.info(), "encrypted": self.key.id, "notes": self.notes}

    def clear(self, namespace: str | None = None) -> None:
        """Forget a namespace with all below it, or everything; also what is not encrypted, or with another key."""
        self.store.clear(namespace)
        if self._salt:
            self.store.put_many(*_salt_entry(self._salt))

    def close(self) -> None:
        """Let go of files and connections."""
        self.store.close()

    def __enter__(self) -> Encrypted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, namespace: str, key: bytes) -> bytes:
        return hashlib.blake2b(_framed(namespace.encode(), check_key(key)), key=self._names, digest_size=24).digest()

    def _opened(self, namespace: str, key: bytes, value: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        try:
            if value[:1] == ENTRY and len(value) >= 1 + NONCE + TAG:
                framed = _framed(namespace.encode(), key)
                return self._cipher.decrypt(value[1 : 1 + NONCE], value[1 + NONCE :], framed)
        except InvalidTag:
            pass
        note = "The cache held encrypted entries that were changed after they were written; they are computed again"
        if note not in self._own_notes:
            self._own_notes.append(note)
        return None


class _SealedClaims:
    """Claims under the names that entries have."""

    def __init__(self, inner: Claims, name: Any) -> None:
        self._inner, self._name = inner, name

    def claim(self, namespace: str, keys: Sequence[bytes]) -> list[str]:
        """See Claims."""
        return self._inner.claim(namespace, [self._name(namespace, key) for key in keys])

    def release(self, namespace: str, keys: Sequence[bytes]) -> None:
        """See Claims."""
        self._inner.release(namespace, [self._name(namespace, key) for key in keys])


def wrapped(store: Remembering, secret: Secret) -> Encrypted:
    """One object per store and key."""
    known = _WRAPPED.get((id(store), secret))
    if known is None:
        known = _WRAPPED[id(store), secret] = Encrypted(store, secret)
    return known


_WRAPPED: dict[tuple[int, Secret], Encrypted] = {}  # each holds its store, so that no other one gets the same id


def _salt_of(store: Remembering) -> bytes:
    """The salt of passphrases for this store, which lies in it. Two that begin at once may differ for one run."""
    found = store.get_many("key", [b"scrypt"])[0]
    if found is None or len(found) != SALT:
        fresh = Scrypt.new().salt
        store.put_many(*_salt_entry(fresh))
        found = store.get_many("key", [b"scrypt"])[0] or fresh  # one that keeps nothing
    return found


def _salt_entry(salt: bytes) -> tuple[str, list[tuple[bytes, bytes]]]:
    return "key", [(b"scrypt", salt)]


def _file_cipher(key: Key, salt: bytes, place: Sequence[bytes]) -> Any:
    return _aes(key.subkey(b"file" + _framed(*place), salt))


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra.of("encrypt", "Encryption") from error
    return AESGCM(key)


def _nonce(number: int, last: bool) -> bytes:
    return bytes(7) + number.to_bytes(4, "big") + bytes([last])


def _framed(*parts: bytes) -> bytes:
    """Parts that cannot be cut in another way."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
