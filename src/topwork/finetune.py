"""One tuned step of the ladder: learn from folds, ask about what was left out, and train on everything if it pays.

frames            every image decoded once                                             features.frames
Stages.cut        what is frozen for good runs once per view, its results are cached   features.boundary
loop.train        on all folds but one, for one fold after the other                   RUN/fold-K, resumable
out-of-fold       logits of the folds that were asked: the paired test of the ladder
loop.train        on everything                                                        RUN/all
Tuned             the trunk with its new weights: exported, proven and shipped like any backbone
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork import processes, settings
from topwork.adaptation import Technique, loop
from topwork.adaptation import probe as probes
from topwork.adaptation.feed import Feed
from topwork.adaptation.graft import Grafted, Scope, Tune
from topwork.backbones.source_head import source_head
from topwork.backbones.stages import Stages, shapes
from topwork.backbones.trunk import export_below
from topwork.backbones.tuned import Tuned, checksum, movement
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadSetting
from topwork.evaluation.calibrate import activate
from topwork.features import boundary, contents
from topwork.features.frames import Frames, frames
from topwork.ground import Ground
from topwork.mirrors import choose_view
from topwork.modalities import image_views
from topwork.modalities.image_views import Recipe
from topwork.nn.session import session
from topwork.store import weights
from topwork.store.runs import Run
from topwork.tasks.classification import checked, hits, item_losses
from topwork.types import Backbone, Choice, Head, Preprocess, Probe, Watch, digest

Rows = NDArray[np.int64]

BATCH = 32
PRESENTATIONS = 12_000  # items shown in one training, if nothing else is said
EPOCHS = (3, 40)  # at least, at most
ENOUGH = 600  # out-of-fold items that a paired test wants where others measure
VIEWS = 4  # cached per item
SPARE_SECONDS = 5.0  # for what comes after the training
RATES = {None: "usual for {}", "find": "a tenth of where the loss is smallest while the rate grows"}
LEAST_SECONDS = 15.0  # with less nothing is begun
CACHE_SHARE = 0.3  # of the time that is left, for activations of the frozen part


@dataclass(frozen=True, eq=False)
class Start:
    """What a tuned step begins with: the frozen probe of the same backbone."""

    backbone: Backbone
    x: Callable[[Rows], NDArray[np.float32]]  # its frozen features
    probe: Probe


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a tuned step has found out."""

    rows: Rows  # training rows that were predicted by a model that had not seen them
    held_out: NDArray[np.float32]  # (len(rows), C) their logits
    held: NDArray[np.float32]  # (len(held rows), C) logits of the held-out rows, by the first fold's model
    readable: Rows  # rows whose image could be decoded
    reason: str  # one line: how it was trained
    choices: tuple[Choice, ...]
    again: Callable[[], tuple[Tuned, Head, dict[str, Any]]]  # train on everything: backbone, head, proofs


