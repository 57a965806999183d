"""One forward pass per distinct content, and none for what any earlier run has seen.

    content -> store: features/CARD/ENGINE -> x        known: read
    content -> file -> crop -> engine -> x -> store    new: threads, each with whole batches of its own; of several
                                                       processes each takes its share, and reads the rest from the store
                                                       (where machines share a store: what it could claim)

Batches always have the same size (the last one is filled up with black), so that the bits of a feature do not depend
on its company: a run that was killed and resumed gives what an undisturbed one gives. What is finished is written every
quarter of a second; Ctrl-C stops the engine inside its batch. Texts have a pass of their own: `texts.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes, settings
from topwork.errors import BadSetting
from topwork.features import Engine, engines
from topwork.features.contents import distinct
from topwork.features.matrix import Matrix
from topwork.features.pixels import Loader
from topwork.features.remembering import Passed, claimed, collect
from topwork.features.sharing import share
from topwork.store import Store, claims_of
from topwork.types import WRITTEN, Backbone, Choice, Dataset, Features, Preprocess, Progress, Skipped, silent

CPU_PIXELS, GPU_PIXELS = 2 * 224**2, 128 * 224**2  # per batch; MobileNetV2: 8 x 224 px take a fifth longer than 2
CPU_MOST, GPU_MOST = 64, 1024  # images per batch
AHEAD = 64  # images to work on while the store writes to a slow disk
MANY = 24  # images from which a second engine is measured, where torch is loaded anyway; the ladder's slices have 32


def extract(
    dataset: Dataset,
    backbone: Backbone,
    cache: Store | None,
    *,
    batch_size: int | None = None,
    engine: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
) -> Features:
    """Features of every item that can be read."""
    if dataset.modality in WRITTEN:
        from topwork.features.texts import extract_texts

        return extract_texts(
            dataset, backbone, cache, batch_size=batch_size, engine=engine, threads=threads, progress=progress
        )
    began = time.perf_counter()
    card = backbone.card
    contents = distinct(dataset)
    matrix = Matrix(contents, card.features)
    known = threads or settings.threads().value
    pick = engines.Pick(**processes.decided(lambda: dataclasses.asdict(engines.pick(card, engine, cache, known))))
    batch = choose_batch(card.preprocess, pick.device, batch_size)
    namespace = f"features/{card.key}/{pick.key}"
    new = matrix.recall(cache, namespace)
    with claimed(cache, contents, namespace) if new else contextlib.nullcontext() as waited:
        if waited:
            new = matrix.recall(cache, namespace)
        some = processes.agreed(bool(new))[0]  # others may lie on another machine, with a cache of their own
        new = processes.decided(lambda: new)
        reasons: dict[int, str] = {}
        received = 0  # from other machines
        progress("extract", matrix.filled, len(contents.keys))
        if some:
            loader = Loader(dataset, contents, card.preprocess)
            first, looked_up = new[: batch.value], pick.key
            many = len(new) == len(contents.keys) >= MANY  # one set never has features of two engines
            runner, pick = _started(pick, backbone, cache, lambda: loader.load(first, len(first)).crops, many)
            if pick.key != looked_up:
                namespace = f"features/{card.key}/{pick.key}"
                matrix = Matrix(contents, card.features)
                new = processes.decided(lambda: matrix.recall(cache, namespace))
                batch = choose_batch(card.preprocess, pick.device, batch_size)

            def work(parts: Iterable[list[int]]) -> dict[int, str]:
                passed = _passes(loader, runner, pick.workers, parts, batch.value, hoard=claims_of(cache) is None)
                with contextlib.closing(passed) as passes:
                    return collect(passes, matrix, cache, namespace, progress)

            def compute(wanted: list[int]) -> dict[int, str]:
                nonlocal received
                part = batch.value * pick.workers
                with loader.ahead(wanted):
                    missing, more = share(cache, namespace, matrix, wanted, work, part, part, progress)
                received += more
                return missing

            if cache is None or processes.count() == 1:
                reasons = compute(new)
            else:
                reasons = compute(new[processes.rank() :: processes.count()])
                processes.barrier()
                rest = [u for u in matrix.recall(cache, namespace) if u not in reasons]
                reasons |= compute(rest)  # what others could not read, or could not leave in a store that we share
                if claims_of(cache) is not None:
                    received = sum(processes.gathered(received))
    x, rows = matrix.finish()
    return Features(
        x=x,
        rows=rows,
        key=f"{card.key}/{pick.key}",
        engine=str(pick),
        seconds=time.perf_counter() - began,
        computed=max(0, len(new) - len(reasons) - received),
        cached=len(contents.keys) - len(new) + received,
        skipped=contents.skipped + _skipped(dataset, contents.index, reasons),
        choices=(Choice("engine", str(pick), pick.reason), batch),
    )


def _started(
    pick: engines.Pick, backbone: Backbone, cache: Store | None, sample: Callable[[], NDArray[np.uint8]], many: bool
) -> tuple[Engine, engines.Pick]:
    """The engine; of several processes the first one measures."""
    found: list[Engine] = []

    def begin() -> dict[str, Any]:
        runner, chosen = engines.start(pick, backbone, cache, sample, many)
        found.append(runner)
        return dataclasses.asdict(chosen)

    chosen = engines.Pick(**processes.decided(begin))
    if not found:
        settled = dataclasses.replace(chosen, final=True)
        found.append(engines.start(settled, backbone, None, sample, many=False)[0])
    return found[0], chosen


def choose_batch(preprocess: Preprocess, device: str, asked: int | None = None) -> Choice:
    """Images per batch, by a fixed rule: the bits of a feature may depend on it."""
    if asked is not None:
        if asked < 1:
            raise BadSetting(f"--batch-size {asked}. Expected 1 or more")
        return Choice("batch size", asked, "as asked")
    side = preprocess.crop_px
    pixels, most, where = (
        (CPU_PIXELS, CPU_MOST, "a processor's cache") if device == "cpu" else (GPU_PIXELS, GPU_MOST, "the GPU")
    )
    size = min(most, max(1, pixels // side**2))
    return Choice("batch size", size, f"as many images of {side} x {side} px as {where} works on fastest")


def _passes(
    loader: Loader, engine: Engine, workers: int, parts: Iterable[list[int]], size: int, hoard: bool = True
) -> Generator[Passed, None, None]:
    """Load and run batches in threads, a few ahead; results come in order.

    `hoard`: nobody else could do what waits here.
    """

    def work(wanted: list[int]) -> Passed:
        batch = loader.load(wanted, size)
        return batch, engine.forward(batch.crops)[: len(batch.contents)]

    ahead: deque[Future[Passed]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract")
    try:
        for wanted in _batches(parts, size):
            ahead.append(pool.submit(work, wanted))
            if len(ahead) > (max(2 * workers, AHEAD // size) if hoard else 2 * workers):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BaseException:
        loader.stop()
        engine.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(parts: Iterable[list[int]], size: int) -> Iterator[list[int]]:
    """Whole batches, and what is left at the end."""
    left: list[int] = []
    for part in parts:
        left += part
        whole = len(left) - len(left) % size
        yield from (left[start : start + size] for start in range(0, whole, size))
        left = left[whole:]
    if left:
        yield left


def _skipped(dataset: Dataset, index: NDArray[np.int64], reasons: dict[int, str]) -> tuple[Skipped, ...]:
    items = dataset.table["item"]
    rows = np.flatnonzero(np.isin(index, list(reasons)))
    return tuple(Skipped(items[int(row)].as_py(), reasons[int(index[row])]) for row in rows)
