"""The words that rooms share: frozen records, no behaviour beyond what keeps them honest.

Letters: B batch, N items, D features, C classes, H W pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VERSION = "0.1.0"  # of the package

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): called often, must be cheap; rooms never print."""

Track = Callable[[str, int, Mapping[str, float]], None]
"""track(training, step, numbers): rate and loss terms of a step by name, about once a second for all steps since."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress for those who do not want any."""


def mute(line: str) -> None:
    """A listener for those who do not want to hear."""


def untracked(training: str, step: int, numbers: Mapping[str, float]) -> None:
    """A tracker for those who do not keep the numbers."""


@dataclass(frozen=True)
class Watch:
    """Who is watching a long verb: rooms never print, doors do."""

    progress: Progress = silent
    say: Callable[[str], None] = mute  # one line at a time: choices with their reasons, findings, steps
    track: Track = untracked  # every loss term of every training


@dataclass(frozen=True)
class Choice:
    """An automatic choice that explains itself: `batch size 32: ...`."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value}: {self.reason}"


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, and why."""

    item: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """One thing that an inspection noticed. `rows` are row numbers of the inspected dataset."""

    kind: str  # unreadable, exact_duplicates, near_duplicates, leakage, imbalance, label_names, tiny_class ...
    severity: Literal["error", "warning", "note"]
    message: str  # a sentence with its numbers
    fix: str = ""  # what was done, or what the user can do
    rows: tuple[int, ...] = ()
    items: tuple[str, ...] = ()  # the first few, for reading
    suggest: tuple[str, ...] = ()  # of each row: the label that it should have
    scores: tuple[float, ...] = ()  # of each row: how sure, or how far; the kind says which
    proven: tuple[bool, ...] = ()  # of each row: is there evidence enough to act on it? (): the scores say


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items and their targets: an Arrow table with the history that made it. Never changed in place.

    Columns of `table`:
      item     string            path relative to `root` (or absolute); a text's file and line: "reviews.csv line 12"
      text     string            of texts; two that belong together have modalities.text.PAIR between them
                                 of rows: a JSON object, column -> value or null (modalities.rows)
      target   int32             index into `labels`; multi-label: list<int32>; numeric: float64; null: not labelled
      split    dictionary<string>  "train", "val", "test" or null (not assigned yet)
      group    string            optional: items of one group stay on one side of a split
      content  binary(16)        added by `inspect`: BLAKE2b-128 of the file's bytes, or of the text in UTF-8
      twin     int32             added by `inspect`: same number = same picture or text (exact or near duplicate)
    """

    table: pa.Table
    root: str
    labels: tuple[str, ...]  # numeric: the name of what is measured, alone
    multilabel: bool = False
    name: str = ""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()  # what was guessed, said aloud
    history: tuple[str, ...] = ()  # one line per stage that it went through
    modality: str = "image"  # or "text", or "row": feature columns of a table
    numeric: bool = False  # targets are numbers, not classes

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self):,} items, {len(self.labels)} labels)"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are there."""
        return tuple(self.table.column_names)

    def path(self, row: int) -> str:
        """Where the item of one row lies."""
        return _joined(self.root, self.table["item"][row].as_py())

    def paths(self) -> list[str]:
        """Where all items lie, in row order."""
        return [_joined(self.root, item) for item in self.table["item"].to_pylist()]

    def inputs(self) -> list[str]:
        """What a model is asked with, in row order: paths of images, or the texts or rows themselves."""
        return self.table["text"].to_pylist() if self.modality in WRITTEN else self.paths()

    @property
    def activation(self) -> Activation:
        """What makes a model's answer of its logits."""
        return "identity" if self.numeric else "sigmoid" if self.multilabel else "softmax"

    def targets(self) -> NDArray[Any]:
        """(N,) int32 class indices (-1: not labelled); multi-label: (N, C) bool; numeric: (N,) float64 (NaN: none)."""
        import numpy as np

        column = self.table["target"].combine_chunks()
        if self.numeric:
            return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        if not self.multilabel:
            return column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        matrix = np.zeros((len(self), len(self.labels)), bool)
        lengths = np.diff(column.offsets.to_numpy())
        matrix[np.repeat(np.arange(len(self)), lengths), column.flatten().to_numpy()] = True  # (N, C)
        return matrix

    def rows_of(self, split: str) -> NDArray[np.int64]:
        """Row numbers of one split."""
        import numpy as np
        import pyarrow.compute as pc

        mask = pc.equal(self.table["split"].cast("string"), split).fill_null(False)  # type: ignore[attr-defined]
        return np.flatnonzero(mask.to_numpy(zero_copy_only=False))

    def take(self, rows: Sequence[int] | NDArray[Any], *, history: str | None = None) -> Dataset:
        """These rows, in this order."""
        import pyarrow as pa

        more = (history,) if history else ()
        return dataclasses.replace(self, table=self.table.take(pa.array(rows, pa.int64())), history=self.history + more)

    def with_column(self, name: str, values: Any, *, history: str | None = None) -> Dataset:
        """The same rows with one column added or replaced."""
        more = (history,) if history else ()
        at = self.table.schema.get_field_index(name)
        table = self.table.append_column(name, values) if at < 0 else self.table.set_column(at, name, values)
        return dataclasses.replace(self, table=table, history=self.history + more)

    def replace(self, **changes: Any) -> Dataset:
        """A copy with other fields (`dataclasses.replace`)."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Findings:
    """What an inspection found, and the readable rest as a dataset with `content` and `twin` columns."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)  # counts, sizes, modes, formats: plain JSON