def tune(
    ground: Ground,
    spec: str,
    parts: Sequence[Technique],
    start: Start,
    deadline: float,
    run: Path | None,
    seed: int,
    watch: Watch,
    engine: str = "auto",
    join: Callable[[Bench], Bench] = lambda bench: bench,
    asked: Sequence[int] | None = None,
    again: bool = True,
    must: bool = False,
) -> Tuning | str:
    """The folds' trainings; or, in words, why there is no time for them.

    `run`: where trainings keep their checkpoints; None: nowhere, and nothing is taken up again. `join` puts more on
    the bench: other sources, which are learnt from whatever fold is asked. `asked`: folds to leave out in turn; None:
    as many as a paired test wants. `again` False: nobody will ask for a training on everything. `must`: however
    little time there is.
    """
    try:
        _check_time(deadline, must)
        bench = join(Bench.of(ground, spec, parts, start, math.inf if must else deadline, run, seed, watch, engine))
    except _OutOfTime as reason:
        return f"left out: {reason} (--budget)"
    folds = ground.folds[ground.train]
    left_out = _asked(ground) if asked is None else list(asked)
    decided = bench.decide(deadline, len(left_out), again, must)
    if isinstance(decided, str):
        return decided
    plan, left_out = decided.plan, left_out[: decided.folds]
    for choice in decided.choices[1:]:
        watch.say(str(choice))
    rows, logits, held = [], [], np.zeros((0, len(ground.dataset.labels)), np.float32)
    first: Callable[[], Trained] | None = None
    for number, fold in enumerate(left_out):
        own, name = ground.train[folds == fold], f"fold {number + 1} of {len(left_out)}"
        trained = bench.train(plan, np.setdiff1d(ground.train, own), name)
        rows.append(np.intersect1d(own, bench.readable))
        logits.append(bench.logits(trained.model, rows[-1]))
        bench.note(name, rows[-1], logits[-1])
        if number == 0:
            held = bench.logits(trained.model, np.intersect1d(ground.held, bench.readable))
            first = None if decided.again else (lambda kept=trained: kept)
    order = np.argsort(np.concatenate(rows), kind="stable")
    reason = f"{spec}: " + "; ".join(f"{choice.name} {choice.value}" for choice in decided.choices)
    final = first or (lambda: bench.train(plan, ground.train, "on everything"))
    return Tuning(
        np.concatenate(rows)[order], np.concatenate(logits)[order], held, bench.readable, reason,
        tuple(decided.choices), lambda: bench.shipped(final()),
    )  # fmt: skip


@dataclass(frozen=True)
class Decided:
    """How a step is trained within its time."""

    plan: loop.Plan
    folds: int  # that are left out in turn
    again: bool  # trained on everything afterwards; else the first fold's model is the one
    choices: tuple[Choice, ...]


@dataclass(frozen=True, eq=False)
class Trained:
    """A training's result: the whole trunk, and the model that shares its weights."""

    trunk: nn.Module
    model: Grafted


