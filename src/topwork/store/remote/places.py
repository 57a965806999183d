"""What lies where in remote places and archives: listings, kept for the life of a process.

A folder is listed with all below it where a dataset is one, alone where a table's items lie in it, and not at all where
a web server would have to be asked for each file. Nothing is fetched but the archives themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from topwork.errors import BadData, StoreError
from topwork.store.remote.archives import Archive, unsafe
from topwork.store.remote.clients import open_client
from topwork.store.remote.files import Facts, Listed
from topwork.store.remote.paths import URL, Secrets, below, looks_like_a_file, shown, split
from topwork.store.remote.patience import Endpoint, refused
from topwork.store.remote.web import http_address

FRESH_SECONDS = 10.0  # or as long as it took, a listing is as good as new: one command lists once
MOST_LISTED = 5_000_000
MOST_BESIDE = 200_000  # files of a folder that a table's items lie in; of larger ones each is asked for alone
LONE = 8  # files of one folder that are asked for alone before it is listed


@dataclass(slots=True)
class Entry:
    """A file or folder in a listing, with the questions that os.DirEntry answers."""

    name: str
    path: str = ""  # of folders
    folder: bool = False
    address: str = ""
    facts: Facts | None = None
    trouble: str = ""  # why it is no file for us

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.folder

    def is_file(self) -> bool:
        """Whether it is a file that can be read."""
        return not self.folder and not self.trouble

    def is_symlink(self) -> bool:
        """Never: links of archives are left out."""
        return False


@dataclass
class _Folder:
    files: dict[str, Entry] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    troubles: list[Entry] = field(default_factory=list)
    until: float = 0.0  # time.monotonic() up to which it is fresh

    def __bool__(self) -> bool:
        return bool(self.files or self.folders or self.troubles)


class Places:
    """Folders, files and archives by their paths. Threads may call at once."""

    def __init__(self, open_archive: Callable[[str], tuple[Archive, str]]) -> None:
        self._open_archive = open_archive
        self._logins: dict[tuple[str, str], tuple[str, str]] = {}  # (scheme, host): name, password
        self._queries: dict[str, str] = {}  # path: what stood behind its question mark
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._archives: dict[str, Archive] = {}
        self._folders: dict[str, _Folder] = {}
        self._single: dict[str, Entry | None] = {}  # files that were asked for alone
        self._lone: dict[str, int] = {}  # folder: files in it that were asked for alone
        self._unlisted: set[str] = set()  # folders too large to list, or that may not be listed
        self._lock, self._listing = threading.RLock(), threading.RLock()

    def keep(self, path: str, secrets: Secrets) -> None:
        """What was taken out of an address."""
        login, query = secrets
        match = URL.match(path)
        if login is not None and match is not None:
            with self._lock:
                if self._logins.get((match[1], match[2])) != login:
                    self._logins[match[1], match[2]] = login
                    self._endpoints.pop((match[1], match[2]), None)
        if query:
            self._queries[path] = query

    def query(self, path: str) -> str:
        """What stood behind the question mark."""
        return self._queries.get(path, "")

    def handover(self, wanted: Iterable[str]) -> list[list[Any]]:
        """Plain JSON: path, login, query, address, size, version, md5 of each file that holds one of them."""
        told = []
        for path in dict.fromkeys(split(path)[0] for path in wanted):
            match, entry = URL.match(path), self.known(path)
            assert match is not None
            facts = entry.facts if entry is not None and entry.facts is not None else Facts(None, "")
            told.append(
                [path, self._logins.get((match[1], match[2])), self.query(path), entry.address if entry else "",
                 facts.size, facts.version, facts.told]
            )  # fmt: skip
        return told

    def take_over(self, known: Iterable[Sequence[Any]]) -> None:
        """What another process has handed over."""
        for path, login, query, address, size, version, md5 in known:
            self.keep(path, (tuple(login) if login else None, query))
            if size is not None:
                self.learn(path, address, Facts(size, version, md5))

    def refresh(self, path: str) -> None:
        """Forget what was listed at, below and beside a path, but for what is fresh."""
        outer, _ = split(path)
        root, _, _ = outer.rpartition("/")
        now = time.monotonic()
        with self._listing, self._lock:
            for name in [n for n, f in self._folders.items() if f.until < now and (below(n, outer) or n == root)]:
                del self._folders[name]
                self._archives.pop(name, None)
            for name in [n for n in self._single if below(n, outer)]:
                del self._single[name]
            self._lone.clear()
            self._unlisted.clear()

    def endpoint(self, path: str) -> tuple[Endpoint, str]:
        """Whom to ask, and the address of a path there."""
        match = URL.match(path)
        assert match is not None, path
        scheme, host, rest = match.groups()
        with self._lock:
            known = self._endpoints.get((scheme, host))
            if known is None:
                known = Endpoint(*open_client(scheme, host, self._logins.get((scheme, host))))
                self._endpoints[scheme, host] = known
        if scheme in ("http", "https"):
            query = self.query(path)
            return known, http_address(path) + (f"?{query}" if query else "")
        return known, f"{host}/{rest}"

    def others_answer(self, but: Endpoint) -> bool:
        """Whether another endpoint has answered."""
        return any(one.answered for one in self._endpoints.values() if one is not but)

    def isdir(self, path: str) -> bool:
        """Whether anything lies below a path."""
        path = path.rstrip("/")
        outer, inner = split(path)
        if inner is not None:
            self.archive(outer)
            return path in self._folders
        if path in self._folders:
            return bool(self._folders[path])
        above, _, name = path.rpartition("/")
        if above in self._folders:
            return name in self._folders[above].folders
        try:
            if looks_like_a_file(path) and self._alone(path) is not None:
                return False
            return self._list(path, deep=True)
        except PermissionError as error:
            raise StoreError(f"{shown(path)}: {refused(error, path)}") from error

    def isfile(self, path: str) -> bool:
        """Whether there is a file; where asking takes too long, a name with a suffix is believed."""
        _, inner = split(path)
        if inner is not None:
            return bool(inner) and self.find(path) is not None
        above = path.rpartition("/")[0]
        unasked = path.startswith("http") and above not in self._folders
        if (unasked or above in self._unlisted) and path not in self._single and os.path.splitext(path)[1]:
            return True  # found out when it is read: one question for each file would take too long
        return self.find(path) is not None

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where nobody tells."""
        entry = self.find(path)
        if entry is None:
            raise BadData(f"{shown(path)}: does not exist")
        if entry.facts is None:  # the page of a web server tells names alone
            endpoint, address = self.endpoint(path)
            with contextlib.suppress(FileNotFoundError, PermissionError):
                facts = endpoint.patiently(shown(path), lambda: endpoint.client.facts(entry.address or address))
                self.learn(path, entry.address or address, facts)
                return facts.size
        return entry.facts.size if entry.facts is not None else None

    def entries(self, path: str) -> list[Entry]:
        """What lies directly in a folder; FileNotFoundError where there is none."""
        path = path.rstrip("/")
        outer, inner = split(path)
        if inner is not None:
            self.archive(outer)
        elif path not in self._folders:
            try:
                self._list(path, deep=False)
            except PermissionError as error:
                raise StoreError(f"{shown(path)}: {refused(error, path)}") from error
        found = self._folders.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", path)
        folders = [Entry(name, f"{path}/{name}", folder=True) for name in found.folders]
        return [*folders, *found.files.values(), *found.troubles]

    def find(self, path: str) -> Entry | None:
        """A file's entry: as it was listed; else it is asked for alone, or, after a few, its folder is listed."""
        outer, inner = split(path)
        if inner is not None:
            self.archive(outer)
        above, _, name = path.rpartition("/")
        found = self._folders.get(above)
        if found is not None:
            return found.files.get(name)
        if inner is not None:
            return None
        if path in self._single:
            return self._single[path]
        try:
            self._lone[above] = self._lone.get(above, 0) + 1
            if path.startswith("http") or self._lone[above] <= LONE or above in self._unlisted:
                return self._alone(path)
            self._list(above, deep=False)
        except PermissionError:  # not even told that it is not there
            self._unlisted.add(above)
            return None
        if above in self._unlisted:
            return self._alone(path)
        return self._folders.setdefault(above, _Folder()).files.get(name)

    def _alone(self, path: str) -> Entry | None:
        """A file by its own address; None where there is none."""
        if path in self._single:
            return self._single[path]
        endpoint, address = self.endpoint(path)
        entry = None
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            facts = endpoint.patiently(shown(path), lambda: endpoint.client.facts(address))
            entry = Entry(path.rpartition("/")[2], address=address, facts=facts)
        self._single[path] = entry
        return entry

    def _list(self, path: str, deep: bool) -> bool:
        """List an address, page by page; whether anything was there."""
        path = path.rstrip("/")
        endpoint, address = self.endpoint(path)
        count, mark, began = 0, None, time.monotonic()
        new: dict[str, _Folder] = {path: _Folder()}
        with self._listing, contextlib.suppress(FileNotFoundError, NotADirectoryError):
            while True:
                files, folders, mark = endpoint.patiently(
                    shown(path), lambda mark=mark: endpoint.client.page(address, deep, mark)
                )
                count += len(files) + len(folders)
                if not deep and count > MOST_BESIDE:
                    self._unlisted.add(path)
                    return True
                if count > MOST_LISTED:
                    raise StoreError(f"{shown(path)}: more than {MOST_LISTED:,} files. Name a folder below it")
                new[path].folders.update(name for name in folders if not unsafe(name))
                for one in files:
                    _put(new, path, one)
                if mark is None:
                    break
        if count:
            self._keep(new, time.monotonic() - began)
        return count > 0

    def _keep(self, new: dict[str, _Folder], seconds: float = 0.0) -> None:
        until = time.monotonic() + max(FRESH_SECONDS, seconds)
        for folder in new.values():
            folder.until = until
        self._folders |= new

    def archive(self, outer: str) -> Archive:
        """An opened archive, its files among the listed folders."""
        with self._listing:
            known = self._archives.get(outer)
            if known is not None:
                return known
            known, stamp = self._open_archive(outer)
            new: dict[str, _Folder] = {outer: _Folder()}
            for name, size in known.sizes.items():
                _put(new, outer, Listed(name, "", Facts(size, stamp)))
            new[outer].troubles += [Entry(name, trouble=why) for name, why in known.troubles]
            self._keep(new)
            self._archives[outer] = known
            return known

    def known(self, path: str) -> Entry | None:
        """An entry without asking anybody."""
        above, _, name = path.rpartition("/")
        found = self._folders.get(above)
        return found.files.get(name) if found is not None else self._single.get(path)

    def missing(self, path: str) -> bool:
        """Whether it was asked for and is not there."""
        return path in self._single and self._single[path] is None

    def learn(self, path: str, address: str, facts: Facts) -> None:
        """What an answer told of a file."""
        entry = Entry(path.rpartition("/")[2], address=address, facts=facts)
        with self._lock:
            above = self._folders.get(path.rpartition("/")[0])
            if above is not None and entry.name in above.files:
                above.files[entry.name] = entry
            else:
                self._single[path] = entry


def _put(folders: dict[str, _Folder], root: str, one: Listed) -> None:
    """A file into the folder that it lies in, and that one into those above."""
    if why := unsafe(one.name):
        folders[root].troubles.append(Entry(one.name, trouble=why))
        return
    inner, _, name = one.name.rpartition("/")
    path = f"{root}/{inner}" if inner else root
    folder = folders.get(path)
    if folder is None:
        folder = folders[path] = _Folder()
        below = path
        while below != root:  # those above
            below, _, last = below.rpartition("/")
            above = folders.setdefault(below, _Folder())
            if last in above.folders:
                break
            above.folders.add(last)
    folder.files[name] = Entry(name, address=one.address, facts=one.facts)
