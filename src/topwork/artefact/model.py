"""A saved model: raw pixels, texts or rows to labelled probabilities, with numpy, Pillow and onnxruntime alone.

    model = load("models/photos")
    model.predict("new.jpg").label                      # also bytes, PIL images, arrays, and lists of them
    model.predict("house.jpg").value                    # of a model of numbers, with .low and .high
    for answer in model.stream(paths): ...              # Prediction or Skipped, in order
    load("models/reviews").predict("What a film!")      # of texts: a str is the text, a Path a file that holds one
    load("models/patients").predict({"age": 41})        # of rows: a mapping, or the same as JSON

Every image is one forward pass of its own: its answer does not depend on what else is in the list, sizes may differ,
and a batch would be slower: its activations leave the processor's cache (mobilenetv2_100, onnxruntime 1.31, one thread:
3.9 ms of processor time an image alone, 4.5 in a batch of 8, 5.4 in one of 32). Several run at once, a thread each.
Texts are turned into numbers in blocks of BLOCK where they are all there, and then run one by one, too.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import settings
from topwork.artefact import bundle, pixels, rows, texts
from topwork.artefact.sealed import Seal
from topwork.errors import BadData, BadSetting, BadWeights, StoreError
from topwork.modalities.columns import ColumnsReader
from topwork.modalities.readers import open_reader
from topwork.modalities.redaction import Redaction
from topwork.modalities.text import Reader
from topwork.types import WRITTEN, Card, Skipped

if TYPE_CHECKING:
    import os

    import onnxruntime as ort
    from numpy.typing import NDArray

BLOCK = 32  # texts that one thread reads at once: n-grams cost 1.3 ms a text alone and 0.07 so (banking77)
SURE = 0.5  # multi-label: labels above this probability are given


@dataclass(frozen=True)
class Prediction:
    """What a model says of one input."""

    input: str  # its path, the beginning of a text, or "input 3"
    label: str  # the most probable one; of a model of numbers: what is measured
    probability: float
    top: tuple[tuple[str, float], ...]  # the most probable labels, best first
    labels: tuple[str, ...] | None = None  # multi-label only: all labels with a probability above 0.5
    cut: bool = False  # a text so long that its end was not read
    value: float | None = None  # of a model of numbers, whose probability is that of low to high
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        if self.value is not None:
            told: dict[str, Any] = {"input": self.input, "label": self.label, "value": self.value}
            told |= {"low": self.low, "high": self.high}
            return {**told, "cut": True} if self.cut else told
        record: dict[str, Any] = {"input": self.input, "label": self.label, "probability": self.probability}
        record["top"] = [[label, p] for label, p in self.top]
        if self.labels is not None:
            record["labels"] = list(self.labels)
        return {**record, "cut": True} if self.cut else record


@dataclass(frozen=True)
class _Answer:
    """What the graph said of one input."""

    name: str
    row: Any  # float32 (C,) or (D,); Skipped
    cut: bool = False


_Fed = tuple[dict[str, Any], bool] | BadData
"""One input as the graph takes it, and whether its end is missing; or what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Model:
    """An opened artefact. Safe to use from several threads."""

    folder: Path
    manifest: Mapping[str, Any]  # what model.json holds
    threads: int  # inputs that run side by side
    seal: Seal | None = field(default=None, repr=False)  # of an encrypted one

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}, {self.task}, {len(self.labels)} labels)"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(self.manifest["labels"])

    @property
    def task(self) -> str:
        """What was learned: "image-classification", "text-classification", "tabular-regression"."""
        return self.manifest["task"]

    @property
    def modality(self) -> str:
        """What goes in: "image", "text" or "row"."""
        return self.manifest.get("modality", "image")  # models of the first version have none

    @property
    def multilabel(self) -> bool:
        """Whether an input may have several labels at once."""
        return self.manifest["multilabel"]

    @property
    def numeric(self) -> bool:
        """Whether it gives a number."""
        return self.manifest["head"]["activation"] == "identity"

    def contents(self, file: str) -> bytes:
        """A file of the folder, opened if it is encrypted."""
        return bundle.contents(self.folder, file, self.seal)

    @cached_property
    def card(self) -> Card:
        """Facts about the backbone."""
        return bundle.card_of(self.manifest)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The numbers of report.json."""
        path = self.folder / "report.json"
        try:
            return json.loads(self.contents(path.name))
        except BadWeights:  # an encrypted one that was changed
            raise
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is missing or damaged; the model itself can be used without it") from error

    @cached_property
    def session(self) -> ort.InferenceSession:
        """The graph, ready to run."""
        from topwork.nn.session import session

        graph = bundle.CHECKED[0]
        opened = session(self.folder / graph if self.seal is None else self.contents(graph), threads=1)
        width = opened.get_outputs()[0].shape[-1]
        if width != len(self.labels):
            raise BadWeights(f"{self.folder}: model.onnx has {width} classes, model.json {len(self.labels)} labels")
        return opened

    @cached_property
    def reader(self) -> Reader:
        """What turns texts or rows into the graph's numbers; of models of these."""
        return open_reader(bundle.reader_files(self.folder, self.manifest, self.seal))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that a row should have; () of models of images and texts."""
        return self.reader.names if self.modality == "row" and isinstance(self.reader, ColumnsReader) else ()

    @cached_property
    def redaction(self) -> Redaction | None:
        """What is masked in texts before they are read, as in training; None: nothing."""
        facts = self.manifest.get("redact")
        return Redaction.of_facts(facts) if facts and self.modality == "text" else None

    def is_single(self, x: Any) -> bool:
        """Whether this is one input, not many."""
        return self._kind.is_single(x)

    def predict(self, x: Any, top: int = 5) -> Any:
        """What the model says of one input (a Prediction) or of several (a list); an unreadable one raises BadData."""
        single = self.is_single(x)
        answers = [_or_raise(answer) for answer in self.stream([x] if single else x, top=top)]
        return answers[0] if single else answers

    def stream(self, inputs: Iterable[Any], top: int = 5) -> Iterator[Prediction | Skipped]:
        """An answer for each input, in order, while later ones are being worked on; unreadable ones are Skipped."""
        if top < 1:
            raise BadSetting(f"top is {top}; expected at least 1")
        return (
            one.row if isinstance(one.row, Skipped) else self._prediction(one, top) for one in self._answered(inputs)
        )

    def probabilities(self, x: Any) -> NDArray[np.float32]:
        """(N, C) probabilities of several inputs, or of one (N = 1); an unreadable one raises BadData."""
        rows = [_or_raise(row) for row in self.rows([x] if self.is_single(x) else x)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)  # (N, C)

    def rows(self, inputs: Iterable[Any]) -> Iterator[NDArray[np.float32] | Skipped]:
        """(C,) probabilities of each input, in order, or (1,) its number; unreadable ones are Skipped."""
        return (one.row for one in self._answered(inputs))

    def features(self, inputs: Iterable[Any]) -> Iterator[NDArray[np.float32] | Skipped]:
        """(D,) what the head sees of each input, in order; unreadable ones are Skipped."""
        return (one.row for one in self._answered(inputs, "features"))

    def _answered(self, inputs: Iterable[Any], output: str = "") -> Iterator[_Answer]:
        output = output or ("values" if self.numeric else "probabilities")
        try:
            items = enumerate(inputs, 1)
        except TypeError as error:
            raise BadData(
                f"a {type(inputs).__name__} is not {self._kind.ONE}. Expected {self._kind.EXPECTED}, or a list of them"
            ) from error
        read = self.modality in WRITTEN
        _ = self.session, read and self.reader  # opened once, before the threads ask for it
        size = BLOCK if read and hasattr(inputs, "__len__") else 1
        blocks = iter(lambda: list(islice(items, size)), [])
        answered = _side_by_side(lambda block: self._answers(block, output), blocks, self.threads)
        return chain.from_iterable(answered)

    def _answers(self, block: list[tuple[int, Any]], output: str) -> list[_Answer]:
        if self.redaction is not None:
            block = [(number, _masked(x, self.redaction)) for number, x in block]
        names = [self._kind.name_of(x, number) for number, x in block]
        feeds = self._fed_texts if self.modality in WRITTEN else self._fed_images
        return [
            _Answer(name, Skipped(name, str(fed))) if isinstance(fed, BadData) else self._run(name, output, *fed)
            for name, fed in zip(names, feeds([x for _, x in block]), strict=True)
        ]

    def _run(self, name: str, output: str, fed: dict[str, NDArray[Any]], cut: bool) -> _Answer:
        answer: Any = self.session.run([output], fed)[0]  # (1, C), or (1, D)
        return _Answer(name, answer[0], cut)

    @property
    def _kind(self) -> Any:
        """What knows this modality's inputs."""
        return {"text": texts, "row": rows}.get(self.modality, pixels)

    def _fed_images(self, block: list[Any]) -> Iterator[_Fed]:
        for x in block:
            image = _or_why(pixels.pixels, x, self.card.preprocess.decode_px)  # (H, W, 3)
            yield image if isinstance(image, BadData) else ({"pixels": image[None]}, False)

    def _fed_texts(self, block: list[Any]) -> Iterator[_Fed]:
        if self.modality == "row":
            read = [_or_why(rows.row, x, self.reader) for x in block]
        else:
            read = [_or_why(texts.text, x) for x in block]
        if self.redaction is not None:  # of files and bytes, too; masking twice changes nothing
            read = [self.redaction.text(text) if isinstance(text, str) else text for text in read]
        known = [text for text in read if isinstance(text, str)]
        tokens = self.reader.read(known)
        ends = np.searchsorted(tokens.owner, np.arange(len(known) + 1))  # where the windows of a text begin
        numbers = iter(range(len(known)))
        for text in read:
            if isinstance(text, BadData):
                yield text
                continue
            i = next(numbers)
            ids, weights = tokens.padded(np.arange(ends[i], ends[i + 1]))  # (W, L) all windows
            yield {"ids": ids, "weights": weights}, bool(tokens.cut[i])

    def _prediction(self, answer: _Answer, top: int) -> Prediction:
        row, labels = answer.row, self.labels
        if self.numeric:
            value, about = float(row[0]), self.manifest["calibration"]
            low, high = value + about["low"], value + about["high"]
            return Prediction(answer.name, labels[0], about["band"], (), None, answer.cut, value, low, high)
        order = np.argsort(-row, kind="stable")
        best = tuple((labels[i], float(row[i])) for i in order[:top])
        sure = tuple(labels[i] for i in order if row[i] > SURE) if self.multilabel else None
        return Prediction(answer.name, *best[0], best, sure, answer.cut)