def _asked(ground: Ground) -> list[int]:
    """Folds to leave out in turn: all where they measure, else enough for a paired test."""
    folds, counts = np.unique(ground.folds[ground.train], return_counts=True)
    if not len(ground.held):
        return folds.tolist()
    enough = int(np.searchsorted(np.cumsum(counts), ENOUGH)) + 1
    return folds[:enough].tolist()


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that the trainings of one step share."""

    ground: Ground
    spec: str
    parts: tuple[Technique, ...]
    start: Start
    images: Frames
    feed: Feed
    below: int  # layers that are frozen and cached
    cached: boundary.Stored | None
    device: str
    run: Path | None
    seed: int
    watch: Watch
    said: tuple[Choice, ...]
    beside: Rows | None = None  # rows of other sources, learnt from in every training
    own: float = 1.0  # share of the items shown that are not those
    curves: dict[str, Any] = field(default_factory=dict)  # losses of every training that is over
    asked: list[dict[str, Any]] = field(default_factory=list)  # how the folds' models did on what was left out

    @classmethod
    def of(
        cls,
        ground: Ground,
        spec: str,
        parts: Sequence[Technique],
        start: Start,
        deadline: float,
        run: Path | None,
        seed: int,
        watch: Watch,
        engine: str,
    ) -> Bench:
        """Decode, find the boundary, and fill its cache."""
        scope, dataset, card = parts[0], ground.dataset, start.backbone.card
        assert isinstance(scope, Scope)
        p, found = card.preprocess, contents.distinct(dataset)
        images = frames(dataset, found, p.resize_px, progress=watch.progress, like=p)
        recipes = _recipes(p)
        targets = dataset.targets()
        feed = Feed(
            lambda rows, _: images(rows), targets if dataset.multilabel else targets.astype(np.int64), p.crop_px,
            classes=(len(dataset.labels),), mean=p.mean, std=p.std, recipes=recipes, width=card.features,
            source_head=_source_head(start) if any(part.needs_source_head for part in parts) else None,
        )  # fmt: skip
        device = os.environ.get("TOPWORK_DEVICE") or _device()
        named = next((v for v in (getattr(part, "view", None) for part in parts) if v), None)
        chosen = Choice("views", named, "as asked") if named else _view(ground, start, images, feed, seed)
        watch.say(str(chosen))
        _check_time(deadline)
        trunk, view = start.backbone.module(), chosen.value
        below, cached, said = 0, None, [chosen]
        stages = stages_of(trunk, p.crop_px, scope)
        if stages is not None:
            below = scope.boundary(stages.shares)
        if below and stages is not None:
            cached, choice = _cache(
                stages, below, images, feed, view, start.backbone, scope, device, engine, seed, deadline, watch
            )
            said.append(choice)
            feed = dataclasses.replace(feed, stored=cached) if cached else feed
        return cls(
            ground, spec, tuple(parts), start, images, feed, below, cached, device, run, seed, watch, tuple(said)
        )

    @property
    def readable(self) -> Rows:
        """Rows whose image could be decoded."""
        return np.flatnonzero(self.images.index >= 0)

    def decide(self, deadline: float, folds: int, again: bool = True, must: bool = False) -> Decided | str:
        """How long, how fast: what was asked for, or what the data and the time allow. Decided once per run.

        Where time is short fewer folds are asked, and at last the only fold's model is not trained again on everything.
        """
        scope, n = self.scope, len(np.intersect1d(self.ground.train, self.readable))
        batch = scope.batch or min(BATCH, max(2, n // 4))
        shown = int(PRESENTATIONS * scope.LONGER)
        wanted = scope.epochs or int(np.clip(shown // n, EPOCHS[0], EPOCHS[1] * scope.LONGER))
        plan = loop.Plan(
            steps=math.ceil(n / batch / self.own), batch=batch,
            optimizer=scope.optimizer,  # type: ignore[arg-type]
            rate=scope.RATE if scope.rate in (None, "find") else float(scope.rate),
            weight_decay=scope.weight_decay, ema=scope.ema, device=self.device, seed=self.seed,
        )  # fmt: skip
        why = "as asked" if scope.epochs else f"about {shown:,} items are shown, at least {EPOCHS[0]} times each"
        epochs = wanted
        with self._run("plan", {"deadline": math.isfinite(deadline), "folds": folds, "again": again}) as run:
            before = processes.decided(lambda: run.decided if run is not None else {})
            if scope.rate == "find":
                plan = dataclasses.replace(plan, rate=before["rate"] if "rate" in before else self.found_rate(plan))
            if "epochs" in before:
                epochs, folds, again = (before[name] for name in ("epochs", "folds", "again"))
                why = "as decided when this training was begun"
            elif math.isfinite(deadline):
                left = deadline - time.monotonic()
                method, feed = self.method(self.ground.train), self._of(self.ground.train)
                each = loop.pace(self.trunk, [method], feed, plan, min(3.0, left / 20)) * plan.steps  # an epoch
                left = deadline - time.monotonic() - SPARE_SECONDS
                found = processes.decided(lambda: _affordable_epochs(left, each, wanted, folds, again))
                if found is None and must:
                    found = 1, 1, False
                if found is None:
                    return (
                        f"left out: one epoch takes about {each:,.0f} s and the budget has {max(left, 0):,.0f} s left "
                        "(--budget)"
                    )
                fitting, folds, again = found
                if fitting < wanted:
                    epochs, why = fitting, f"{each:,.1f} s each, and {left:,.0f} s are left (--budget)"
            if run is not None:
                run.decide(epochs=epochs, folds=folds, again=again, rate=plan.rate)
        trainings = f"{folds} of the folds left out in turn" + (", then on everything" if again else "")
        choices = [
            *self.said,
            Choice("epochs", epochs, why),
            Choice("trainings", folds + again, trainings if again else f"{trainings}; no time to train on everything"),
            Choice("learning rate", plan.rate, RATES.get(scope.rate, "as asked").format(type(scope).__name__)),
        ]
        return Decided(dataclasses.replace(plan, steps=plan.steps * epochs), folds, again, tuple(choices))

    def found_rate(self, plan: loop.Plan) -> float:
        """A tenth of the rate at which the loss is smallest, on a copy that is thrown away."""
        rows = self.ground.train
        return processes.decided(lambda: loop.find_rate(self.trunk, [self.method(rows)], self._of(rows), plan))

    @property
    def scope(self) -> Scope:
        """What may learn, and how."""
        scope = self.parts[0]
        assert isinstance(scope, Scope)
        return scope

    def trunk(self) -> nn.Module:
        """A fresh trunk, or what of it lies above the boundary."""
        return self._fresh()[1]

    def _fresh(self) -> tuple[nn.Module, nn.Module]:
        """A fresh trunk, and what of it is trained; they share their weights."""
        trunk = self.start.backbone.module()
        if self.cached is None:
            return trunk, trunk
        return trunk, Stages.of(trunk, self.feed.size_px).cut(self.below)[1]

    def method(self, rows: Rows) -> Tune:
        """The techniques, from a head that was solved on these rows alone."""
        head = self._head(rows)
        views = (next(c.value for c in self.said if c.name == "views"),)
        stages = stages_of(self.start.backbone.module(), self.feed.size_px, self.parts[0])
        names, shares = (stages.names, stages.shares) if stages else ((), ())
        if self.cached is not None and stages is not None:
            kept = set(stages.layers[self.below :])
            names, shares = tuple(tuple(n for n in stage if n in kept) for stage in names), ()
            names = tuple(stage for stage in names if stage)
        return Tune(self.parts, head.arrays["weight"], head.arrays["bias"], names, shares, views)

    def _head(self, rows: Rows) -> Head:
        scope, C = self.scope, len(self.ground.dataset.labels)
        if scope.head == "new":
            weight = np.zeros((self.start.x(rows[:1]).shape[1], C), np.float32)
            return Head("linear", {"weight": weight, "bias": np.zeros(C, np.float32)})
        spec = self.start.probe.head.method
        spec = spec if self.start.probe.head.kind == "linear" else "logistic"
        y, dataset = self.ground.dataset.targets()[rows], self.ground.dataset
        inner = make_folds(y, keep_together(dataset)[rows], 5, self.seed)
        best, _ = probes.choose(self.start.x(rows), y, inner, C, methods=(spec,))
        return best.head

    def _of(self, rows: Rows) -> Feed:
        own = np.intersect1d(rows, self.readable)
        return dataclasses.replace(self.feed, chosen=own if self.beside is None else np.union1d(own, self.beside))

    def _without(self, shown: Rows) -> Rows:
        """Those that are not of other sources."""
        return shown if self.beside is None else np.setdiff1d(shown, self.beside)

    def train(self, plan: loop.Plan, rows: Rows, name: str) -> Trained:
        """One training, from where it was left."""
        feed, judge = self._of(rows), None
        if self.scope.patience:
            feed, judge = self._judged(feed)
        own = self._without(feed.chosen)  # type: ignore[arg-type]
        steps = max(1, round(plan.steps * len(own) / len(np.intersect1d(self.ground.train, self.readable))))
        plan = dataclasses.replace(plan, steps=steps)
        whole, trained = self._fresh()
        method = self.method(own)
        stage = f"{self.spec.partition('(')[0].partition('+')[0].strip()} {name}"
        with self._run(name, {"plan": dataclasses.asdict(plan), "rows": digest(rows.tolist())}) as run:
            model = loop.train(trained, [method], feed, plan, run, self.watch, judge, stage, lines=1)
            if run is not None:
                self.curves[name] = run.curves()
        assert isinstance(model, Grafted)
        if whole is not trained:  # layers that were replaced in the upper part are replaced in the whole
            own = dict(trained.named_modules())  # without means that moved below the boundary
            for layer in {layer for stage in method.stages for layer in stage if layer in own}:
                whole.set_submodule(layer, own[layer])
        return Trained(whole, model)

    def note(self, name: str, rows: Rows, logits: NDArray[np.float32]) -> None:
        """How a fold's model did on the items that it had not seen."""
        y, several = self.ground.dataset.targets()[rows], self.ground.dataset.multilabel
        p, y = checked(activate(logits, several), y, several)
        right, loss = hits(p, y).mean(), item_losses(p, y).mean()
        self.asked.append({"name": name, "items": len(rows), "accuracy": float(right), "log_loss": float(loss)})

    def _judged(self, feed: Feed) -> tuple[Feed, loop.Judge]:
        """A tenth of the items is kept aside, and their log loss says when to stop."""
        rows, dataset = feed.chosen, self.ground.dataset
        assert rows is not None
        y = dataset.targets()
        tenth = make_folds(y[rows], keep_together(dataset)[rows], 10, self.seed) == 0
        aside = rows[tenth]

        def measure(model: nn.Module) -> float:
            assert isinstance(model, Grafted)
            return float(item_losses(activate(self.logits(model, aside), dataset.multilabel), y[aside]).mean())

        chosen = dataclasses.replace(feed, chosen=rows[~tenth])
        every = max(1, math.ceil(len(chosen.chosen) / (self.scope.batch or BATCH)))  # type: ignore[arg-type]
        return chosen, loop.Judge(measure, every, self.scope.patience)

    @contextlib.contextmanager
    def _run(self, name: str, settings: dict[str, Any]) -> Iterator[Run | None]:
        """Where a training of these settings keeps its checkpoints."""
        folder = self.run
        if folder is None:
            yield None
            return
        card = self.start.backbone.card
        whole = {"spec": self.spec, "backbone": card.key, "images": self.images.key, "name": name, **settings,
                 "targets": digest(self.ground.dataset.table["target"].to_pylist()), "seed": self.seed}  # fmt: skip
        if self.beside is not None:
            whole["beside"] = digest(self.feed.targets[self.beside].tolist())
        opened: list[Run] = []
        processes.decided(
            lambda: opened.append(Run(folder / f"{name.replace(' ', '-')}-{digest(whole)}", whole))
        )  # the first keeps it; the others take from it what it remembers
        with opened[0] if opened else contextlib.nullcontext() as run:
            yield run

    @torch.no_grad()
    def logits(self, model: Grafted, rows: Rows) -> NDArray[np.float32]:
        """(len(rows), C) without augmentation."""
        model.eval()
        parts = [np.zeros((0, len(self.ground.dataset.labels)), np.float32)]
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            parts.append(model(*self._plain(some)).logits.float().cpu().numpy())
        return np.concatenate(parts)

    def _plain(self, rows: Rows) -> list[Tensor]:
        if self.cached is not None:
            return [torch.from_numpy(x).to(self.device) for x in self.cached.plain(rows)]
        return [_shown(self.images, self.feed, rows, 0, "plain", self.seed).to(self.device)]

    def shipped(self, trained: Trained) -> tuple[Tuned, Head, dict[str, Any]]:
        """The backbone, its head, and what was proven about the weights."""
        before = self.start.backbone.module()
        trunk, model = trained.trunk, trained.model
        shipped = trunk if isinstance(model.neck, nn.Identity) else nn.Sequential(trunk, model.neck)
        head = Head(
            "linear",
            {
                "weight": np.ascontiguousarray(model.head.weight.detach().cpu().numpy().T),
                "bias": model.head.bias.detach().cpu().numpy().copy(),
            },
            activation="sigmoid" if self.ground.dataset.multilabel else "softmax",
            method=self.spec,
        )
        stages = stages_of(trunk, self.feed.size_px, self.parts[0])
        tuned = Tuned.of(self.start.backbone.card, shipped, model.head.in_features, self.spec)
        facts = {
            "spec": self.spec,
            "choices": {c.name: c.value for c in self.said},
            "proofs": proofs(before, trunk, self._frozen(trunk)),
            "stages": movement(before, trunk, stages.names if stages else [(n,) for n, _ in trunk.named_children()]),
            "curves": dict(self.curves),
            "folds": list(self.asked),
        }
        return tuned, head, facts

    def _frozen(self, trunk: nn.Module) -> list[str]:
        """Names of the layers that must not have moved."""
        stages = stages_of(trunk, self.feed.size_px, self.parts[0])
        return list(stages.layers[: self.below]) if stages else []


