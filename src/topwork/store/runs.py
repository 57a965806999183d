"""A training that survives: checkpoints that are whole or absent, in a folder that belongs to one set of settings.

    RUN/run.json                    settings, what was decided, checkpoints newest first; replaced at once
    RUN/state-STEP.safetensors      tensors of a step, of which the last two are kept, each with its hash in run.json
    RUN/log.jsonl                   a line per step: rate, seconds, loss terms
    RUN/lock                        held while a process works in it

A checkpoint is written under another name, flushed and moved; only then does run.json name it. After SIGKILL the newest
whole one is taken up and the log is cut back to it. A run of other settings or data is refused, with what differs.
Where encryption is asked for the checkpoints are sealed (encryption.py); run.json and the log hold numbers and hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.errors import BadSetting, StoreError
from topwork.store.atomic import explain, write_file
from topwork.store.encryption import NotOurs
from topwork.store.own_files import keep, kept

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KEPT = 2  # checkpoints
MARKER = "run.json"


class Run:
    """An open run folder; `close` lets go of it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], save_seconds: float = 60.0) -> None:
        """Open or begin; raises BadSetting where the folder holds a run of other settings."""
        self.folder, self.save_seconds = folder, save_seconds
        self._settings = json.loads(json.dumps(settings))
        check(folder, settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
            kept = _read(folder)
        except OSError as error:
            raise error if isinstance(error, StoreError) else explain(error, folder) from error
        self.decided: dict[str, Any] = kept.get("decided", {})
        self._checkpoints: list[dict[str, Any]] = kept.get("checkpoints", [])
        self.step, self.seconds = 0, 0.0  # of what `load` gives back
        self._saved = self._began = time.monotonic()
        if not kept:
            self._write()

    def decide(self, **facts: Any) -> None:
        """Write down what was measured or chosen, for all who go on with this run."""
        self.decided |= facts
        self._write()

    def load(self) -> dict[str, Tensor] | None:
        """Tensors of the newest whole checkpoint, with `step` and `seconds` set; None at the very beginning."""
        from safetensors.torch import load

        for entry in list(self._checkpoints):
            with contextlib.suppress(OSError, NotOurs):
                data = (self.folder / entry["file"]).read_bytes()
                if _hash(data) == entry["hash"]:
                    data = kept(_place(entry["file"]), data)
                    self.step, self.seconds = entry["step"], entry["seconds"]
                    self._cut_log()
                    self._began = time.monotonic()
                    return load(data)
            self._checkpoints.remove(entry)
        self.step, self.seconds = 0, 0.0
        self._cut_log()
        self._began = time.monotonic()
        return None

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self.save_seconds

    def elapsed(self) -> float:
        """Seconds of training up to now, those before a kill included."""
        return self.seconds + time.monotonic() - self._began

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """A checkpoint: `step` steps are done."""
        from safetensors.torch import save

        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        name = f"state-{step:09}.safetensors"
        data = keep(_place(name), data)
        write_file(self.folder / name, data)
        entry = {"file": name, "step": step, "seconds": self.elapsed(), "hash": _hash(data)}
        self._checkpoints = [entry, *(e for e in self._checkpoints if e["file"] != name)][:KEPT]
        self._write()
        named = {e["file"] for e in self._checkpoints}
        for old in self.folder.glob("state-*.safetensors"):
            if old.name not in named:
                old.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Append lines to the log."""
        try:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
        except OSError as error:
            raise explain(error, self.folder / "log.jsonl") from error

    def read_log(self) -> list[dict[str, Any]]:
        """The log's whole lines."""
        try:
            text = (self.folder / "log.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # the last one may be cut off
                lines.append(json.loads(line))
        return lines

    def curves(self, most: int = 200) -> dict[str, Any]:
        """The log in at most so many points: {"steps": [...], "seconds": [...], "terms": {name: [...]}}.

        A point is the mean over the steps up to its own; terms that a step lacks count as absent, not as zero.
        """
        lines = self.read_log()
        count = min(most, len(lines))
        cuts = [i * len(lines) // count for i in range(count + 1)] if count else [0]
        parts = [lines[start:end] for start, end in itertools.pairwise(cuts)]
        names = dict.fromkeys(name for line in lines for name in line if name not in ("step", "seconds", "rate"))
        return {
            "steps": [part[-1]["step"] + 1 for part in parts],
            "seconds": [part[-1].get("seconds") for part in parts],
            "terms": {name: [_mean([line[name] for line in part if name in line]) for part in parts] for name in names},
        }

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """The run is over and its result stands elsewhere."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut_log(self) -> None:
        """Leave the steps that the checkpoint knows."""
        lines = [line for line in self.read_log() if line.get("step", 0) < self.step]
        write_file(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _write(self) -> None:
        facts = {
            "format": FORMAT,
            "settings": self._settings,
            "decided": self.decided,
            "checkpoints": self._checkpoints,
        }
        write_file(self.folder / MARKER, (json.dumps(facts, indent=1) + "\n").encode())


def check(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there is a run of these settings to go on with; raises BadSetting for one of others. Costs nothing."""
    if folder.exists() and not (folder / MARKER).exists() and (not folder.is_dir() or any(_foreign(folder))):
        raise StoreError(f"{folder} exists and is not a training run (no {MARKER} in it). Choose another --out")
    kept = _read(folder)
    if not kept:
        return False
    was, now = kept["settings"], json.loads(json.dumps(settings))
    other = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if other:
        lines = "; ".join(f"{key}: was {_short(was.get(key))}, is {_short(now.get(key))}" for key in other)
        raise BadSetting(
            f"{folder} holds a training with other settings ({lines}). Run it with what it was begun with, choose "
            f"another --out, or remove {folder} to begin anew"
        )
    return True


def _place(name: str) -> list[bytes]:
    return [b"run", name.encode()]


def _read(folder: Path) -> dict[str, Any]:
    try:
        kept = json.loads((folder / MARKER).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / MARKER} cannot be read ({error}). Remove {folder} to begin anew") from error
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise StoreError(f"{folder} was written by another version of Topwork. Remove it to begin anew")
    return kept


def _foreign(folder: Path) -> list[str]:
    """Files that no killed beginning of a run leaves behind."""
    return [name for name in os.listdir(folder) if name != "lock" and not name.startswith(f".{MARKER}")]


def _locked(folder: Path) -> int | None:
    """One process at a time; the lock goes with the process, however it dies."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return None
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StoreError(f"Another process trains in {folder}. Wait for it, or choose another --out") from error
    return handle


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
