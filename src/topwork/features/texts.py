"""Features of texts: one forward pass per distinct window of tokens, and none for what any earlier run has seen.

    text -> reader -> windows -> batches of like length -> engine -> mean over a text's windows -> store

Windows of one length, rounded up (`padded_length`), share batches of one shape, which depends on that length alone; the
last batch of a length is filled up with one of its windows. So the bits of a feature do not depend on its company, and
a run that was killed and resumed gives what an undisturbed one gives.

Three kinds of backbones need no engine: static embeddings are encoded by numpy as fast as a store could be read,
n-grams are a csr matrix, rows of feature columns are features already. None is kept in the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes, settings
from topwork.errors import BadSetting
from topwork.features import engines, text_engines
from topwork.features.contents import Contents, distinct
from topwork.features.matrix import Matrix
from topwork.features.remembering import claimed, collect
from topwork.features.sharing import share
from topwork.modalities.text import Reader, Tokens
from topwork.store import Store, claims_of
from topwork.types import Backbone, Choice, Dataset, Features, Progress, silent

CPU_TOKENS, GPU_TOKENS = 256, 16_384  # of a batch
CPU_MOST, GPU_MOST = 64, 512  # windows of a batch
SLAB = 16_384  # texts that are read and sorted by length at once
CLAIMED = 128  # texts to claim at once, at least, where several machines share a store; they are sorted, too
ENCODED = 2048  # texts that a static embedding reads between two words about how far it is
WINDOWED, CUT = 1, 2  # what is remembered of a long text


def extract_texts(
    dataset: Dataset,
    backbone: Backbone,
    cache: Store | None,
    *,
    batch_size: int | None = None,
    engine: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
) -> Features:
    """Features of every text."""
    began = time.perf_counter()
    reader: Reader = backbone.reader  # type: ignore[attr-defined]
    if engine not in ("auto", *engines.NAMES):
        raise BadSetting(f"No engine '{engine}'. Expected one of: auto, {', '.join(engines.NAMES)}")
    if reader is None:
        raise BadSetting(
            f"Backbone '{backbone.card.spec}' is not fitted yet. It needs the training texts: fitted(texts)"
        )
    contents = distinct(dataset)
    if reader.kind in ("ngrams", "columns"):
        return _counted(dataset, backbone, reader, contents, began, progress)
    if engine == "auto" and hasattr(backbone, "encode"):
        return _encoded(dataset, backbone, contents, began, progress)
    card, inputs = backbone.card, dataset.inputs()
    matrix = Matrix(contents, card.features)
    known = threads or settings.threads().value
    pick = engines.Pick(**processes.decided(lambda: dataclasses.asdict(engines.pick(card, engine, cache, known))))
    batch = choose_batch(pick.device, batch_size)
    namespace = f"features/{card.key}/{pick.key}"
    long = Long(f"reading/{card.key}", contents.keys)
    new = matrix.recall(cache, namespace)
    with claimed(cache, contents, namespace) if new else contextlib.nullcontext() as waited:
        if waited:
            new = matrix.recall(cache, namespace)
        some = processes.agreed(bool(new))[0]  # others may lie on another machine, with a cache of their own
        new = processes.decided(lambda: new)
        received = 0  # from other machines
        progress("extract", matrix.filled, len(contents.keys))
        if some:
            runner = _started(pick, backbone)

            def work(parts: Iterable[list[int]]) -> dict[int, str]:
                for slab in (part[start : start + SLAB] for part in parts for start in range(0, len(part), SLAB)):
                    tokens = reader.read([inputs[row] for row in contents.first[slab].tolist()])
                    long.note(slab, tokens, cache)
                    passes = _passes(tokens, slab, runner, pick.workers, batch.value, batch_size, _most(reader))
                    with contextlib.closing(passes):
                        collect(passes, matrix, cache, namespace, progress)
                return {}

            def compute(wanted: list[int]) -> None:
                nonlocal received
                received += share(cache, namespace, matrix, wanted, work, CLAIMED, SLAB, progress)[1]

            if cache is None or processes.count() == 1:
                compute(new)
            else:
                compute(new[processes.rank() :: processes.count()])
                processes.barrier()
                compute(matrix.recall(cache, namespace))  # what others could not leave in a store that we share
                if claims_of(cache) is not None:
                    received = sum(processes.gathered(received))
    x, rows = matrix.finish()
    return Features(
        x=x,
        rows=rows,
        key=f"{card.key}/{pick.key}",
        engine=str(pick),
        seconds=time.perf_counter() - began,
        computed=max(0, len(new) - received),
        cached=len(contents.keys) - len(new) + received,
        choices=(Choice("engine", str(pick), pick.reason), batch, *long.choices(cache, contents, reader)),
    )


def choose_batch(device: str, asked: int | None = None) -> Choice:
    """Tokens per batch, by a fixed rule: the bits of a feature may depend on it."""
    if asked is not None:
        if asked < 1:
            raise BadSetting(f"--batch-size {asked}. Expected 1 or more")
        return Choice("batch size", asked, "windows, as asked")
    tokens, where = (CPU_TOKENS, "a processor's cache") if device == "cpu" else (GPU_TOKENS, "the GPU")
    return Choice("batch size", tokens, f"tokens of like long windows: as many as {where} works on fastest")


def padded_length(length: int, most: int) -> int:
    """The length that a window is filled up to: few enough to share batches, near enough to waste little."""
    step = 2 if length <= 32 else 4 if length <= 64 else 8 if length <= 128 else 16
    return min(most, max(2, -(-length // step) * step)) if length <= most else length


@dataclass(frozen=True, eq=False)
class Done:
    """Texts whose windows have all been seen."""

    contents: list[int]
    reasons: dict[int, str] = field(default_factory=dict)  # none: every text can be read


Passed = tuple[Done, NDArray[np.float32]]
Window = NDArray[np.int64]


def _most(reader: Reader) -> int:
    """Tokens of a window at most."""
    return int(getattr(reader, "longest", 1 << 30))


def _started(pick: engines.Pick, backbone: Backbone) -> text_engines.TextEngine:
    """The engine; of several processes the first one exports the graph."""
    found: list[text_engines.TextEngine] = []
    processes.decided(lambda: bool(found.append(text_engines.start(pick, backbone))))
    return found[0] if found else text_engines.start(pick, backbone)


def plan(lengths: NDArray[np.int64], tokens: int, asked: int | None, most: int) -> list[tuple[int, int, Window]]:
    """Batches, the longest windows first: padded length, windows of a full batch, the windows."""
    padded = np.array([padded_length(int(n), most) for n in range(int(lengths.max(initial=0)) + 1)])[lengths]
    batches = []
    for length in np.unique(padded)[::-1].tolist():
        of_length = np.flatnonzero(padded == length)
        limit = CPU_MOST if tokens <= CPU_TOKENS else GPU_MOST
        size = asked or int(np.clip(tokens // length, 1, limit))
        batches += [(length, size, of_length[i : i + size]) for i in range(0, len(of_length), size)]
    return batches


def _passes(
    tokens: Tokens,
    slab: Sequence[int],
    engine: text_engines.TextEngine,
    workers: int,
    at_once: int,
    asked: int | None,
    most: int,
) -> Generator[Passed, None, None]:
    """Run batches in threads, a few ahead; texts come as their last window is done."""

    def work(batch: tuple[int, int, Window]) -> NDArray[np.float32]:
        length, size, windows = batch
        filled = np.append(windows, np.repeat(windows[:1], size - len(windows)))
        ids, weights = np.zeros((size, length), np.int64), np.zeros((size, length), np.float32)
        own = tokens.padded(filled)
        ids[:, : own[0].shape[1]], weights[:, : own[1].shape[1]] = own
        return engine.forward(ids, weights)[: len(windows)]

    together = _Together(tokens)
    ahead: deque[tuple[Window, Future[NDArray[np.float32]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract")
    try:
        for batch in plan(tokens.lengths, at_once, asked, most):
            ahead.append((batch[2], pool.submit(work, batch)))
            if len(ahead) > 2 * workers:
                yield from together.add(slab, *_taken(ahead))
        while ahead:
            yield from together.add(slab, *_taken(ahead))
    except BaseException:
        engine.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _taken(ahead: deque[tuple[Window, Future[NDArray[np.float32]]]]) -> tuple[Window, NDArray[np.float32]]:
    windows, future = ahead.popleft()
    return windows, future.result()


class _Together:
    """Windows back to texts: a text is the mean of its windows, in their order."""

    def __init__(self, tokens: Tokens) -> None:
        self._owner = tokens.owner
        self._left = np.bincount(tokens.owner, minlength=len(tokens.cut))  # windows that are not done yet
        self._first = np.searchsorted(tokens.owner, np.arange(len(tokens.cut) + 1))
        self._several = self._left > 1
        self._waiting: dict[int, NDArray[np.float32]] = {}

    def add(self, slab: Sequence[int], windows: Window, x: NDArray[np.float32]) -> Generator[Passed, None, None]:
        """What these windows complete."""
        owner = self._owner[windows]
        single = ~self._several[owner]
        if single.any():
            yield Done([slab[int(t)] for t in owner[single]]), x[single]
        for at in np.flatnonzero(~single):
            text, window = int(owner[at]), int(windows[at])
            self._waiting[window] = x[at]
            self._left[text] -= 1
            if not self._left[text]:
                parts = [self._waiting.pop(w) for w in range(self._first[text], self._first[text + 1])]
                yield Done([slab[text]]), np.stack(parts).mean(axis=0, keepdims=True, dtype=np.float32)


class Long:
    """Which texts were read in windows, and which lost their end; remembered beside their features."""

    def __init__(self, namespace: str, keys: list[bytes]) -> None:
        self._namespace, self._keys = namespace, keys
        self._flags = np.zeros(len(keys), np.uint8)

    def note(self, slab: Sequence[int], tokens: Tokens, cache: Store | None) -> None:
        """What was just read."""
        several = np.bincount(tokens.owner, minlength=len(slab)) > 1
        self._flags[slab] = WINDOWED * several + CUT * tokens.cut
        some = [u for u in slab if self._flags[u]]
        if cache is not None and some:
            cache.put_many(self._namespace, [(self._keys[u], bytes([self._flags[u]])) for u in some])

    def choices(self, cache: Store | None, contents: Contents, reader: Reader) -> tuple[Choice, ...]:
        """How many items they are; nothing where none is."""
        if cache is not None:
            for u, flag in enumerate(cache.get_many(self._namespace, self._keys)):
                if flag:
                    self._flags[u] = flag[0]
        flags = np.append(self._flags, 0)[contents.index]
        return told(int((flags & WINDOWED > 0).sum()), int((flags & CUT > 0).sum()), len(flags), reader)


def told(windowed: int, cut: int, many: int, reader: Any) -> tuple[Choice, ...]:
    """How long texts were read, in words."""
    found = []
    if windowed:
        why = f"{windowed / many:.1%} of the texts have more than {_most(reader)} tokens; their windows are averaged"
        found.append(Choice("texts in windows", windowed, why))
    if cut:
        limit = f"the first {reader.most} windows" if hasattr(reader, "most") else "the beginning"
        found.append(Choice("texts cut", cut, f"{cut / many:.1%} of the texts are so long that only {limit} are read"))
    return tuple(found)


def _encoded(dataset: Dataset, backbone: Any, contents: Contents, began: float, progress: Progress) -> Features:
    """A static embedding, by numpy."""
    texts = dataset.inputs()
    first = contents.first.tolist()
    parts = [np.zeros((0, backbone.card.features), np.float32)]
    for start in range(0, len(first), ENCODED):
        progress("extract", start, len(first))
        parts.append(backbone.encode([texts[row] for row in first[start : start + ENCODED]]))
    progress("extract", len(first), len(first))
    x = np.concatenate(parts)
    many = len(contents.index)
    x = x if len(x) == many else x[contents.index]  # distinct ones stand in the order of their rows
    cut = _cut(backbone.reader, texts)
    why = "a look-up: faster than any engine, and nothing to remember"
    return _told(backbone, x, contents, began, why, told(0, cut, many, backbone.reader))


def _cut(reader: Reader, texts: Sequence[str]) -> int:
    """Texts of which only the beginning is read: pieces are no longer than letters."""
    from topwork.modalities.wordpiece import LONGEST

    return int(sum(reader.read([text]).cut[0] for text in texts if len(text) > LONGEST))


def _counted(
    dataset: Dataset, backbone: Backbone, reader: Reader, contents: Contents, began: float, progress: Progress
) -> Features:
    """N-grams: a csr matrix; feature columns: a dense one."""
    from scipy.sparse import csr_array

    texts = dataset.inputs()
    progress("extract", 0, len(contents.keys))
    tokens = reader.read([texts[row] for row in contents.first.tolist()])
    progress("extract", len(contents.keys), len(contents.keys))
    shape = (len(contents.keys), backbone.card.features or 0)
    x = csr_array((tokens.weights, tokens.ids, tokens.ends), shape=shape)
    x = x.toarray() if reader.kind == "columns" else x
    many = len(contents.index)
    x = x if len(contents.keys) == many else x[contents.index]
    cut = int(tokens.cut[contents.index].sum())
    why = "counting needs none" if reader.kind == "ngrams" else "filling and scaling need none"
    return _told(backbone, x, contents, began, why, told(0, cut, many, reader))


def _told(backbone: Backbone, x: Any, contents: Contents, began: float, why: str, more: Sequence[Choice]) -> Features:
    name = f"numpy {np.__version__} CPU"
    return Features(
        x=x,
        rows=np.arange(len(contents.index)),
        key=f"{backbone.card.key}/numpy-{np.__version__}-cpu",
        engine=name,
        seconds=time.perf_counter() - began,
        computed=len(contents.keys),
        cached=0,
        choices=(Choice("engine", name, why), *more),
    )