@dataclass(frozen=True)
class Preprocess:
    """Pixels -> what a backbone was trained to see: resize, centre crop, scale to 0..1, (x - mean) / std."""

    resize_px: int  # shorter side after the resize (fit="crop"), or both sides (fit="squash", then equal to crop_px)
    crop_px: int  # side of the centre crop: the backbone sees crop_px x crop_px
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    fit: Literal["crop", "squash"] = "crop"

    @property
    def decode_px(self) -> int:
        """Shorter side below which no JPEG is decoded: at twice the resize, scaled decoding can hardly be told."""
        return 2 * self.resize_px

    @property
    def key(self) -> str:
        """Short hash: a cached feature belongs to exactly one preprocessing."""
        return digest(dataclasses.asdict(self))


Activation = Literal["softmax", "sigmoid", "identity"]

DEFAULTS = {"image": "bundled", "text": "bundled:text_small", "row": "bundled:columns"}
"""The backbone of each modality that is always here."""

WRITTEN = ("text", "row")
"""Modalities whose items are strings that a reader turns into ids and weights, not files."""


@dataclass(frozen=True)
class Card:
    """Facts about a backbone: enough to feed it, to find its weights and to cite it."""

    spec: str  # what a user writes: "bundled", "timm:resnet50.a1_in1k", "local:weights/mobilenetv2_100"
    name: str
    architecture: str
    preprocess: Preprocess
    weights: str  # sha256 of the weights' content
    features: int | None = None  # D
    parameters: int | None = None
    multiply_adds: int | None = None  # per image at the input size
    licence: str = ""
    trained_on: str = ""
    origin: str = ""  # where the weights come from
    modality: str = "image"  # what goes in: image, text, row
    languages: tuple[str, ...] = ()  # ISO 639-1 codes of those that a text backbone knows; (): nobody has said

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", tuple(self.languages))  # JSON knows lists only

    @property
    def key(self) -> str:
        """Short hash of architecture, weights and preprocessing: what a cached feature depends on."""
        return digest([self.architecture, self.weights, self.preprocess.key])


