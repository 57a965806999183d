"""Proof that the saved folder answers as the trained model did: a new process, the raw items, every label the same.

    python -m topwork.artefact.proof FOLDER       standard input: items, and what is known of remote ones, one JSON line
                                                  output: rows of float32 (N, C)

Items are paths of images, or the texts themselves. The new process knows nothing but these and the folder; the
comparison happens here. It must hold that

    label_saved = label_trained for every item    (multi-label: the same set of labels above 0.5)
    max |p_saved - p_trained| <= TOLERANCE        (the same labels at another temperature are not the same model)
    of numbers: max |z_saved - z_trained| <= TOLERANCE times the standard deviation of z_trained, or ROUNDINGS of the
    largest, where so much is lost when float32 adds what is small to what is large

Two sums of the same numbers in another order differ by about 1e-6, so where two labels lie within NOISE of each other,
in both answers, neither is better: such ties are counted and said, not hidden. NOISE is fixed beforehand; with the
measured difference in its place, every disagreement would excuse itself.

Answers are remembered by model.onnx, the reader's files, contents, versions and machine; the comparison is always made
afresh.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from topwork.artefact import bundle
from topwork.artefact.texts import shortened
from topwork.errors import ProofFailed
from topwork.store import Store, remote
from topwork.types import VERSION, Progress, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE = 1e-4  # probabilities this close are a tie
ROUNDINGS = 8  # of float32, at the largest number
TOLERANCE = 1e-3  # largest difference that is still the same model
LARGEST_BYTES = 64_000_000  # answers beyond this size are not remembered


@dataclass(frozen=True)
class Proof:
    """How a saved model compared with the trained one."""

    items: int
    ties: int  # items whose two best labels are equally probable and came in another order
    max_difference: float  # of any probability; of numbers: in standard deviations of what the model says
    seconds: float
    reused: bool  # the answers were known from before; the comparison is new
    modality: str = "image"
    numeric: bool = False

    @property
    def agreement(self) -> float:
        """Share of items with the same label, ties not counted as the same."""
        return (self.items - self.ties) / self.items

    @property
    def fact(self) -> str:
        """What was shown, without how long it took: the same for the same model."""
        if self.numeric:
            return (
                f"same number for {self.items:,} of {self.items:,} {self.modality}s, largest difference "
                f"{self.max_difference:.1e} standard deviations"
            )
        tied = f" ({self.ties} more are ties within {NOISE:g})" if self.ties else ""
        return (
            f"same label for {self.items - self.ties:,} of {self.items:,} {self.modality}s{tied}, "
            f"largest probability difference {self.max_difference:.1e}"
        )

    @property
    def text(self) -> str:
        """One line for the terminal."""
        how = (
            f"asked before for these bytes and {self.modality}s"
            if self.reused
            else f"a new process, {self.seconds:.1f} s"
        )
        return f"{self.fact} ({how})"


def prove(
    folder: Path,
    items: Sequence[str],
    expected: NDArray[np.float32],
    *,
    contents: Sequence[bytes] | None = None,
    store: Store | None = None,
    progress: Progress = silent,
    tolerance: float = TOLERANCE,
) -> Proof:
    """Compare the saved model with expected probabilities (N, C); ProofFailed if it is not the same model.

    With the items' content hashes and a store, answers that these bytes gave to these items are not asked for again.
    """
    began = time.monotonic()
    manifest = bundle.read(folder)
    shape = (len(items), len(manifest["labels"]))
    if expected.shape != shape or not len(items):
        raise ProofFailed(f"Nothing to compare: probabilities of shape {expected.shape} for {shape} items and labels")
    key = _key(manifest, contents) if contents is not None else b""
    multilabel, numeric = manifest["multilabel"], manifest["head"]["activation"] == "identity"
    unit = _unit(expected, tolerance) if numeric else np.float32(1)
    answers, expected = _remembered(store, key, shape) if store is not None and key else None, expected / unit
    reused = answers is not None and _same(answers / unit, expected, multilabel, tolerance)  # else asked again
    if answers is None or not reused:
        answers = _ask(folder, items, shape, progress, _modality(manifest))
        if store is not None and key and answers.nbytes <= LARGEST_BYTES:
            store.put_many("proof", [(key, answers.tobytes())])
    answers = answers / unit
    other, tied = disagreement(answers, expected, multilabel)
    if not _same(answers, expected, multilabel, tolerance):
        complaint = _other_numbers if numeric else _complaint
        raise ProofFailed(complaint(answers * unit, expected * unit, other, items, manifest["labels"], tolerance))
    worst = float(np.abs(answers - expected).max())
    seconds = time.monotonic() - began
    return Proof(len(items), int(tied.sum()), worst, seconds, reused, _modality(manifest), numeric)


def _modality(manifest: Mapping[str, Any]) -> str:
    return manifest.get("modality", "image")


def _same(answers: NDArray[np.float32], expected: NDArray[np.float32], multilabel: bool, tolerance: float) -> bool:
    """Whether labels agree and probabilities are close; not a number is not close."""
    other, _ = disagreement(answers, expected, multilabel)
    return not other.any() and bool(np.abs(answers - expected).max() <= tolerance)


def disagreement(
    answers: NDArray[np.float32], expected: NDArray[np.float32], multilabel: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) items that got another label, and (N,) items that did but were a tie in both answers."""
    if multilabel:
        flipped = (answers > 0.5) != (expected > 0.5)  # (N, C)
        near = (np.abs(answers - 0.5) <= NOISE) & (np.abs(expected - 0.5) <= NOISE)
        return (flipped & ~near).any(1), flipped.any(1) & ~(flipped & ~near).any(1)
    rows = np.arange(len(answers))
    said, meant = answers.argmax(1), expected.argmax(1)  # (N,)
    gap_said, gap_meant = answers[rows, said] - answers[rows, meant], expected[rows, meant] - expected[rows, said]
    near = (gap_said <= NOISE) & (gap_meant <= NOISE)
    return (said != meant) & ~near, (said != meant) & near


