"""Many fits over worker processes: read the list, leave out what is done, run the rest, gather one table.

    specs.jsonl    a fit per line:   {"data": "photos/", "backbone": "bundled", "steps": "probe", "name": "small"}
    specs.toml     a [[fit]] table per fit; what stands above them goes for all

    OUT/NAME/           the model of each, unless it names another `out`
    OUT/sweep.jsonl     a line per finished run: its command, exit code, seconds and, if it failed, why

Keys are the options of `topwork fit`; lists go to `steps` joined by commas, to other options one by one. Every fit is a
process of its own with a share of the processors. They share the cache: whoever needs what another one is computing
waits for it. A fit is done if its last run ended well, was started with the same options, and its model is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from topwork import settings
from topwork.artefact.bundle import MARKER, contents
from topwork.errors import BadData, BadSetting, StoreError
from topwork.store.atomic import check_replaceable, explain
from topwork.store.database import command_of
from topwork.types import Watch
from topwork.wishes import Fit, name_of

LOG = "sweep.jsonl"
POLL_SECONDS = 0.05
STOP_SECONDS = 60.0  # for a fit to write its checkpoint after Ctrl-C
OURS = ("data", "name", "out")


@dataclass(frozen=True)
class Job:
    """One fit."""

    name: str
    words: tuple[str, ...]  # of the command, after `topwork fit`
    out: Path

    @property
    def command(self) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "topwork", "fit", *self.words, "--quiet", "--out", str(self.out)]

    @property
    def line(self) -> str:
        """The same for reading, and for knowing it again."""
        return command_of(["topwork fit", *self.words, "--out", str(self.out)])


@dataclass(frozen=True)
class Ended:
    """One run of a fit."""

    code: int
    seconds: float
    reason: str = ""


def read(path: Path) -> list[Mapping[str, Any]]:
    """The specs of a file; raises BadData that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if path.suffix == ".toml":
        try:
            whole = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadData(f"{path}: {error}") from error
        fits = whole.pop("fit", None)
        if not isinstance(fits, list) or not all(isinstance(one, dict) for one in fits):
            raise BadData(f"{path} has no [[fit]] table. Expected one per fit; what stands above them goes for all")
        return [{**whole, **one} for one in fits]
    if path.suffix not in (".jsonl", ".ndjson"):
        raise BadData(f"{path}: expected a .jsonl file with a fit per line, or a .toml file with [[fit]] tables")
    specs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            spec = json.loads(line)
        except ValueError as error:
            raise BadData(f"{path} line {number}: not JSON ({error})") from error
        if not isinstance(spec, dict):
            raise BadData(f'{path} line {number}: expected a mapping such as {{"data": "photos/", "steps": "probe"}}')
        specs.append(spec)
    return specs


def plan(specs: Sequence[Mapping[str, Any]], folder: Path) -> list[Job]:
    """The fits, checked together: options, values, names and places."""
    known = [option.name for option in dataclasses.fields(Fit) if option.name not in OURS]
    problems, jobs = [], []
    for number, spec in enumerate(specs, 1):
        unknown = sorted(spec.keys() - {*known, *OURS})
        bad = [key for key, value in spec.items() if not _sayable(value)]
        if unknown:
            problems.append(f"fit {number} has no option {', '.join(unknown)}; it has {', '.join((*OURS, *known))}")
        if bad:
            problems.append(f"fit {number}: {', '.join(bad)} cannot be said on a command line")
        if not isinstance(spec.get("data"), str):
            problems.append(f"fit {number} names no data")
        if unknown or bad or not isinstance(spec.get("data"), str):
            continue
        name = str(spec.get("name") or f"{number:0{len(str(len(specs)))}}-{name_of(spec['data'])}")
        if "/" in name or os.sep in name or name.startswith("."):
            problems.append(f"fit {number}: the name '{name}' cannot be a folder's")
            continue
        out = Path(spec.get("out") or folder / name)
        jobs.append(Job(name, tuple(_words(spec)), out))
    for what, all_of_them in (("name", [job.name for job in jobs]), ("out", [str(job.out.absolute()) for job in jobs])):
        twice = [value for value, count in Counter(all_of_them).items() if count > 1]
        problems += [f"{what} {value} is there {Counter(all_of_them)[value]} times" for value in twice]
    if not specs:
        problems.append("it lists no fits")
    if problems:
        raise BadSetting("The sweep cannot work: " + "; ".join(problems))
    for job in jobs:
        check_replaceable(job.out, MARKER)
    return jobs