class Backbone(Protocol):
    """A pretrained trunk that maps normalised pixels to features.

    One of texts also has `reader` (modalities.text.Reader), and its graph and module map what that gives:
    ids int64 (W, L), weights float32 (W, L), 0 where a window has ended -> features float32 (W, D).
    """

    @property
    def card(self) -> Card:
        """Facts; costs no heavy import."""
        ...

    def graph(self) -> bytes:
        """The trunk as a self-contained ONNX model: images float32 (N, 3, S, S), normalised -> features float32 (N, D).

        Comes from disk where it was exported before; otherwise exports it (which may need torch).
        """
        ...

    def module(self) -> Any:
        """The trunk as a torch.nn.Module in eval mode: the same mapping (needs the `train` extra)."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """What a frozen trunk sees: row i of `x` belongs to row `rows[i]` of the dataset."""

    x: Any  # (N, D) float32; n-grams: a scipy.sparse.csr_array
    rows: NDArray[np.int64]  # (N,)
    key: str  # Card.key and engine
    engine: str  # "onnxruntime 1.31 CPU, 2 threads"
    seconds: float  # wall time of the extraction
    computed: int  # forward passes run now
    cached: int  # distinct contents that were already known
    skipped: tuple[Skipped, ...] = ()
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, eq=False)
class Head:
    """The replaced top. `logits` and the ONNX form live in `nn.heads`.

    linear:  z = x @ weight + bias                       arrays: weight (D, C), bias (C,)
    knn:     z = log of the smoothed share of each class among the k most similar training items (cosine)
             arrays: bank (M, D) unit rows, votes (M, C) float32
    """

    kind: Literal["linear", "knn"]
    arrays: Mapping[str, NDArray[np.float32]]
    activation: Activation = "softmax"  # identity: z is the number itself
    temperature: float = 1.0  # probabilities = activation(z / temperature)
    method: str = ""  # spec with the chosen settings, e.g. "logistic(l2=0.1)"
    settings: Mapping[str, float] = field(default_factory=dict)
    """Numbers the form needs: {"k": 5}; of numbers {"low": -2.1, "high": 1.8}: where nine of ten truths lie about z."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A head solved on frozen features, with its out-of-fold logits."""

    head: Head
    held_out: NDArray[np.float32]  # (N, C): row i was predicted by a head that never saw row i's fold
    log_loss: float  # mean over the held-out rows, natural log; of numbers: squared error over their variance
    reason: str  # one line: what was tried, what was chosen


@dataclass(frozen=True)
class Metric:
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # items that it was measured on

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities, or numbers, beside the truth."""

    probabilities: NDArray[np.float32]  # (N, C); of numbers (N, 1): what the model says
    targets: NDArray[Any]  # (N,) int, (N, C) bool, or (N,) float
    labels: tuple[str, ...]
    items: Sequence[str] = ()
    multilabel: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the targets are numbers."""
        return self.targets.dtype.kind == "f"

    @property
    def activation(self) -> Activation:
        """What made them of logits."""
        return "identity" if self.numeric else "sigmoid" if self.multilabel else "softmax"


@dataclass(frozen=True, eq=False)
class Step:
    """One rung of the ladder: a backbone, a head, how well it does on items it has not seen, what it cost."""

    name: str  # "majority", "pixels", "probe"
    spec: str  # "bundled + logistic(l2=0.1)"
    metrics: Mapping[str, Metric]
    seconds: float
    kept: bool  # it paid over the best step before it; the last one kept is the model
    verdict: str  # in words: "+21.3 points [18.0, 24.6] over pixels, p < 0.001"
    gain: Mapping[str, Any] | None = None  # the same in numbers: over, difference, low, high, p_value, surer, metric


def _joined(root: str, item: str) -> str:
    """A path below a root; an address (s3://bucket/1.jpg) and an absolute path stay as they are."""
    return item if "://" in item else os.path.join(root, item)


def digest(value: Any) -> str:
    """16 hex digits of BLAKE2b over a JSON value: a name for a setting that is stable across machines."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