def _complaint(
    answers: NDArray[np.float32],
    expected: NDArray[np.float32],
    other: NDArray[np.bool_],
    items: Sequence[str],
    labels: Sequence[str],
    tolerance: float,
) -> str:
    difference = np.abs(answers - expected)  # (N, C)
    row = int((difference.max(1) + other).argmax())  # another label first, then the largest difference
    said, meant = (f"{labels[p[row].argmax()]} {p[row].max():.4f}" for p in (answers, expected))
    worst = difference.max()
    item = shortened(items[row], 300)
    return (
        f"The saved model is not the trained one: {int(other.sum()):,} of {len(items):,} labels differ, the largest "
        f"probability difference is {worst:.1e} (allowed {tolerance:g}); {item}: saved {said}, trained {meant}"
    )


def _other_numbers(
    answers: NDArray[np.float32],
    expected: NDArray[np.float32],
    _other: NDArray[np.bool_],
    items: Sequence[str],
    labels: Sequence[str],
    tolerance: float,
) -> str:
    difference = np.abs(answers - expected)[:, 0]  # (N,)
    row, allowed = int(difference.argmax()), tolerance * _unit(expected, tolerance)
    said, meant = (f"{labels[0]} {z[row, 0]:.6g}" for z in (answers, expected))
    count = int((difference > allowed).sum())
    return (
        f"The saved model is not the trained one: {count:,} of {len(items):,} numbers differ by more than "
        f"{allowed:.2g}; {shortened(items[row], 300)}: saved {said}, trained {meant}"
    )


def _unit(expected: NDArray[np.float32], tolerance: float) -> np.float32:
    """What differences of numbers are measured in: how far they lie from each other, as far as float32 can tell."""
    finest = ROUNDINGS * np.finfo(np.float32).eps * float(np.abs(expected).max()) / tolerance
    return np.float32(max(float(expected.std(dtype=np.float64)), finest) or 1.0)


def _ask(
    folder: Path, items: Sequence[str], shape: tuple[int, int], progress: Progress, modality: str
) -> NDArray[np.float32]:
    """(N, C) probabilities from a new process, which dies when this one does: its standard input ends."""
    answers = np.empty(shape, "<f4")  # (N, C)
    command = [sys.executable, "-P", "-m", __spec__.name, str(folder)]
    with (
        tempfile.TemporaryFile() as errors,  # a file takes any length without a reader
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            done = _exchange(child.stdin, child.stdout, items, answers, progress)
            code = child.wait() if done == len(items) else 1
        finally:  # Ctrl-C as well: nothing is left running
            child.kill()
            child.wait()
        if code:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines() or ["it ended without a word"]
            raise ProofFailed(
                f"The saved model could not be asked in a new process ({modality} {done + 1:,}): {said[-1]}"
            )
    return answers


def _exchange(
    to: IO[bytes], back: IO[bytes], items: Sequence[str], answers: NDArray[np.float32], progress: Progress
) -> int:
    """Send the items, fill in the answers as they come; how many came."""
    try:
        to.write(json.dumps([list(items), remote.handover(items)]).encode() + b"\n")
        to.flush()
    except BrokenPipeError:
        return 0
    for i in range(len(items)):
        row = back.read(answers[i].nbytes)
        if len(row) < answers[i].nbytes:
            return i
        answers[i] = np.frombuffer(row, "<f4")
        progress("proof", i + 1, len(items))
    return len(items)


def _key(manifest: dict[str, Any], contents: Sequence[bytes]) -> bytes:
    """Everything that an answer depends on."""
    import onnxruntime

    files = ["model.onnx", *manifest.get("reader", [])]
    facts = [[manifest["files"][file]["sha256"] for file in files], manifest["preprocess"]]
    facts += [platform.node(), platform.machine()]
    versions = [VERSION, onnxruntime.__version__, *_readers(_modality(manifest))]
    hashed = hashlib.sha256(json.dumps([facts, versions]).encode())
    hashed.update(b"".join(contents))
    return hashed.digest()


def _readers(modality: str) -> list[str]:
    """Versions of what reads the items."""
    if modality == "image":
        import PIL

        return [PIL.__version__]
    try:
        return [unicodedata.unidata_version, importlib.metadata.version("tokenizers")]
    except importlib.metadata.PackageNotFoundError:
        return [unicodedata.unidata_version]


def _remembered(store: Store, key: bytes, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    (value,) = store.get_many("proof", [key])
    if value is None or len(value) != 4 * shape[0] * shape[1]:
        return None
    return np.frombuffer(value, "<f4").reshape(shape)


def _answer() -> None:
    """The new process: items in, rows of probabilities out."""
    import signal
    import threading

    from topwork.artefact.model import load
    from topwork.types import Skipped

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent decides
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the numbers
    items, known = json.loads(sys.stdin.buffer.readline())
    remote.take_over(known)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for row in load(sys.argv[1]).rows(items):
        if isinstance(row, Skipped):
            sys.exit(f"{row.item}: {row.reason}")
        out.write(row.astype("<f4").tobytes())
        out.flush()


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing ever comes: returns when the parent closes its end, by will or by death
    os._exit(1)


if __name__ == "__main__":
    _answer()