def _affordable_epochs(
    left: float, each: float, wanted: int, folds: int, again: bool = True
) -> tuple[int, int, bool] | None:
    """Epochs, folds and whether to train on everything afterwards, if an epoch on everything takes `each` seconds."""
    for least, count, whole in ((EPOCHS[0], folds, again), (EPOCHS[0], 1, again), (EPOCHS[0], 1, False), (1, 1, False)):
        fitting = int(left / (each * (0.8 * count + whole)))
        if fitting >= min(least, wanted):
            return min(fitting, wanted), count, whole
    return None


def proofs(before: nn.Module, after: nn.Module, frozen: Sequence[str]) -> dict[str, Any]:
    """What moved and what did not: tensors of frozen layers bit by bit, and how many of the others changed."""
    old, new = before.state_dict(), after.state_dict()
    still = [name for name in old if any(name.startswith(f"{layer}.") for layer in frozen)]
    moved = [name for name in still if not torch.equal(old[name].cpu(), new[name].cpu())]
    if moved:
        raise BadSetting(f"Frozen weights have moved: {', '.join(moved[:3])}. This must not happen; please report it")
    free = [name for name in old if name not in set(still) and name in new]
    changed = [name for name in free if not torch.equal(old[name].cpu(), new[name].cpu())]
    return {
        "frozen": len(still),
        "frozen_moved": 0,
        "free": len(free),
        "free_moved": len(changed),
        "weights": checksum(after),
    }


