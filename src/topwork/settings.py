"""Where, how many, on what: every automatic choice with its reason, every one with a way to override it.

TOPWORK_CACHE        cache folder                    default: $XDG_CACHE_HOME/topwork or ~/.cache/topwork
                     or redis://HOST:PORT/DB         rediss:// for TLS; several machines share it
TOPWORK_CACHE_FOLDER what stays here beside a server default: as of TOPWORK_CACHE
TOPWORK_REDIS_PASSWORD  of the server                default: what stands in the URL
TOPWORK_CACHE_GB     size limit of the cache, GB     default: 10, at most half of the free disk
TOPWORK_REMOTE_GB    of local copies of remote files default: 50, at most half of the free disk
TOPWORK_ENCRYPT      1: cache and models are encrypted at rest
TOPWORK_KEY_FILE     file with the key               or TOPWORK_KEY: the key itself (store/keys.py)
TOPWORK_SQL_PASSWORD of a database whose address holds none (store/database.py)
TOPWORK_THREADS      threads for arithmetic          default: the processors this process may use; those started
                                                     together on one machine share them
TOPWORK_DEVICE       cpu, cuda, cuda:1, mps          default: what torch finds, cpu without torch
HF_HUB_OFFLINE       1: no hub is ever asked
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from topwork import processes
from topwork.errors import BadSetting
from topwork.types import Choice

SERVERS = ("redis://", "rediss://")


def cache_folder() -> Path:
    """Folder of everything that can be computed again; beside a server, of what stays on this machine."""
    named = os.environ.get("TOPWORK_CACHE_FOLDER" if cache_url() else "TOPWORK_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "topwork"


def cache_url() -> str | None:
    """The server that features are shared through, if TOPWORK_CACHE names one; never to be printed as it is."""
    named = os.environ.get("TOPWORK_CACHE", "").strip()
    if "://" not in named:
        return None
    if not named.startswith(SERVERS):
        raise BadSetting(f"TOPWORK_CACHE={without_password(named)!r}. Expected a folder or redis://HOST:PORT/DB")
    return named


def encrypted() -> bool:
    """Whether what is written to disk or to a server shall be encrypted."""
    return _is_on("TOPWORK_ENCRYPT")


@contextlib.contextmanager
def using(
    cache: str | os.PathLike[str] | None = None, encrypt: bool = False, key_file: str | os.PathLike[str] | None = None
) -> Iterator[None]:
    """Other places for a while, for this process and those that it starts; what is None or False stays as it is."""
    wanted = {
        "TOPWORK_CACHE": None if cache is None else os.fspath(cache),
        "TOPWORK_ENCRYPT": "1" if encrypt else None,
        "TOPWORK_KEY_FILE": None if key_file is None else os.fspath(Path(key_file).expanduser().absolute()),
    }
    changed = {name: value for name, value in wanted.items() if value is not None}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def without_password(text: str) -> str:
    """A text with `***` for what stands before the host of a URL, and for password=..."""
    hidden = re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)(pass(?:word|wd)?=)[^&\s'\"]+", r"\1***", hidden)


def check_plain(what: str) -> None:
    """Raise BadSetting, before it is written, for what could only be written in the clear."""
    if encrypted():
        raise BadSetting(
            f"{what} in the clear, and --encrypt forbids that. Do without it, or use a disk that is encrypted itself"
        )


def cache_limit_bytes() -> Choice:
    """Size at which the least recently used entries leave the cache."""
    named = os.environ.get("TOPWORK_CACHE_GB")
    if named:
        return Choice("cache limit", int(_positive("TOPWORK_CACHE_GB", named) * 1e9), "TOPWORK_CACHE_GB")
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    own = sum(file.stat().st_size for file in cache_folder().glob("items-*/data.mdb"))
    half = (shutil.disk_usage(folder).free + own) // 2
    if half < 10e9:
        return Choice("cache limit", half, "half of the disk that is free or its own")
    return Choice("cache limit", int(10e9), "default")


def remote_limit_bytes() -> Choice:
    """Size at which the least recently used local copies of remote files leave (store/remote)."""
    named = os.environ.get("TOPWORK_REMOTE_GB")
    if named:
        return Choice("remote limit", int(_positive("TOPWORK_REMOTE_GB", named) * 1e9), "TOPWORK_REMOTE_GB")
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    own = sum(file.stat().st_size for file in cache_folder().glob("remote-v*/??/*"))
    half = (shutil.disk_usage(folder).free + own) // 2
    if half < 50e9:
        return Choice("remote limit", half, "half of the disk that is free or its own")
    return Choice("remote limit", int(50e9), "default")


def threads() -> Choice:
    """Threads for arithmetic."""
    named = os.environ.get("TOPWORK_THREADS")
    if named:
        return Choice("threads", int(_positive("TOPWORK_THREADS", named)), "TOPWORK_THREADS")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus()
    here, why = (
        (quota, "processor quota of this container")
        if quota and quota < allowed
        else (allowed, "processors of this machine")
    )
    beside = processes.beside()
    if beside > 1:
        return Choice("threads", max(1, here // beside), f"{why}, shared by {beside} processes")
    return Choice("threads", here, why)


def offline() -> bool:
    """Whether the user forbids asking a hub."""
    return _is_on("HF_HUB_OFFLINE")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _cgroup_cpus() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period)) if quota != "max" else None
    except (OSError, ValueError):
        return None


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise BadSetting(f"{name}={text!r} is not a positive number")
    return value
