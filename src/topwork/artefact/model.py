"""A saved model: raw pixels to labelled probabilities, with numpy, Pillow and onnxruntime alone.

    model = load("models/photos")
    model.predict("new.jpg").label                      # also bytes, PIL images, arrays, and lists of them
    for answer in model.stream(paths): ...              # Prediction or Skipped, in order

Every image is one forward pass of its own: its answer does not depend on what else is in the list, sizes may differ,
and a batch would be slower: its activations leave the processor's cache (mobilenetv2_100, onnxruntime 1.31, one thread:
3.9 ms of processor time an image alone, 4.5 in a batch of 8, 5.4 in one of 32). Several run at once, a thread each.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import settings
from topwork.artefact import bundle
from topwork.artefact.pixels import EXPECTED, is_single, name_of, pixels
from topwork.errors import BadData, BadSetting, BadWeights, StoreError
from topwork.types import Card, Skipped

if TYPE_CHECKING:
    import os

    import onnxruntime as ort
    from numpy.typing import NDArray

SURE = 0.5  # multi-label: labels above this probability are given


@dataclass(frozen=True)
class Prediction:
    """What a model says of one input."""

    input: str  # its path, or "input 3"
    label: str  # the most probable one
    probability: float
    top: tuple[tuple[str, float], ...]  # the most probable labels, best first
    labels: tuple[str, ...] | None = None  # multi-label only: all labels with a probability above 0.5

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        record = {"input": self.input, "label": self.label, "probability": self.probability}
        record["top"] = [[label, p] for label, p in self.top]
        return record if self.labels is None else {**record, "labels": list(self.labels)}


@dataclass(frozen=True, eq=False)
class Model:
    """An opened artefact. Safe to use from several threads."""

    folder: Path
    manifest: Mapping[str, Any]  # what model.json holds
    threads: int  # images that run side by side

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}, {self.task}, {len(self.labels)} labels)"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(self.manifest["labels"])

    @property
    def task(self) -> str:
        """What was learned: "image-classification"."""
        return self.manifest["task"]

    @property
    def multilabel(self) -> bool:
        """Whether an input may have several labels at once."""
        return self.manifest["multilabel"]

    @cached_property
    def card(self) -> Card:
        """Facts about the backbone."""
        return bundle.card_of(self.manifest)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The numbers of report.json."""
        path = self.folder / "report.json"
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is missing or damaged; the model itself can be used without it") from error

    @cached_property
    def session(self) -> ort.InferenceSession:
        """The graph, ready to run."""
        from topwork.nn.session import session

        opened = session(self.folder / "model.onnx", threads=1)
        width = opened.get_outputs()[0].shape[-1]
        if width != len(self.labels):
            raise BadWeights(f"{self.folder}: model.onnx has {width} classes, model.json {len(self.labels)} labels")
        return opened

    def predict(self, x: Any, top: int = 5) -> Any:
        """What the model says of one input (a Prediction) or of several (a list); an unreadable one raises BadData."""
        answers = [_or_raise(answer) for answer in self.stream([x] if is_single(x) else x, top=top)]
        return answers[0] if is_single(x) else answers

    def stream(self, inputs: Iterable[Any], top: int = 5) -> Iterator[Prediction | Skipped]:
        """An answer for each input, in order, while later ones are being worked on; unreadable ones are Skipped."""
        if top < 1:
            raise BadSetting(f"top is {top}; expected at least 1")
        return (
            row if isinstance(row, Skipped) else self._prediction(name, row, top) for name, row in self._named(inputs)
        )

    def probabilities(self, x: Any) -> NDArray[np.float32]:
        """(N, C) probabilities of several inputs, or of one (N = 1); an unreadable one raises BadData."""
        rows = [_or_raise(row) for row in self.rows([x] if is_single(x) else x)]
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)  # (N, C)

    def rows(self, inputs: Iterable[Any]) -> Iterator[NDArray[np.float32] | Skipped]:
        """(C,) probabilities of each input, in order; unreadable ones are Skipped."""
        return (row for _, row in self._named(inputs))

    def features(self, inputs: Iterable[Any]) -> Iterator[NDArray[np.float32] | Skipped]:
        """(D,) what the head sees of each input, in order; unreadable ones are Skipped."""
        return (row for _, row in self._named(inputs, "features"))

    def _named(
        self, inputs: Iterable[Any], output: str = "probabilities"
    ) -> Iterator[tuple[str, NDArray[np.float32] | Skipped]]:
        try:
            items = enumerate(inputs, 1)
        except TypeError as error:
            raise BadData(
                f"a {type(inputs).__name__} is not an image. Expected {EXPECTED}, or a list of them"
            ) from error
        _ = self.session  # opened once, before the threads ask for it
        return _side_by_side(lambda numbered: self._answer(numbered, output), items, self.threads)

    def _answer(self, numbered: tuple[int, Any], output: str) -> tuple[str, NDArray[np.float32] | Skipped]:
        name = name_of(numbered[1], numbered[0])
        try:
            image = pixels(numbered[1], self.card.preprocess.decode_px)  # (H, W, 3)
        except BadData as error:
            return name, Skipped(name, str(error))
        answer: Any = self.session.run([output], {"pixels": image[None]})[0]  # (1, C), or (1, D)
        return name, answer[0]

    def _prediction(self, name: str, row: NDArray[np.float32], top: int) -> Prediction:
        order = np.argsort(-row, kind="stable")
        labels = self.labels
        best = tuple((labels[i], float(row[i])) for i in order[:top])
        sure = tuple(labels[i] for i in order if row[i] > SURE) if self.multilabel else None
        return Prediction(name, *best[0], best, sure)


def load(folder: str | os.PathLike[str], threads: int | None = None) -> Model:
    """Open the folder that `fit` wrote, after its files have been compared with their checksums."""
    folder = Path(folder)
    manifest = bundle.read(folder)
    model = Model(folder, manifest, threads or settings.threads().value)
    try:
        _ = model.labels, model.task, model.multilabel, model.card
    except (KeyError, TypeError) as error:
        raise StoreError(f"{folder / bundle.MARKER} is damaged: {error}. Fit again") from error
    return model


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
