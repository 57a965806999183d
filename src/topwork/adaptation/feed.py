"""What a training is fed: items in a shuffled order, as augmented views. Every batch is a function of its step.

    draw(rows, visits) -> frames uint8 (B, P, P, 3) -> views float32 (B, 3, S, S) by modalities.image_views

An epoch shows every item once, in an order drawn from (seed, epoch); batches run on over its end. Where a method
names `shares`, m_i = round(N p_i) items of source i make an epoch: each source runs through shuffles of its own, one
after the other, and `visits` counts how often an item was shown before. Where one names an `episode`, the items of an
epoch come class by class, a few classes of one source after the other. Where items have lengths (texts), those of like
length share a batch, so that little is padded: of every CHUNK batches the items are sorted, cut into batches, and the
batches shuffled. Batches are prepared in a thread, a few ahead.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from topwork.adaptation import Batch, Facts, Method, Vocabulary
from topwork.modalities import image_views

Rows = NDArray[np.int64]
AHEAD = 3  # batches
CHUNK = 16  # batches whose items are sorted by length: more = less padding, less chance in who meets whom
HALF = (0.5, 0.5, 0.5)


def seed_of(*parts: object) -> int:
    """63 bits that name these parts: every generator is seeded by what it is for."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, eq=False)
class Feed:
    """N items, from one or several sources."""

    draw: Callable[[Rows, Rows], NDArray[np.uint8]]  # rows (B,), visits (B,) -> (B, P, P, 3); called from a thread
    targets: NDArray[
        Any
    ]  # (N,) int64 class within the item's source; -1: not labelled. (N, C) bool: several. (N,) float32
    size_px: int  # S that the trunk sees
    source: Rows | None = None  # (N,) number of the source; None: there is one
    classes: tuple[int, ...] = ()  # C of every source; (): no labels
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # (N, ...)
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    recipes: Mapping[str, image_views.Recipe] = field(default_factory=lambda: image_views.RECIPES)
    stored: Callable[[Rows, Rows], Sequence[NDArray[Any]]] | None = None
    """Instead of `draw`: rows (B,), visits (B,) -> what goes into the part of the trunk that learns, (B, ...) each."""
    source_head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # of the pretraining: (D, Z), (Z,)
    width: int | None = None  # D of the trunk; None: it is asked with an image
    chosen: Rows | None = None  # items that are shown; None: all
    modality: str = "image"
    lengths: Rows | None = None  # (N,) of items that are padded to the longest of their batch
    example: tuple[torch.Tensor, ...] | None = None  # what the trunk is asked about two items
    vocabulary: Vocabulary | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def sources(self) -> Rows:
        """(N,) number of the source of every item."""
        return np.zeros(len(self), np.int64) if self.source is None else self.source

    def facts(self, features: int, steps: int, seed: int) -> Facts:
        """What the methods may know."""
        shapes = {name: x.shape[1:] for name, x in self.extras.items()}
        moments = {name: (x.mean(0), x.std(0)) for name, x in self.extras.items()}
        shown = self.targets if self.chosen is None else self.targets[self.chosen]
        if self.numeric:
            counts = np.zeros(0, np.int64)
        else:
            counts = (
                shown.sum(0) if self.multilabel else np.bincount(shown[shown >= 0], minlength=sum(self.classes[:1]))
            )
        return Facts(
            features, self.size_px, self.classes, len(shown), steps, shapes, seed, moments,
            counts=tuple(counts.tolist()) if len(self.classes) == 1 else (), multilabel=self.multilabel,
            numeric=self.numeric,
            mean=self.mean, std=self.std, source_head=self.source_head, modality=self.modality, example=self.example,
            vocabulary=self.vocabulary,
        )  # fmt: skip

    @property
    def multilabel(self) -> bool:
        """Whether an item may have several labels."""
        return self.targets.ndim == 2

    @property
    def numeric(self) -> bool:
        """Whether targets are numbers."""
        return self.targets.dtype.kind == "f"

    def batches(self, methods: Sequence[Method], first: int, setup: Setup) -> Iterator[tuple[int, list[list[Batch]]]]:
        """(step, its parts: a batch for every method) from step `first` on."""
        shown = self.sources if self.chosen is None else self.sources[self.chosen]
        counts = tuple(np.bincount(shown, minlength=int(self.sources.max()) + 1).tolist())
        shares = next((s for s in (method.shares(counts) for method in methods) if s is not None), None)
        episode = next((e for e in (method.episode for method in methods) if e is not None), None)
        order = Order(self.sources, shares, setup.seed, self.chosen, episode, self.targets, self.lengths, setup.batch)
        maker = _Maker(self, tuple(methods), order, setup)
        ahead: deque[tuple[int, Future[list[list[Batch]]]]] = deque()
        with ThreadPoolExecutor(1, "views", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for step in range(first, setup.steps + AHEAD):
                    if step < setup.steps:
                        ahead.append((step, pool.submit(maker.make, step)))
                    if step >= first + AHEAD or step >= setup.steps:
                        if not ahead:
                            return
                        done, future = ahead.popleft()
                        yield done, future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Setup:
    """How steps are cut: B items, of which this process takes its share, in `parts` one after the other."""

    steps: int
    batch: int
    seed: int = 0
    parts: int = 1
    device: str = "cpu"
    process: int = 0
    processes: int = 1


@dataclass(frozen=True, eq=False)
class Order:
    """Which item is shown when."""

    source: Rows
    shares: tuple[float, ...] | None
    seed: int
    chosen: Rows | None = None  # items that are shown; None: all
    episode: tuple[int, int] | None = None  # classes of one source, and items of each, that come together
    targets: NDArray[Any] | None = None  # (N,) class of every item within its source, for episodes
    lengths: Rows | None = None  # (N,)
    batch: int = 1  # items of a step, which are of like length

    def __post_init__(self) -> None:
        shown = np.arange(len(self.source)) if self.chosen is None else self.chosen
        pools = [shown[self.source[shown] == i] for i in range(int(self.source.max()) + 1)]
        if self.shares is None:
            pools, drawn = [shown], [len(shown)]
        else:
            drawn = [
                max(1, round(len(shown) * p)) if len(rows) else 0 for rows, p in zip(pools, self.shares, strict=True)
            ]
        object.__setattr__(self, "_pools", list(zip(pools, drawn, strict=True)))
        object.__setattr__(self, "length", sum(drawn))
        object.__setattr__(self, "epoch", lru_cache(2)(self._epoch))

    def at(self, start: int, count: int) -> tuple[Rows, Rows]:
        """Rows and visits (count,) of the items from place `start` on."""
        rows, visits, length = [], [], self.length  # type: ignore[attr-defined]
        while count > 0:
            epoch, begin = divmod(start, length)
            shown, before = self.epoch(epoch)  # type: ignore[attr-defined]
            end = min(begin + count, length)
            rows.append(shown[begin:end])
            visits.append(before[begin:end])
            start, count = start + end - begin, count - (end - begin)
        return np.concatenate(rows), np.concatenate(visits)

    def _epoch(self, epoch: int) -> tuple[Rows, Rows]:
        """Rows and visits (L,) of one epoch."""
        rows, visits = [], []
        for i, (pool, m) in enumerate(self._pools):  # type: ignore[attr-defined]
            places = np.arange(epoch * m, (epoch + 1) * m)
            for turn in range(epoch * m // max(len(pool), 1), -(-(epoch + 1) * m // max(len(pool), 1))):
                here = places[places // len(pool) == turn] % len(pool)
                rows.append(pool[_shuffle(len(pool), self.seed, i, turn)[here]])
                visits.append(np.full(len(here), turn, np.int64))
        row, visit = np.concatenate(rows), np.concatenate(visits)
        if self.shares is not None:
            mixed = _shuffle(len(row), self.seed, "mix", epoch)
            row, visit = row[mixed], visit[mixed]
        if self.episode is not None and self.targets is not None:
            grouped = self._in_episodes(row, epoch, *self.episode)
            row, visit = row[grouped], visit[grouped]
        elif self.lengths is not None:
            alike = self._by_length(self.lengths[row], epoch)
            row, visit = row[alike], visit[alike]
        return row, visit

    def _by_length(self, lengths: Rows, epoch: int) -> Rows:
        """The places (L,) of an epoch's items: batches of like length, in an order of their own.

        Batches run on over the end of an epoch, so that of the first one only the rest belongs to this epoch.
        """
        L, B = len(lengths), self.batch
        begun = -epoch * L % B  # items of this epoch in the batch that the last one began
        found = [np.arange(min(begun, L))]
        for number, first in enumerate(range(begun, L, CHUNK * B)):
            places = np.arange(first, min(first + CHUNK * B, L))
            places = places[np.argsort(lengths[places], kind="stable")]
            whole = len(places) // B  # batches; what is left of the last chunk stays at its end
            spare = places[(skip := _shuffle(whole + 1, self.seed, "spare", epoch, number)[0] * B) :][: len(places) % B]
            places = np.concatenate([places[:skip], places[skip + len(spare) :]])
            found += [places[k * B : (k + 1) * B] for k in _shuffle(whole, self.seed, "lengths", epoch, number)]
            found.append(spare)
        return np.concatenate(found)

    def _in_episodes(self, row: Rows, epoch: int, ways: int, items: int) -> Rows:
        """The places (L,) of an epoch's items, class by class, episode by episode, in an order of their own.

        Every class is cut into runs of `items`; a source's runs are taken in turns, one of each class, and every
        `ways` of them are an episode. So each item is still shown as often as without.
        """
        assert self.targets is not None
        episodes: list[Rows] = []
        for s in np.unique(self.source[row]):
            own = np.flatnonzero(self.source[row] == s)
            y = self.targets[row[own]]
            turns: list[list[Rows]] = []
            for label in np.unique(y):
                of = own[y == label]
                for turn, begin in enumerate(range(0, len(of), items)):
                    turns += [[]] * (turn + 1 - len(turns))
                    turns[turn] = [*turns[turn], of[begin : begin + items]]
            runs = [
                runs[k]
                for turn, runs in enumerate(turns)
                for k in _shuffle(len(runs), self.seed, "runs", epoch, int(s), turn)
            ]
            episodes += [np.concatenate(runs[k : k + ways]) for k in range(0, len(runs), ways)]
        return np.concatenate([episodes[k] for k in _shuffle(len(episodes), self.seed, "episodes", epoch)])


def _shuffle(n: int, *parts: object) -> Rows:
    return np.random.Generator(np.random.Philox(key=seed_of("order", *parts))).permutation(n)


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    """As the layers below would have left it: a copy of torch's own, channels last where there are maps."""
    return x.clone(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


@dataclass(frozen=True, eq=False)
class _Maker:
    """Batches of any step."""

    feed: Feed
    methods: tuple[Method, ...]
    order: Order
    setup: Setup

    def make(self, step: int) -> list[list[Batch]]:
        """The parts of one step: a batch for every method."""
        s = self.setup
        rows, visits = self.order.at(step * s.batch, s.batch)
        rows, visits = rows[s.process :: s.processes], visits[s.process :: s.processes]
        parts = max(1, min(s.parts, s.batch // s.processes))  # as many in every process, none of them empty
        cuts = np.array_split(np.arange(len(rows)), parts)
        return [self._part(step, part, rows[cut], visits[cut]) for part, cut in enumerate(cuts) if len(cut)]

    def _part(self, step: int, part: int, rows: Rows, visits: Rows) -> list[Batch]:
        feed, s = self.feed, self.setup
        targets = torch.from_numpy(feed.targets[rows])
        common = {
            "rows": torch.from_numpy(rows),
            "targets": (targets.float() if feed.multilabel else targets).to(s.device),
            "multilabel": feed.multilabel,
            "source": torch.from_numpy(feed.sources[rows]).to(s.device),
            "extras": {name: torch.from_numpy(x[rows]).to(s.device) for name, x in feed.extras.items()},
            "step": step,
            "done": step / s.steps,
        }
        if feed.stored is not None:
            shown = [_laid_out(torch.from_numpy(x).to(s.device)) for x in feed.stored(rows, visits)]
        else:
            frames = torch.from_numpy(feed.draw(rows, visits)).to(s.device)
            shown = [self._view(frames, number, name, rows, visits) for number, name in enumerate(self._views())]
        batches = []
        for i, method in enumerate(self.methods):
            generator = torch.Generator().manual_seed(seed_of(s.seed, "loss", step, part, s.process, i))
            views = tuple(shown) if feed.stored is not None else self._chosen(shown, method)
            batches.append(Batch(views=views, generator=generator, **common))
        return batches

    def _view(self, frames: torch.Tensor, number: int, name: str, rows: Rows, visits: Rows) -> torch.Tensor:
        feed = self.feed
        x = image_views.view(
            frames, feed.recipes[name], feed.size_px, seed=self.setup.seed, visits=visits, rows=rows, number=number,
            mean=feed.mean, std=feed.std,
        )  # fmt: skip
        return x.contiguous(memory_format=torch.channels_last)

    def _views(self) -> list[str]:
        """Names of the views that are drawn: methods share those of one name."""
        most: Counter[str] = Counter()
        for method in self.methods:
            most |= Counter(method.views)
        return list(most.elements())

    def _chosen(self, shown: list[torch.Tensor], method: Method) -> tuple[torch.Tensor, ...]:
        """A method's views, in its order."""
        left, names = list(enumerate(self._views())), []
        for wanted in method.views:
            at = next(place for place, (_, name) in enumerate(left) if name == wanted)
            names.append(left.pop(at)[0])
        return tuple(shown[number] for number in names)
