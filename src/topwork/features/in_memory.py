"""Large arrays where encryption is asked for: in memory alone, and never in a file.

    allocated(shape, dtype, what) -> an empty array         StoreError where less than that is free

Frames and boundary activations are mapped from files otherwise, which cannot be encrypted and mapped. So they are made
again in every run, and each of several processes has its own. What the system swaps out is the system's to encrypt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes
from topwork.errors import StoreError

SHARE = 0.5  # of what is free


def allocated(shape: Sequence[int], dtype: Any, what: str) -> NDArray[Any]:
    """An array whose pages are taken as they are written."""
    size, free = int(np.prod(shape)) * np.dtype(dtype).itemsize, free_bytes()
    if size > SHARE * free:
        raise StoreError(
            f"{what} take {size / 1e9:,.1f} GB. Encrypted runs keep them in memory, where {SHARE * free / 1e9:,.1f} GB "
            "may be used. Take steps that leave the backbone as it is (--steps probe), or fewer items"
        )
    return np.empty(tuple(shape), dtype)


def free_bytes() -> int:
    """Memory that this process may still take, beside others of the same run."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file)
        pages = int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    return (pages or 4 << 30) // processes.beside()
