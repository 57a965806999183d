"""Remote files and archives as if they lay here: s3:// gs:// http(s)://, photos.zip, read through local copies.

    s3://bucket/photos/cats/1.jpg            https://host/reviews.csv           endpoints and credentials: clients.py
    photos.zip/cats/1.jpg                    zip://cats::s3://bucket/p.zip      archives are folders: archives.py

    read(path) -> bytes         the one choke point: any file, of this machine, remote or in an archive
    local(path) -> path         of a copy on this machine, which stays as long as the process: tables, archives
    with ahead(paths): ...      fetches what will be read next, a few at a time
    isdir, isfile, exists, getsize, scandir, absolute         os.path for all of these places
    welcome(uri) -> path        at the doors: credentials are taken out and kept in memory, fsspec's chains unfolded

Copies lie in CACHE/remote-v1 within TOPWORK_REMOTE_GB (local_copies.py), under address and version (etag, size, time):
what has changed is fetched anew, what has left comes again. Lengths and, where a server tells them, MD5 sums are
compared (fetch.py). What is wrong with one file is BadData, as with a file of this machine; an endpoint that does not
answer, or refuses our credentials, is a StoreError and ends the run: no item is left out because a network was down
(patience.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from topwork import settings
from topwork.errors import BadData
from topwork.store.remote import paths
from topwork.store.remote.fetch import MOST_BYTES, Fetcher
from topwork.store.remote.local_copies import Copies
from topwork.store.remote.paths import SCHEMES, absolute, is_remote, shown, title

__all__ = [
    "absolute", "ahead", "beside", "clear", "copies", "exists", "forget", "getsize", "handover", "identity",
    "is_remote", "isdir", "isfile", "local", "read", "scandir", "shown", "take_over", "title", "welcome",
]  # fmt: skip


def welcome(uri: str | os.PathLike[str]) -> str:
    """What a user has named, as a path for the house; one of this machine stays as it is."""
    text = os.fsdecode(uri)
    if isinstance(uri, os.PathLike) and (match := re.match(r"(\w+):/(?!/)", text)) and match[1] in SCHEMES:
        text = f"{match[1]}://{text[match.end() :]}"  # Path("s3://bucket") has lost a slash
    if "://" not in text and not is_remote(text):
        return text
    path = paths.unfold(text, _fetcher().places.keep)
    if is_remote(path):
        _fetcher().places.refresh(path)
    return path


def beside(folder: str, item: str) -> str:
    """An item that a table in a folder names: as it is, or an address; BadData where it leads out of a remote place."""
    if "://" not in item and not is_remote(folder):
        return item
    return paths.beside(folder, item, _fetcher().places.keep)


def isdir(path: str) -> bool:
    """Whether there is a folder, or an archive, or something below an address."""
    return _fetcher().places.isdir(path) if is_remote(path) else os.path.isdir(path)


def isfile(path: str) -> bool:
    """Whether there is a file. On web servers a name with a suffix is taken for one: asking for each takes too long."""
    return _fetcher().places.isfile(path) if is_remote(path) else os.path.isfile(path)


def exists(path: str) -> bool:
    """Whether there is anything."""
    return isdir(path) or isfile(path) if is_remote(path) else os.path.exists(path)


def getsize(path: str) -> int:
    """Bytes of a file."""
    if not is_remote(path):
        return os.path.getsize(path)
    size = _fetcher().places.size(path)
    return size if size is not None else os.path.getsize(local(path))


def scandir(path: str) -> contextlib.AbstractContextManager[Iterable[Any]]:
    """The entries of a folder as os.scandir gives them: name, path, is_dir, is_file, is_symlink."""
    return contextlib.nullcontext(_fetcher().places.entries(path)) if is_remote(path) else os.scandir(path)


def identity(path: str) -> tuple[Any, Any]:
    """The same for the same folder, whatever link leads to it."""
    if is_remote(path):
        return "", path
    found = os.stat(path)
    return found.st_dev, found.st_ino


def read(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The bytes of one file; BadData says why it cannot be read."""
    text = os.fsdecode(path)
    if paths.FOLDED.match(text):
        text = paths.unfold(text, _fetcher().places.keep)
    if is_remote(text):
        return _fetcher().read(text, most)
    try:
        with open(text, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise BadData(f"too large: {size:,} bytes, the limit is {most:,}")
            return file.read()
    except OSError as error:
        raise BadData(f"cannot be read: {error.strerror or error}") from error


def local(path: str) -> str:
    """The path of the file itself, or of a copy of it on this machine; BadData says why there is none."""
    return os.fspath(_fetcher().local(path)) if is_remote(path) else path


@contextlib.contextmanager
def ahead(wanted: Iterable[str]) -> Iterator[None]:
    """While the block runs, files are fetched before they are read, in this order; local paths cost nothing."""
    remote = [path for path in wanted if "://" in path and paths.URL.match(path) and paths.split(path)[1] is None]
    if len(remote) < 2:
        yield
        return
    from topwork.store.remote.readahead import Ahead

    with Ahead(_fetcher(), remote):
        yield


def handover(wanted: Iterable[str]) -> list[list[Any]]:
    """What another process of ours needs to know of these paths to ask nobody, secrets included: never to be shown."""
    remote = [path for path in wanted if isinstance(path, str) and "://" in path and paths.URL.match(path)]
    return _fetcher().places.handover(remote) if remote else []


def take_over(known: Iterable[list[Any]]) -> None:
    """What `handover` gave."""
    if known := list(known):
        _fetcher().places.take_over(known)


def forget() -> None:
    """Begin anew: no listing, no connection, no credentials. Copies stay."""
    global _KNOWN
    with _LOCK:
        _KNOWN = None


def copies() -> Copies:
    """The local copies, for those who show and clear the cache."""
    return Copies(settings.cache_folder(), settings.remote_limit_bytes(), settings.encrypted())


def clear() -> None:
    """Remove all local copies, the encrypted ones too."""
    for sealed in (False, True):
        Copies(settings.cache_folder(), settings.remote_limit_bytes(), sealed).clear()


def _fetcher() -> Fetcher:
    """Of this process and this cache folder."""
    global _KNOWN
    with _LOCK:
        root = settings.cache_folder()
        now = os.getpid(), root, *(os.environ.get(name) for name in _DEPENDS)
        if _KNOWN is None or _KNOWN[0] != now:
            _KNOWN = now, Fetcher(Copies(root, settings.remote_limit_bytes(), settings.encrypted()))
        return _KNOWN[1]


_DEPENDS = (
    "TOPWORK_REMOTE_GB",
    "TOPWORK_ENCRYPT",
    "TOPWORK_KEY",
    "TOPWORK_KEY_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_NAME",
)
_KNOWN: tuple[Any, Fetcher] | None = None
_LOCK = threading.RLock()
