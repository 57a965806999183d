"""Outputs that appear at once or not at all.

    with new_folder(Path("models/photos")) as folder:      # a hidden sibling until the block ends
        (folder / "model.json").write_text("...")

A process that dies inside the block leaves the hidden sibling behind; the next writer of the same output sweeps it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from topwork.errors import StoreError


@contextlib.contextmanager
def new_folder(target: Path, marker: str) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends well.

    An existing `target` is replaced only if it holds `marker` (it is one of ours); anything else is refused first.
    """
    target = target.absolute()
    check_replaceable(target, marker)
    hidden = f".{target.name}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target, hidden)
        building = Path(tempfile.mkdtemp(prefix=f"{hidden}{os.getpid()}.", dir=target.parent))
    except OSError as error:
        raise explain(error, target) from error
    try:
        yield building
        for path in building.rglob("*"):
            if path.is_file():
                _flush(path)
        building.chmod(0o755)
        _swap(building, target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise explain(error, target) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_replaceable(target: Path, marker: str) -> None:
    """Refuse before any work if `target` is something that we did not write, or cannot be written."""
    if target.exists() and not (target.is_dir() and ((target / marker).exists() or not any(target.iterdir()))):
        raise StoreError(f"{target} exists and is not a Topwork folder (no {marker} in it). Choose another --out")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise StoreError(f"{parent} is a file, so {target} cannot be written. Choose another --out")
    if not os.access(parent, os.W_OK):
        raise StoreError(f"{parent} is not writable, so {target} cannot be written. Choose another --out")


def write_file(target: Path, data: bytes) -> None:
    """A file that appears at once or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except OSError as error:
        raise explain(error, target) from error


def explain(error: OSError, target: Path) -> StoreError:
    """One line for what the operating system said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"The disk is full: {target} was not written. Free some space and run again")
    return StoreError(f"{target} cannot be written: {error.strerror or error}")


def _swap(building: Path, target: Path) -> None:
    """Put the new folder in place; the old one waits under a hidden name until the new one stands."""
    old = building.with_name(f"{building.name}.old")
    if target.exists():
        target.rename(old)
    building.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(target: Path, hidden: str) -> None:
    """Clear what a killed process left: unfinished folders go, a set-aside good one returns if nothing replaced it."""
    for left in target.parent.glob(f"{hidden}*"):
        owner = left.name.removeprefix(hidden).split(".")[0]
        if not owner.isdigit() or _alive(int(owner)):
            continue
        if left.suffix == ".old" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