def _recipes(p: Preprocess) -> dict[str, Recipe]:
    """The views, "plain" being what the backbone will be asked with."""
    share = (p.crop_px / p.resize_px) ** 2
    plain = Recipe(area=(share, share), ratio=1.0, centred=True)
    return {**image_views.RECIPES, "plain": plain}


def _source_head(start: Start) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The classifier that the backbone was pretrained with, where its file still holds it."""
    width = start.backbone.card.features
    return source_head(start.backbone, width) if width else None


def _view(ground: Ground, start: Start, images: Frames, feed: Feed, seed: int) -> Choice:
    """Mirrored or not, by asking the frozen backbone."""
    rows = np.intersect1d(ground.train, np.flatnonzero(images.index >= 0))
    running = session(start.backbone.graph())

    def ask(some: Rows, mirrored: bool) -> NDArray[np.float32]:
        found = []
        for begin in range(0, len(some), BATCH):
            x = _shown(images, feed, some[begin : begin + BATCH], 0, "plain", seed)
            found.append(np.asarray(running.run(None, {"images": (x.flip(3) if mirrored else x).numpy()})[0]))
        return np.concatenate(found)

    return _agreed(lambda: choose_view(rows, ground.dataset.targets()[rows], ground.folds[rows], ask, seed))


def _shown(images: Frames, feed: Feed, rows: Rows, visit: int, view: str, seed: int) -> Tensor:
    """One view of some rows, (B, 3, S, S)."""
    return image_views.view(
        torch.from_numpy(images(rows)), feed.recipes[view], feed.size_px, seed=seed, visits=np.full(len(rows), visit),
        rows=rows, number=0, mean=feed.mean, std=feed.std,
    )  # fmt: skip


def stages_of(trunk: nn.Module, size_px: int, scope: Technique) -> Stages | None:
    """The trunk's layers; None where they cannot be told apart and nobody needs them."""
    try:
        return Stages.of(trunk, size_px)
    except BadSetting:
        if type(scope).__name__ == "LastStages":
            raise
        return None