def load(folder: str | os.PathLike[str], threads: int | None = None) -> Model:
    """Open the folder that `fit` wrote, after its files have been compared with their checksums."""
    folder = Path(folder)
    seal = bundle.seal_of(folder)
    manifest = bundle.read(folder, seal)
    model = Model(folder, manifest, threads or settings.threads().value, seal)
    try:
        _ = model.labels, model.task, model.multilabel, model.card
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder / bundle.MARKER} is damaged: {error}. Fit again") from error
    return model


def _masked(x: Any, redaction: Redaction) -> Any:
    """A text, or a pair, without what must not be seen in an answer's name either; anything else as it is."""
    if isinstance(x, str):
        return redaction.text(x)
    return tuple(map(redaction.text, x)) if isinstance(x, tuple) and all(isinstance(part, str) for part in x) else x


def _or_why(read: Callable[..., Any], *given: Any) -> Any:
    """What could be read, or the BadData that says why not."""
    try:
        return read(*given)
    except BadData as error:
        return error


def _or_raise(answer: Any) -> Any:
    if isinstance(answer, Skipped):
        raise BadData(f"{answer.item}: {answer.reason}")
    return answer


def _side_by_side(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Like `map`, with threads that are at most a few items ahead of the reader."""
    items = iter(items)
    first = list(islice(items, 2))
    if len(first) < 2 or workers == 1:
        yield from map(function, chain(first, items))
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    ahead: deque[Future[Any]] = deque()
    try:
        for item in chain(first, items):
            ahead.append(pool.submit(function, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
