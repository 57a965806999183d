"""A model's folder whose files are encrypted, each as `store/encryption.py` seals files.

    model.json          that it is encrypted, how, and the id of the key; nothing else, in the clear
    NAME.sealed         every file of a plain folder, model.json, README.md, report.html and report.json included

    model.json: {"format": 2, "topwork": ..., "encrypted": {"cipher", "key", "model", "scrypt"}}
    place of a file = "model", format, "model": 16 random bytes of this folder, its name

So a file from another model, from an earlier state of this one, or under another name does not open. The whole folder
can be replaced by an older whole one: no folder can tell. Files are opened in memory and never written in the clear,
but by `topwork decrypt`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topwork.errors import BadSetting, BadWeights, StoreError
from topwork.store import keys
from topwork.store.encryption import NotOurs, seal, unseal
from topwork.types import VERSION

FORMAT = 2  # of model.json; plain ones have 1
CIPHER = "AES-256-GCM in chunks of 64 KiB, keys by HKDF-SHA256"
SUFFIX = ".sealed"


@dataclass(frozen=True, eq=False)
class Seal:
    """What opens and closes the files of one folder."""

    key: keys.Key
    model: str  # 32 hexadecimal digits
    scrypt: keys.Scrypt | None = None

    @classmethod
    def new(cls) -> Seal:
        """For a new folder, with the key that the settings name."""
        secret, how = keys.current(), None
        if isinstance(secret, keys.Passphrase):
            how = keys.Scrypt.new()
            secret = secret.key(how)
        return cls(secret, secrets.token_hex(16), how)

    @classmethod
    def of(cls, folder: Path, header: Mapping[str, Any]) -> Seal:
        """For a folder whose model.json says this; BadSetting without its key."""
        facts = header["encrypted"]
        try:
            model, wanted, cipher = str(facts["model"]), str(facts["key"]), facts["cipher"]
            how = keys.Scrypt.from_json(facts["scrypt"]) if facts.get("scrypt") is not None else None
            bytes.fromhex(model)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(f"{folder / 'model.json'} is damaged: {error}. Copy the whole folder again") from None
        if cipher != CIPHER:
            raise StoreError(f"{folder} is encrypted as {cipher!r}; Topwork {VERSION} knows {CIPHER!r}")
        try:
            secret = keys.current()
        except BadSetting as error:
            raise BadSetting(f"{folder} is encrypted. {error}") from None
        if isinstance(secret, keys.Passphrase):
            if how is None:
                raise BadSetting(
                    f"{folder} is encrypted with a key ({wanted}), not a passphrase. Name it by --key-file"
                )
            secret = secret.key(how)
        elif how is not None:
            raise BadSetting(f"{folder} is encrypted with a passphrase, and the key that was given is none")
        if secret.id != wanted:
            what = "passphrase" if how else f"key ({wanted}; this one is {secret.id})"
            raise BadSetting(
                f"{folder} is encrypted with another {what}. Name the right one by --key-file or TOPWORK_KEY"
            )
        return cls(secret, model, how)

    def header(self) -> dict[str, Any]:
        """What model.json holds."""
        facts = {"cipher": CIPHER, "key": self.key.id, "model": self.model}
        if self.scrypt is not None:
            facts = {**facts, "scrypt": self.scrypt.to_json()}
        return {"format": FORMAT, "topwork": VERSION, "encrypted": facts}

    def write(self, folder: Path, name: str, data: bytes) -> None:
        """Seal a file."""
        (folder / f"{name}{SUFFIX}").write_bytes(seal(self.key, self._place(name), data))

    def read(self, folder: Path, name: str) -> bytes:
        """Open a file; BadWeights where it was changed, FileNotFoundError where there is none."""
        path = folder / f"{name}{SUFFIX}"
        try:
            return unseal(self.key, self._place(name), path.read_bytes())
        except NotOurs as error:
            raise BadWeights(f"{path} does not open: {error}. Copy the whole folder of the model again") from None

    def _place(self, name: str) -> list[bytes]:
        return [b"model", str(FORMAT).encode(), bytes.fromhex(self.model), name.encode()]
