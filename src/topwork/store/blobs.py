"""Bytes that have no file of their own, images in a database, as files of the cache folder named by their content.

CACHE/blobs/ab/abcdef....jpg. What is there is not written again; `topwork cache clear blobs` frees the room, and the
next read writes them anew. They are not counted in the cache's limit: a dataset that is being read needs all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from pathlib import Path

from topwork import settings
from topwork.errors import BadSetting
from topwork.store.atomic import explain

NAME = "blobs"


def folder() -> Path:
    """Where they lie."""
    return settings.cache_folder() / NAME


def keep(data: bytes, ending: str) -> str:
    """Path of the file that holds these bytes; it appears whole or not at all."""
    if settings.encrypted():
        raise BadSetting(
            "images of a database would lie in the cache folder as they are, which --encrypt forbids. Write them to "
            "files on an encrypted disk, and let the query give their paths"
        )
    name = hashlib.blake2b(data, digest_size=16).hexdigest() + ending
    path = folder() / name[:2] / name
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(data):
            return str(path)
    building = Path(f"{path}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        building.write_bytes(data)
        os.replace(building, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            building.unlink()
        raise explain(error, path) from error
    return str(path)


def info() -> dict[str, int]:
    """How many there are, and their bytes."""
    sizes = [path.stat().st_size for path in folder().glob("??/*")]
    return {"files": len(sizes), "bytes": sum(sizes)}


def clear() -> None:
    """Forget all of them."""
    shutil.rmtree(folder(), ignore_errors=True)
