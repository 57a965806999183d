"""Paths of remote places and of archives, by their words alone.

    s3://bucket/photos/cats/1.jpg            scheme, host or bucket, the rest
    photos.zip/cats/1.jpg                    an archive is a folder
    zip://cats::s3://bucket/p.zip            fsspec's words for s3://bucket/p.zip/cats

A user's word can hold credentials (https://USER:PASSWORD@HOST, a signed question mark): `unfold` takes them out.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote

from topwork.errors import BadData, BadSetting
from topwork.store.database import hidden
from topwork.store.remote.archives import unsafe

SCHEMES = ("s3", "gs", "az", "abfs", "http", "https", "memory")
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
URL = re.compile(rf"({'|'.join(SCHEMES)})://([^/]*)/?(.*)", re.DOTALL)
FOLDED = re.compile(
    r"(?:zip|tar|s3a|s3n|gcs|file)://|\w+://[^/]*@|\w+://[^?]*\?|(?:simple|file|block)cache::", re.IGNORECASE
)
"""What may be a user's word, not a path of the house."""
_ARCHIVE = re.compile(r"[^/]\.(?:zip|tar|tgz|tbz2?|txz|tar\.(?:gz|bz2|xz))(?=/|$)", re.IGNORECASE)
_SECRET = re.compile(r"(?i)sig|token|key|secret|passw|credential|auth|x-(?:amz|goog)-")


Secrets = tuple[tuple[str, str] | None, str]
"""Name and password of a host, and what stood behind the question mark of an address."""
Keep = Callable[[str, Secrets], None]
"""keep(path, secrets): where what is taken out of an address is remembered, in memory only."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is not simply one of this machine: an address, or a place in an archive."""
    text = os.fspath(path)
    return isinstance(text, str) and (URL.match(text) is not None or split(text)[1] is not None)


def absolute(path: str | os.PathLike[str]) -> str:
    """Names the same place from everywhere."""
    text = os.fspath(path)
    return text if URL.match(text) else os.path.abspath(text)


def title(path: str) -> str:
    """The last part of a place's name, without the ending of an archive: photos.tar.gz is photos."""
    base = absolute(path).rstrip("/").rsplit("/", 1)[-1]
    match = _ARCHIVE.search(base)
    return base[: match.start() + 1] if match else base


def shown(path: str) -> str:
    """A path for messages: without name, password and signature."""
    return hidden(path)


def beside(folder: str, item: str, keep: Keep) -> str:
    """An item that a table in a folder names: as it is, or an address; BadData where it leads out of a remote place."""
    if re.match(r"\w+://", item) or "::" in item:
        path = unfold(item, keep)
        if is_remote(path):
            return path
        raise BadData(f"{shown(item)} is an address of a kind that cannot be read")
    if not is_remote(folder):
        return item
    item = item.replace("\\", "/")
    if item.startswith("/") or re.match(r"[A-Za-z]:", item):
        raise BadData(f"{item} is a path of another machine")
    if ".." not in item.split("/"):
        return posixpath.normpath(item)
    outer, inner = split(folder)
    top = outer if inner is not None else "/".join(folder.split("/")[:3])
    within = posixpath.normpath(f"{folder.removeprefix(top).strip('/')}/{item}".lstrip("/"))
    if within.startswith(".."):
        raise BadData(f"{item} leads out of {shown(top)}")
    return f"{top}/{within}"


def unfold(text: str, keep: Keep) -> str:
    """A path of the house for what fsspec would take: chains of archives, other names of schemes, credentials."""
    parts = [part for part in text.split("::") if part not in ("simplecache", "filecache", "blockcache")]
    first, scheme = parts[0], parts[0].partition("://")[0].lower()
    if len(parts) == 1:
        return _clean(first.partition("://")[2] if scheme in ("zip", "tar") and "://" in first else first, keep)
    outer = _clean(parts[1], keep)
    if len(parts) > 2 or scheme not in ("zip", "tar") or split(outer)[1] != "":
        raise BadSetting(
            f"{shown(text)}: expected zip://FOLDER::ARCHIVE or tar://FOLDER::ARCHIVE, the archive a file that is there "
            "and ends in .zip, .tar, .tgz, .tar.gz, .tar.bz2 or .tar.xz"
        )
    inner = first.partition("://")[2].strip("/")
    if inner and (why := unsafe(inner)):
        raise BadSetting(f"{shown(text)}: {why}")
    return f"{outer}/{inner}" if inner else outer


def _clean(text: str, keep: Keep) -> str:
    """One address without credentials, and without . and .. in it."""
    scheme, mark, rest = text.partition("://")
    scheme = _OTHER_NAMES.get(scheme.lower(), scheme.lower())
    if not mark:
        return text
    if scheme == "file":
        return rest
    if scheme not in SCHEMES:
        return text
    rest, _, query = (rest.partition("#")[0] if scheme.startswith("http") else rest).partition("?")
    if query and not scheme.startswith("http"):
        rest, query = f"{rest}?{query}", ""  # a key may hold one
    host, _, key = rest.partition("/")
    login, at, host = host.rpartition("@")
    key = posixpath.normpath(f"/{key}").lstrip("/") if key else ""
    path = f"{scheme}://{host}/{key}".rstrip("/")
    hidden = query if _SECRET.search(query) or os.path.splitext(key)[1] else ""
    if query and not hidden:
        path += f"?{query}"  # host/image?id=1: a part of its name
    if at or hidden:
        user, _, password = login.partition(":")
        keep(path, ((unquote(user), unquote(password)) if at else None, hidden))
    return path


def split(path: str) -> tuple[str, str | None]:
    """The file that holds it and the place in that archive; (path, None) where it lies in none."""
    url = URL.match(path)
    for match in _ARCHIVE.finditer(path, url.start(3) if url else 0):
        outer = path[: match.end()]
        if url or os.path.isfile(outer):
            return outer, path[match.end() + 1 :].rstrip("/")
    return path, None


def below(path: str, root: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return path == root or path.startswith(f"{root}/")


def looks_like_a_file(path: str) -> bool:
    """Whether an address ends like a file's name."""
    host, _, rest = path.partition("://")[2].partition("/")
    return bool(host) and os.path.splitext(rest)[1] not in ("", ".")


def suffix(path: str) -> str:
    """The ending of a name where it is a plain one: .jpg."""
    ending = os.path.splitext(path)[1].lower()
    return ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) else ""