def run(jobs: Sequence[Job], folder: Path, workers: int, watch: Watch) -> list[dict[str, Any]]:
    """All that are not done, so many at a time; a row for each, in the order of the list."""
    log = folder / LOG
    before = _ended(log)
    found = {job.name: before[_place(job)][1] for job in jobs if _is_done(job, before)}
    waiting = deque(job for job in jobs if job.name not in found)
    if found:
        watch.say(f"{len(found):,} of {len(jobs):,} fits are done already")
    known = set(found)
    running: dict[str, _Running] = {}
    with _stopping(running):
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                running[job.name] = _Running(job, min(workers, len(jobs) - len(known)))
                watch.say(f"{job.name}: begun, {job.line}")
            for name in [name for name, one in running.items() if one.process.poll() is not None]:
                one = running.pop(name)
                found[name] = ended = one.ended()
                _note(log, one.job, ended)
                how = f"done in {ended.seconds:,.0f} s" if ended.code == 0 else f"failed: {ended.reason}"
                watch.say(f"{name}: {how}")
                watch.progress("sweep", len(found), len(jobs))
            time.sleep(POLL_SECONDS)
    return [_row(job, found[job.name], job.name in known) for job in jobs]


class _Running:
    """A fit in a process of its own."""

    def __init__(self, job: Job, workers: int) -> None:
        self.job, self._began = job, time.monotonic()
        threads = str(max(1, settings.threads().value // workers))
        env = {"TOPWORK_THREADS": threads, "OMP_NUM_THREADS": threads, **os.environ}
        self._heard: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(  # Ctrl-C reaches us alone, and we tell it once
            job.command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._heard,
            start_new_session=True,
        )  # fmt: skip

    def ended(self) -> Ended:
        """How it ended; what it said last is why."""
        code, seconds = self.process.wait(), time.monotonic() - self._began
        self._heard.seek(0)
        said = [line.strip() for line in self._heard.read().decode(errors="replace").splitlines() if line.strip()]
        self._heard.close()
        if code == 0:
            return Ended(0, seconds)
        last = said[-1].removeprefix("topwork: ") if said else ""
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        return Ended(code, seconds, last or ended)


@contextlib.contextmanager
def _stopping(running: Mapping[str, _Running]) -> Iterator[None]:
    """Whatever ends the sweep ends its fits, which write their checkpoints first."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if main else None
    try:
        yield
    except BaseException:
        for one in running.values():
            one.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        for one in running.values():
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                one.process.kill()
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _words(spec: Mapping[str, Any]) -> Iterator[str]:
    """Options as words of a command line, in a fixed order."""
    yield spec["data"]
    for key in sorted(spec.keys() - set(OURS)):
        flag, value = f"--{key.replace('_', '-')}", spec[key]
        if isinstance(value, list) and key == "steps":
            value = ",".join(map(str, value))
        if value is True:
            yield flag
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                yield from (flag, str(one))


def _sayable(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, (str, int, float)) for one in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _place(job: Job) -> str:
    return str(job.out.absolute())


def _is_done(job: Job, before: Mapping[str, tuple[str, Ended]]) -> bool:
    command, ended = before.get(_place(job), ("", Ended(1, 0)))
    return command == job.line and ended.code == 0 and (job.out / MARKER).exists()


def _ended(log: Path) -> dict[str, tuple[str, Ended]]:
    """Command and end of the last run for every place; a line that was cut off is none."""
    found: dict[str, tuple[str, Ended]] = {}
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{log} cannot be read: {error}. Remove it to begin anew") from error
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            ended = Ended(int(said["code"]), float(said["seconds"]), str(said["reason"]))
            found[said["folder"]] = (said["command"], ended)
    return found


def _note(log: Path, job: Job, ended: Ended) -> None:
    line = {"name": job.name, "command": job.line, "folder": _place(job), "code": ended.code,
            "seconds": round(ended.seconds, 2), "reason": ended.reason}  # fmt: skip
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise explain(error, log) from error


def _row(job: Job, ended: Ended, known: bool) -> dict[str, Any]:
    """One line of the table, as plain JSON."""
    row = {"name": job.name, "folder": str(job.out), "state": "known" if known else "done", "seconds": ended.seconds}
    if ended.code:
        return {**row, "state": "failed", "code": ended.code, "reason": ended.reason}
    path = job.out / "report.json"
    report = json.loads(path.read_bytes() if path.exists() else contents(job.out, path.name))  # an encrypted one
    measure = "map" if report["multilabel"] else "accuracy"
    kept = [step["name"] for step in report["steps"] if step["kept"]]
    return {**row, "measure": measure, "metric": report["metrics"][measure], "step": kept[-1] if kept else ""}
