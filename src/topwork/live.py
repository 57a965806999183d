"""A page to look at while a model learns: RUN/live.html, written anew every few seconds, gone when the report is there.

    pause = max(2 s, processor's seconds of the last writing / 0.001)

So the page costs at most a thousandth of the time, whatever it shows and on whatever machine. It hears what every
watcher hears: loss terms and learning rate of each step, how far each training is, and the ladder's steps. It reloads
itself and needs nothing but itself.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topwork.types import Step, Watch

NAME = "live.html"
PAUSE_SECONDS = 2.0
SHARE = 1e-3  # of the time, at most
POINTS = 120  # of a curve, at most


@dataclass
class Curve:
    """One training so far: means over `stride` steps, twice as many as often as there would be too many points."""

    began: float
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    last: Mapping[str, float] = field(default_factory=dict)
    stride: int = 1
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # steps done, means
    _first: int | None = None  # steps that were done when it began
    _open: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step; one that was there before begins again from there."""
        done = step + 1
        if (self._open and done <= self._open[-1][0]) or (self.points and done <= self.points[-1][0]):
            self.points, self._open = [p for p in self.points if p[0] < done], []
        self.last = numbers
        self._open.append((done, numbers))
        if len(self._open) >= self.stride:
            self.points.append(_mean(self._open))
            self._open = []
        if len(self.points) >= POINTS:
            self.points = [_mean(pair) for pair in zip(self.points[::2], self.points[1::2], strict=True)]
            self.stride *= 2

    def at(self, done: int, total: int, now: float) -> None:
        """How far it is."""
        if self._first is None or (done <= self.done and done < total):
            self.began, self._first = now, done
        self.done, self.total, self.seconds = done, total, now - self.began

    def left(self) -> float | None:
        """Seconds to its end, at the pace so far."""
        if self._first is None or self.done <= self._first:
            return None
        return self.seconds / (self.done - self._first) * (self.total - self.done)

    def fact(self, name: str) -> dict[str, Any]:
        """Plain JSON for the page."""
        names = dict.fromkeys(name for _, means in self.points for name in means)
        return {
            "name": name,
            "done": self.done,
            "total": self.total,
            "seconds": self.seconds,
            "left": self.left(),
            "last": dict(self.last),
            "steps": [done for done, _ in self.points],
            "terms": {name: [means.get(name) for _, means in self.points] for name in names},
        }


class Page:
    """Hears what happens and writes it down at times; it never ends a training."""

    def __init__(self, folder: Path | None, name: str, watch: Watch, metric: str = "accuracy") -> None:
        self.folder, self.name, self.metric, self._watch = folder, name, metric, watch
        self.watch = watch if folder is None else Watch(self._progress, watch.say, self._track)
        self._curves: dict[str, Curve] = {}
        self._steps: Sequence[Step] = ()
        self._now, self._began, self._written = "", time.monotonic(), 0
        self._due, self._pause = 0.0, PAUSE_SECONDS  # when it is written next, how long after the last time
        self._turn = threading.Lock()

    def climbed(self, steps: Sequence[Step]) -> None:
        """The ladder's steps so far."""
        self._steps = steps

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._watch.progress(stage, done, total)
        now = time.monotonic()
        curve = self._curves.get(stage)
        if curve is None:
            curve = self._curves[stage] = Curve(now)
        curve.at(done, total, now)
        self._now = stage
        if self._written and now >= self._due:
            self.write()

    def _track(self, training: str, step: int, numbers: Mapping[str, float]) -> None:
        self._watch.track(training, step, numbers)
        self._curves.setdefault(training, Curve(time.monotonic())).add(step, numbers)
        self._now = training
        if time.monotonic() >= self._due:
            self.write()

    def write(self, over: str = "") -> None:
        """The page as things stand; `over`: why nothing more will come."""
        if self.folder is None or not self.folder.is_dir() or not self._turn.acquire(blocking=False):
            return
        began = time.thread_time()
        try:
            from topwork.evaluation.live import render

            pause = self._pause
            replace(self.folder / NAME, render(self.numbers(over, pause)).encode())
            if not self._written:
                self._watch.say(f"live: {_near(self.folder / NAME)}")
            self._written += 1
        except OSError as error:
            self._watch.say(f"live: the page is not written any more ({error.strerror or error}); the training goes on")
            self.folder = None
        finally:
            took = time.thread_time() - began if self._written > 1 else 0.0  # the first one opens the templates
            self._pause = max(PAUSE_SECONDS, took / SHARE)
            self._due = time.monotonic() + self._pause
            self._turn.release()

    def numbers(self, over: str = "", pause: float = PAUSE_SECONDS) -> dict[str, Any]:
        """What the page shows."""
        return {
            "name": self.name,
            "metric": self.metric,
            "now": self._now,
            "over": over,
            "clock": time.strftime("%H:%M:%S"),
            "seconds": time.monotonic() - self._began,
            "refresh": round(pause),
            "trainings": [curve.fact(name) for name, curve in self._curves.items() if curve.last],
            "others": [curve.fact(name) for name, curve in self._curves.items() if not curve.last],
            "steps": self._steps,
        }


@contextlib.contextmanager
def keeping(folder: Path | None, name: str, watch: Watch, metric: str = "accuracy") -> Iterator[Page]:
    """A page in the run's folder, from the first step of a training on; None: nowhere.

    Whoever removes the folder removes it. Where the work ends otherwise, it says so and stands still.
    """
    page = Page(folder, name, watch, metric)
    try:
        yield page
    except BaseException:
        if page._written:
            page.write("It was stopped. The same command goes on from its last checkpoint.")
        raise


def replace(target: Path, data: bytes) -> None:
    """A file that appears at once; after a power cut it may be lost, which is no loss."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _near(path: Path) -> Path:
    """As short as it can be said here."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


def _mean(points: Sequence[tuple[int, Mapping[str, float]]]) -> tuple[int, dict[str, float]]:
    """One point for several: the last one's place, the mean of every number over the points that have it."""
    names = dict.fromkeys(name for _, numbers in points for name in numbers)
    several = {name: [numbers[name] for _, numbers in points if name in numbers] for name in names}
    return points[-1][0], {name: sum(values) / len(values) for name, values in several.items()}
