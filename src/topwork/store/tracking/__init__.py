"""Where the numbers of a training go besides the run's own log: one file per tool, each its own optional package.

class Tracker: a frozen dataclass with check() and open(out) -> Book          plugins.make("store.tracking", "mlflow")
class Book:    book(training, step, numbers), book.where, book.close()
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from topwork import plugins
from topwork.errors import BadSetting, MissingExtra
from topwork.types import Watch

ROOM = "store.tracking"


class Book(Protocol):
    """An open place for numbers."""

    @property
    def where(self) -> str:
        """How to look at them, in words."""
        ...

    def __call__(self, training: str, step: int, numbers: Mapping[str, float]) -> None:
        """Write down one step."""
        ...

    def close(self) -> None:
        """Everything is written."""
        ...


class Tracker(Protocol):
    """A tool that draws curves of trainings."""

    def check(self) -> None:
        """Raise MissingExtra where its package is not installed."""
        ...

    def open(self, out: Path) -> Book:
        """A place for the trainings that lead to `out`."""
        ...


def make(spec: str | None) -> Tracker | None:
    """Of "tensorboard" or "mlflow(uri='...')"; raises before any work what would stop it later."""
    if not spec or spec == "none":
        return None
    tracker = plugins.make(ROOM, spec)
    tracker.check()
    return tracker


def missing(name: str, package: str) -> MissingExtra:
    """One line with the command that mends it."""
    return MissingExtra(f"--track {name} needs the package {package}. Install it with: pip install {package}")


@contextlib.contextmanager
def keeping(tracker: Tracker | None, out: Path, watch: Watch) -> Iterator[Watch]:
    """The same watch, which writes numbers down, too."""
    if tracker is None:
        yield watch
        return
    try:
        book = tracker.open(out)
    except Exception as error:  # foreign code, and perhaps a server far away
        raise BadSetting(f"--track: {_line(error)}. Expected a place that can be written to") from error
    watch.say(f"curves: {book.where}")
    broken: list[Exception] = []

    def track(training: str, step: int, numbers: Mapping[str, float]) -> None:
        watch.track(training, step, numbers)
        if not broken:
            with _without(book, broken, watch):
                book(training, step, numbers)

    try:
        yield dataclasses.replace(watch, track=track)
    finally:
        with _without(book, broken, watch):
            book.close()


@contextlib.contextmanager
def _without(book: Book, broken: list[Exception], watch: Watch) -> Iterator[None]:
    """A training of hours does not end because its curves cannot be drawn; that is said once."""
    try:
        yield
    except Exception as error:
        if not broken:
            watch.say(f"{book.where}: nothing more is written there ({_line(error)}); the training goes on")
        broken.append(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
