"""Files of this machine beside the cache (checkpoints, graphs, local copies): sealed if the settings say so."""

from __future__ import annotations

from collections.abc import Sequence

from topwork import settings
from topwork.errors import BadSetting
from topwork.store.encryption import MAGIC, Encrypted, seal, unseal
from topwork.store.keys import Key, current


def keep(place: Sequence[bytes], data: bytes) -> bytes:
    """Bytes for a file of this machine: sealed if the settings say so."""
    return seal(_key_here(), place, data) if settings.encrypted() else data


def kept(place: Sequence[bytes], data: bytes) -> bytes:
    """What `keep` was given; NotOurs where it was changed or is of another key."""
    return unseal(_key_here(), place, data) if data.startswith(MAGIC) else data


def _key_here() -> Key:
    """That of the cache; a passphrase is stretched with the salt that lies there."""
    secret = current()
    if isinstance(secret, Key):
        return secret
    from topwork.store.cache import open_cache  # heavy, and only a passphrase needs it

    store = open_cache()
    if not isinstance(store, Encrypted):
        raise BadSetting("What lies here is encrypted with a passphrase: it can be read with --encrypt alone")
    return store.key