def _cache(
    stages: Stages,
    below: int,
    images: Frames,
    feed: Feed,
    view: str,
    backbone: Backbone,
    scope: Scope,
    device: str,
    engine: str,
    seed: int,
    deadline: float,
    watch: Watch,
) -> tuple[boundary.Stored | None, Choice]:
    """What is frozen runs now, once per view."""
    card, dtype = backbone.card, scope.store
    lower = stages.cut(below)[0]
    crossing = shapes(lower, feed.size_px)
    choice = _agreed(lambda: boundary.choose_views(len(images.index), crossing, dtype, scope.views or VIEWS))
    if choice.value == 0 or scope.views == 0:
        return None, choice if scope.views != 0 else Choice(
            "cached views", 0, "as asked: everything runs in every epoch"
        )
    forward, engine = _forward(lower, card.key, below, feed.size_px, device, engine)

    def make(rows: Rows, number: int) -> Sequence[NDArray[np.float32]]:
        rows = np.where(
            images.index[rows] >= 0, rows, np.flatnonzero(images.index >= 0)[0]
        )  # unread ones are not asked
        return forward(_shown(images, feed, rows, max(number, 0), view if number >= 0 else "plain", seed))

    if math.isfinite(deadline) and not scope.views:
        most = choice
        choice = _agreed(lambda: _affordable(most, make, len(images.index), deadline))
        if choice.value < 0:
            raise _OutOfTime(choice.reason)
    p = card.preprocess
    key = digest([card.key, below, stages.layers[below], dataclasses.asdict(feed.recipes[view]), seed, dtype, engine,
                  p.key, images.key])  # fmt: skip
    threads = settings.threads().value
    with _threads(1):
        found = boundary.store(key, len(images.index), crossing, choice.value, make, dtype=dtype,
                               threads=threads, progress=watch.progress)  # fmt: skip
    return found, choice


