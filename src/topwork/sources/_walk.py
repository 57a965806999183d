"""Folders, listed: what in them is an image, a folder, something else, or of no interest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from topwork.errors import StoreError
from topwork.modalities.image import SUFFIXES
from topwork.store import remote

_SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found", "thumbnails"))


@dataclass
class Listing:
    """One directory: names in order, and what is wrong with the rest."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    ignored: int = 0


def look(path: str) -> Listing:
    """List one directory."""
    here = Listing()
    try:
        with remote.scandir(path) as entries:
            for entry in entries:
                _sort_in(entry, here)
    except StoreError:  # no answer is no empty folder
        raise
    except OSError as error:
        here.others.append(("", f"this folder cannot be read: {error.strerror or error}"))
    here.images.sort()
    here.folders.sort()
    here.others.sort()
    return here


def walk(root: str, rel: str = "") -> Iterator[tuple[str, Listing]]:
    """Every directory from root/rel down with its listing, in order of names; links to a folder above are left."""
    stack: list[tuple[str, frozenset[tuple[Any, Any]]]] = [(rel, frozenset())]
    while stack:
        rel, above = stack.pop()
        identity = remote.identity(os.path.join(root, rel))
        if identity in above:
            continue
        listing = look(os.path.join(root, rel))
        yield rel, listing
        stack += [(join(rel, name), above | {identity}) for name in reversed(listing.folders)]


def _sort_in(entry: os.DirEntry[str], here: Listing) -> None:
    name, why = entry.name, getattr(entry, "trouble", "")
    if why:
        here.others.append((name, why))
        return
    if name.startswith(".") or name.lower() in _SYSTEM:
        here.ignored += 1
        return
    if not name.isascii() and not _is_text(name):
        here.others.append(
            (os.fsencode(name).decode("utf-8", "backslashreplace"), "its name is not valid UTF-8: rename it")
        )
        return
    suffix = os.path.splitext(name)[1].lower()
    if entry.is_dir():
        here.folders.append(name)
    elif not entry.is_file():
        here.others.append((name, "a broken link" if entry.is_symlink() else "not an ordinary file"))
    elif suffix in SUFFIXES:
        here.images.append(name)
    else:
        here.others.append((name, f"not an image ({suffix or 'no suffix'})"))


def any_image(path: str, above: frozenset[tuple[Any, Any]] = frozenset()) -> bool:
    """Whether there is an image at some depth; stops at the first."""
    identity, here = remote.identity(path), Listing()
    if identity in above:
        return False
    with contextlib.suppress(OSError), remote.scandir(path) as entries:
        for entry in entries:
            _sort_in(entry, here)
            if here.images:
                return True
    return any(any_image(os.path.join(path, name), above | {identity}) for name in here.folders)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # undecodable bytes of a file name
        return False
    return True


def join(rel: str, name: str) -> str:
    return f"{rel}/{name}" if rel else name
