"""What the trainings of one tuned step share: items, views, the cache of the frozen part, and what comes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork import processes
from topwork.adaptation import Technique, loop
from topwork.adaptation import probe as probes
from topwork.adaptation.feed import Feed
from topwork.adaptation.graft import Grafted, Scope, Tune, check_items
from topwork.adaptation.patience import Judge
from topwork.adaptation.plan import Plan
from topwork.backbones.source_head import source_head
from topwork.backbones.tuned import Tuned, checksum, movement
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadSetting
from topwork.evaluation.calibrate import activate
from topwork.finetune.clock import check_time
from topwork.finetune.material import Material, material
from topwork.finetune.start import BATCH, Start, Unit, targets_of
from topwork.ground import Ground, Rows
from topwork.store.runs import Run
from topwork.tasks import item_losses, statistics
from topwork.terms import Terms
from topwork.types import Choice, Head, Watch, digest


@dataclass(frozen=True, eq=False)
class Trained:
    """A training's result: the whole trunk, and the model that shares its weights."""

    trunk: nn.Module
    model: Grafted


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that the trainings of one step share."""

    ground: Ground
    spec: str
    parts: tuple[Technique, ...]
    start: Start
    material: Material
    feed: Feed
    below: int  # layers that are frozen and cached
    device: str
    run: Path | None
    seed: int
    watch: Watch
    said: tuple[Choice, ...]
    beside: Rows | None = None  # rows of other sources, learnt from in every training
    own: float = 1.0  # share of the items shown that are not those
    curves: dict[str, Any] = field(default_factory=dict)  # losses of every training that is over
    asked: list[dict[str, Any]] = field(default_factory=list)  # how the folds' models did on what was left out
    forced: dict[str, Any] = field(default_factory=dict)  # what memory has decided

    @classmethod
    def of(cls, ground: Ground, spec: str, parts: Sequence[Technique], start: Start, terms: Terms) -> Bench:
        """Read the items, find the boundary, and fill its cache."""
        scope = parts[0]
        assert isinstance(scope, Scope)
        check_items(parts, ground.dataset.modality, ground.dataset.numeric)
        deadline, seed, watch = terms.deadline, terms.seed, terms.watch
        learnt = material(ground, parts, start, seed, watch)
        device = os.environ.get("TOPWORK_DEVICE") or _device()
        check_time(deadline)
        below, said = 0, list(learnt.said)
        stages = learnt.stages(start.backbone.module(), scope)
        if stages is not None:
            below = scope.boundary(stages.shares)
        if below and stages is not None:
            learnt, choice = learnt.freeze(stages, below, start.backbone, scope, device, terms.engine, deadline, watch)
            said.append(choice)
        feed = learnt.feed
        if any(part.needs_source_head for part in parts):
            feed = dataclasses.replace(feed, source_head=_source_head(start))
        return cls(ground, spec, tuple(parts), start, learnt, feed, below, device, terms.run, seed, watch, tuple(said))

    @property
    def cached(self) -> Any | None:
        """The activations of the frozen part, where they are read instead of the items."""
        return self.material.stored

    @property
    def readable(self) -> Rows:
        """Rows that can be learnt from."""
        return self.material.readable

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
        stages = self.material.stages(trunk, self.scope)
        assert stages is not None
        return trunk, stages.cut(self.below)[1]

    def method(self, rows: Rows) -> Tune:
        """The techniques, from a head that was solved on these rows alone."""
        weight, bias = self._head(rows)
        views = (next(c.value for c in self.said if c.name == "views"),)
        stages = self.material.stages(self.start.backbone.module(), self.scope)
        names, shares = (stages.names, stages.shares) if stages else ((), ())
        if self.cached is not None and stages is not None:
            kept = set(stages.layers[self.below :])
            names, shares = tuple(tuple(n for n in stage if n in kept) for stage in names), ()
            names = tuple(stage for stage in names if stage)
        return Tune(self.parts, weight, bias, names, shares, views)

    def _head(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight (D, C) and bias (C,) to begin with, in the unit that the loss is told."""
        scope, C = self.scope, len(self.ground.dataset.labels)
        if scope.head == "new":
            begin = targets_of(self.ground)[rows].mean() if self.ground.dataset.numeric else 0.0  # of these rows alone
            return np.zeros((self.start.x(rows[:1]).shape[1], C), np.float32), np.full(C, begin, np.float32)
        spec = self.start.probe.head.method
        usual = "ridge" if self.ground.dataset.numeric else "logistic"
        solved = self._solved(self.start.x(rows), rows, spec if self.start.probe.head.kind == "linear" else usual)
        weight, bias, unit = solved.arrays["weight"], solved.arrays["bias"], self.unit
        return (weight / unit.std).astype(np.float32), ((bias - unit.mean) / unit.std).astype(np.float32)

    @property
    def unit(self) -> Unit:
        """Of the numbers that are learnt."""
        return Unit.of(self.ground)

    def _solved(self, x: NDArray[np.float32], rows: Rows, spec: str) -> Head:
        """A linear head on features of some rows."""
        y, dataset = self.ground.dataset.targets()[rows], self.ground.dataset
        inner = make_folds(y, keep_together(dataset)[rows], 5, self.seed)
        return probes.choose(x, y, inner, len(dataset.labels), methods=(spec,))[0].head

    def feed_of(self, rows: Rows) -> Feed:
        """What of these rows is learnt from, and what of other sources."""
        own = np.intersect1d(rows, self.readable)
        return dataclasses.replace(self.feed, chosen=own if self.beside is None else np.union1d(own, self.beside))

    def _without(self, shown: Rows) -> Rows:
        """Those that are not of other sources."""
        return shown if self.beside is None else np.setdiff1d(shown, self.beside)

    def train(self, plan: Plan, rows: Rows, name: str) -> Trained:
        """One training, from where it was left."""
        feed, judge = self.feed_of(rows), None
        if self.scope.patience:
            feed, judge = self._judged(feed)
        own = self._without(feed.chosen)  # type: ignore[arg-type]
        steps = max(1, round(plan.steps * len(own) / len(np.intersect1d(self.ground.train, self.readable))))
        plan = dataclasses.replace(plan, steps=steps)
        whole, trained = self._fresh()
        method = self.method(own)
        stage = f"{self.spec.partition('(')[0].partition('+')[0].strip()} {name}"
        with self.remembered(name, {"plan": dataclasses.asdict(plan), "rows": digest(rows.tolist())}) as run:
            model = loop.train(trained, [method], feed, plan, run, self.watch, judge, stage, lines=1)
            if run is not None:
                self.curves[name] = run.curves()
                if "parts" in run.decided:
                    self.forced["parts of a step"] = run.decided["parts"]
        assert isinstance(model, Grafted)
        if whole is not trained:  # layers that were replaced in the upper part are replaced in the whole
            own = dict(trained.named_modules())  # without means that moved below the boundary
            for layer in {layer for stage in method.stages for layer in stage if layer in own}:
                whole.set_submodule(layer, own[layer])
        if self.scope.SOLVES:
            self._solve(model, rows)
        return Trained(whole, model)

    def _solve(self, model: Grafted, rows: Rows) -> None:
        """A head for what the trunk sees now, of the rows that it has learnt from."""
        rows = np.intersect1d(rows, self.readable)
        head = self._solved(self.material.features(model, rows, self.device), rows, "logistic")
        with torch.no_grad():
            model.head.weight.copy_(torch.from_numpy(head.arrays["weight"].T.copy()))
            model.head.bias.copy_(torch.from_numpy(head.arrays["bias"]))

    def note(self, name: str, rows: Rows, logits: NDArray[np.float32]) -> None:
        """How a fold's model did on the items that it had not seen."""
        dataset = self.ground.dataset
        known = statistics(activate(logits, dataset.activation), dataset.targets()[rows], dataset.multilabel)
        told = {key: known[key].value for key in ("accuracy", "log_loss", "r2", "mae") if key in known}
        self.asked.append({"name": name, "items": len(rows), **told})

    def _judged(self, feed: Feed) -> tuple[Feed, Judge]:
        """A tenth of the items is kept aside, and their log loss says when to stop."""
        rows, dataset = feed.chosen, self.ground.dataset
        assert rows is not None
        y = dataset.targets()
        tenth = make_folds(y[rows], keep_together(dataset)[rows], 10, self.seed) == 0
        aside = rows[tenth]

        def measure(model: nn.Module) -> float:
            assert isinstance(model, Grafted)
            return float(item_losses(activate(self.logits(model, aside), dataset.activation), y[aside]).mean())

        chosen = dataclasses.replace(feed, chosen=rows[~tenth])
        every = max(1, math.ceil(len(chosen.chosen) / (self.scope.batch or BATCH)))  # type: ignore[arg-type]
        return chosen, Judge(measure, every, self.scope.patience)

    @contextlib.contextmanager
    def remembered(self, name: str, settings: dict[str, Any]) -> Iterator[Run | None]:
        """Where a training of these settings keeps its checkpoints."""
        folder = self.run
        if folder is None:
            yield None
            return
        card = self.start.backbone.card
        whole = {"spec": self.spec, "backbone": card.key, "images": self.material.key, "name": name, **settings,
                 "targets": digest(self.ground.dataset.table["target"].to_pylist()), "seed": self.seed}  # fmt: skip
        if self.beside is not None:
            whole["beside"] = digest(self.feed.targets[self.beside].tolist())
        opened: list[Run] = []
        processes.decided(
            lambda: opened.append(Run(folder / f"{name.replace(' ', '-')}-{digest(whole)}", whole))
        )  # the first keeps it; the others take from it what it remembers
        with opened[0] if opened else contextlib.nullcontext() as run:
            yield run

    def logits(self, model: Grafted, rows: Rows) -> NDArray[np.float32]:
        """(len(rows), C) without augmentation; numbers as they are measured."""
        z, unit = self.material.logits(model, rows, self.device), self.unit
        return (z * unit.std + unit.mean).astype(np.float32) if self.ground.dataset.numeric else z

    def plain(self, rows: Rows) -> list[Tensor]:
        """What goes into the trained part, without augmentation."""
        return self.material.plain(rows, self.device)

    def shipped(self, trained: Trained) -> tuple[Tuned, Head, dict[str, Any]]:
        """The backbone, its head, and what was proven about the weights."""
        before = self.start.backbone.module()
        trunk, model, unit = trained.trunk, trained.model, self.unit
        weight, bias = (own.detach().cpu().numpy() for own in (model.head.weight, model.head.bias))
        if self.ground.dataset.numeric:
            weight, bias = (weight * unit.std).astype(np.float32), (bias * unit.std + unit.mean).astype(np.float32)
        shipped = self.material.whole(trunk, model.neck)
        head = Head(
            "linear",
            {"weight": np.ascontiguousarray(weight.T), "bias": bias.copy()},
            activation=self.ground.dataset.activation,
            method=self.spec,
        )
        stages = self.material.stages(trunk, self.scope)
        reader = getattr(self.start.backbone, "reader", None)
        tuned = Tuned.of(self.start.backbone.card, shipped, model.head.in_features, self.spec, reader)
        facts = {
            "spec": self.spec,
            "choices": {c.name: c.value for c in self.said} | self.forced,
            "proofs": proofs(before, trunk, self._frozen(trunk)),
            "stages": movement(before, trunk, stages.names if stages else [(n,) for n, _ in trunk.named_children()]),
            "curves": dict(self.curves),
            "folds": list(self.asked),
        }
        return tuned, head, facts

    def _frozen(self, trunk: nn.Module) -> list[str]:
        """Names of the layers that must not have moved."""
        stages = self.material.stages(trunk, self.scope)
        return list(stages.layers[: self.below]) if stages else []


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


def _source_head(start: Start) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The classifier that the backbone was pretrained with, where its file still holds it."""
    width = start.backbone.card.features
    return source_head(start.backbone, width) if width else None


def _device() -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"