class _OutOfTime(Exception):
    pass


def _check_time(deadline: float, must: bool = False) -> None:
    """Whether there is enough time to go on."""
    left = processes.decided(lambda: deadline - time.monotonic())
    if left < LEAST_SECONDS and not must:
        raise _OutOfTime(f"the budget has {max(left, 0):,.0f} s left, less than {LEAST_SECONDS:g} s")


def _agreed(choose: Callable[[], Choice]) -> Choice:
    """A choice that depends on the clock or the disk."""
    return Choice(**processes.decided(lambda: dataclasses.asdict(choose())))


def _affordable(choice: Choice, make: boundary.Make, items: int, deadline: float) -> Choice:
    """Fewer views where they would eat up the time."""
    some = np.arange(min(boundary.AT_ONCE, items))
    make(some, 0)
    began = time.monotonic()
    make(some, 0)
    workers = settings.threads().value * processes.count()
    each = (time.monotonic() - began) / len(some) * items / workers  # seconds of a view of all items
    left = deadline - time.monotonic()
    views = int(CACHE_SHARE * left / each) - 1
    if views >= choice.value:
        return choice
    if 2 * each > left - LEAST_SECONDS:  # one view and the plain one
        return Choice(
            "cached views", -1, f"a view takes about {each:,.0f} s and the budget has {max(left, 0):,.0f} s left"
        )
    return Choice(
        "cached views", max(1, views), f"about {each:,.0f} s each, a part of the time that is left (--budget)"
    )


def _forward(
    lower: nn.Module, key: str, below: int, size_px: int, device: str, engine: str
) -> tuple[Callable[[Tensor], Sequence[NDArray[np.float32]]], str]:
    """What runs the frozen part: onnxruntime on a processor, torch elsewhere."""
    if device != "cpu" or engine == "torch":
        lower = lower.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def by_torch(images: Tensor) -> Sequence[NDArray[np.float32]]:
            with torch.no_grad():
                return [x.float().cpu().numpy() for x in lower(images.to(device))]

        return by_torch, f"torch {device.split(':')[0]}"
    name = digest([key, "below", below, 1])
    with processes.first():
        graph = weights.load_graph(name)
        if graph is None:
            graph = export_below(lower, size_px)
            weights.save_graph(name, graph)
    running = session(graph, threads=1)
    return lambda images: [np.asarray(x) for x in running.run(None, {"images": images.numpy()})], "onnxruntime"


def _device() -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
