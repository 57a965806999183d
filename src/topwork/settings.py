"""Where, how many, on what: every automatic choice with its reason, every one with a way to override it.

TOPWORK_CACHE        cache folder                    default: $XDG_CACHE_HOME/topwork or ~/.cache/topwork
TOPWORK_CACHE_GB     size limit of the cache, GB     default: 10, at most half of the free disk
TOPWORK_THREADS      threads for arithmetic          default: the processors this process may use; those started
                                                     together on one machine share them
TOPWORK_DEVICE       cpu, cuda, cuda:1, mps          default: what torch finds, cpu without torch
HF_HUB_OFFLINE       1: no hub is ever asked
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from topwork import processes
from topwork.errors import BadSetting
from topwork.types import Choice


def cache_folder() -> Path:
    """Folder of everything that can be computed again."""
    named = os.environ.get("TOPWORK_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "topwork"


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
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


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
