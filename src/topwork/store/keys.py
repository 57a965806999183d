"""The key of what is encrypted at rest: from a file (--key-file, TOPWORK_KEY_FILE) or the environment (TOPWORK_KEY).

    64 hexadecimal digits, or 44 letters of base64      32 random bytes; `topwork key new FILE` writes such a file
    passphrase:WORDS                                    stretched by scrypt; salt and costs lie beside what it opens

    subkey(purpose) = HKDF-SHA256(key, purpose)         nothing is ever encrypted with the key itself
    id              = the first 8 bytes of subkey("id") tells keys apart and nothing about them

scrypt with N = 2^17, r = 8, p = 1 takes 128 MB and about half a second for every guess (Percival 2009; RFC 7914). Costs
that are read from a header have limits, so that nobody's file makes us take all memory, or next to none.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.errors import BadSetting, MissingExtra, StoreError
from topwork.store.atomic import explain

BYTES = 32
PASSPHRASE = "passphrase:"
SHORTEST = 12  # letters of a passphrase
_EXPECTED = (
    f"Expected 64 hexadecimal digits, 44 letters of base64, or {PASSPHRASE}WORDS. topwork key new FILE makes one"
)


@dataclass(frozen=True)
class Scrypt:
    """How a passphrase becomes a key."""

    salt: bytes
    n: int = 2**17  # memory: 128 r n bytes
    r: int = 8
    p: int = 1

    @classmethod
    def new(cls) -> Scrypt:
        """A fresh salt."""
        return cls(secrets.token_bytes(16))

    def to_json(self) -> dict[str, Any]:
        """For a header."""
        return {"salt": self.salt.hex(), "n": self.n, "r": self.r, "p": self.p}

    @classmethod
    def from_json(cls, facts: Any) -> Scrypt:
        """Raises ValueError for anything that we would not write ourselves, or could not afford."""
        if not isinstance(facts, Mapping) or not all(type(facts.get(name)) is int for name in ("n", "r", "p")):
            raise ValueError("no costs of scrypt")
        found = cls(bytes.fromhex(str(facts.get("salt"))), facts["n"], facts["r"], facts["p"])
        dear = not (2**15 <= found.n <= 2**20 and found.r == 8 and 1 <= found.p <= 4) or found.n & (found.n - 1)
        if dear or len(found.salt) < 16:
            raise ValueError("costs of scrypt that are too low or too high")
        return found


@dataclass(frozen=True)
class Key:
    """32 random bytes."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != BYTES:
            raise ValueError(f"A key of {len(self.secret)} bytes; expected {BYTES}")

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return self.subkey(b"id").hex()[:16]

    def subkey(self, purpose: bytes, salt: bytes | None = None) -> bytes:
        """32 bytes for one purpose."""
        try:
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError as error:
            raise MissingExtra.of("encrypt", "Encryption") from error
        return HKDF(SHA256(), BYTES, salt, b"topwork 1 " + purpose).derive(self.secret)


@dataclass(frozen=True)
class Passphrase:
    """Words; together with a salt they are a key."""

    words: str = field(repr=False)

    def key(self, how: Scrypt) -> Key:
        """Takes as long as scrypt's costs say; the second time nothing."""
        return _stretched(self.words, how)


Secret = Key | Passphrase


@functools.lru_cache(maxsize=8)
def _stretched(words: str, how: Scrypt) -> Key:
    memory = 128 * how.r * (how.n + how.p + 2)
    return Key(hashlib.scrypt(words.encode(), salt=how.salt, n=how.n, r=how.r, p=how.p, maxmem=2 * memory, dklen=BYTES))


def current() -> Secret:
    """What the settings name; BadSetting where they name nothing, or something else than a key."""
    file, text = os.environ.get("TOPWORK_KEY_FILE"), os.environ.get("TOPWORK_KEY")
    if file:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise BadSetting(f"The key file {file} cannot be read: {reason}. {_EXPECTED}") from None
        return parse(text, f"The key file {file}")
    if text:
        return parse(text, "TOPWORK_KEY")
    raise BadSetting("Encryption needs a key: --key-file FILE, or TOPWORK_KEY. topwork key new FILE makes one")


def parse(text: str, where: str) -> Secret:
    """A key from what a file or a variable holds; never repeats it in an error."""
    text = text.strip()
    if text.startswith(PASSPHRASE):
        words = text.removeprefix(PASSPHRASE).strip()
        if len(words) < SHORTEST:
            raise BadSetting(f"{where} holds a passphrase of {len(words)} letters. Expected at least {SHORTEST}")
        return Passphrase(words)
    try:
        secret = bytes.fromhex(text) if len(text) == 2 * BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != BYTES:
        raise BadSetting(f"{where} holds no key. {_EXPECTED}")
    return Key(secret)


def new_file(path: Path) -> Key:
    """Write a new random key that only its owner can read; an existing file is never replaced."""
    key = Key(secrets.token_bytes(BYTES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(key.secret) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise StoreError(f"{path} exists. A key that is replaced cannot be had again: choose another name") from None
    except OSError as error:
        raise explain(error, path) from error
    return key
