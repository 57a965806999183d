"""The climb: majority class -> raw pixels -> frozen probe -> last stages -> everything, each kept only where it pays.

Every step is a backbone and a head, so all of them are compared, exported and proven in the same way. Which steps there
are says `planning.py`, whether one pays `rung.py`. Up to the probe the backbone is frozen and the head is solved on its
cached features; a tuned step (`finetune/`) changes the backbone, beginning from that probe, and trains on everything
only after its folds have shown that it pays.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topwork import processes
from topwork.backbones import find, fitted
from topwork.backbones.torch_backbone import need_train
from topwork.errors import BadSetting, MissingExtra
from topwork.evaluation.calibrate import band
from topwork.ground import Ground
from topwork.nn.log_loss import fit_temperature, losses
from topwork.planning import CONSTANT, Plan
from topwork.rung import Climb, Rung, compare, metrics_of, solve
from topwork.store import Store
from topwork.tasks import main_metric
from topwork.terms import Terms
from topwork.types import Backbone, Dataset, Features, Head, Probe, Step, Watch

SLICES = (32, 32, 160)  # images: one slice pays for opening the backbone, the difference of the others is the pace
SAMPLED = sum(SLICES)


def climb(
    ground: Ground,
    plans: Sequence[Plan],
    store: Store | None,
    *,
    deadline: float,
    watch: Watch,
    run: Path | None = None,
    seed: int = 0,
    metric: str = "auto",
    so_far: Callable[[Climb], None] | None = None,
    **extraction: Any,
) -> Climb:
    """Take the steps in order; `deadline` is a `time.monotonic()` that optional steps must not overrun.

    `run`: where trainings keep what they need to go on after a kill. `so_far` hears of the way up to a step that may
    take long, before it is taken. `metric`: of the task ("auto": its main one); a step pays by it, or by being no worse
    and surer.
    """
    way = Ascent(ground, Terms(store, deadline, watch, run, seed, extraction), metric, so_far)
    for number, one in enumerate(plans):
        lessons = sum(plan.lesson is not None for plan in plans[number:])
        way.take(one, _share(deadline, lessons + 1) if one.lesson else deadline)  # as much is left for what comes after
    return way.climb()


@dataclass(eq=False)
class Ascent:
    """A climb on its way."""

    ground: Ground
    terms: Terms
    metric: str
    so_far: Callable[[Climb], None] | None
    rungs: list[Rung] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    best: Rung | None = None
    after: dict[str, Rung] = field(default_factory=dict)  # by backbone: the source step kept, where tuned ones begin
    told: int = -1  # rungs that `so_far` has heard of

    def climb(self) -> Climb:
        """What has been taken."""
        assert self.best is not None  # the first step is always required
        return Climb(tuple(self.rungs), tuple(self.steps), self.best)

    def take(self, one: Plan, deadline: float) -> None:
        """One step: taken and compared, or left out in words."""
        began, source = time.monotonic(), one.lesson is not None and not one.tuned
        if one.tuned or one.lesson:
            self._tell()
            frozen = self._frozen_of(one, began)
            taken = (_tuned if one.tuned else _taught)(self.ground, one, frozen, self.terms.until(deadline))
        else:
            frozen, taken = None, self._solved(one, began)
        if isinstance(taken, str):
            self.steps.append(Step(one.name, one.backbone, {}, time.monotonic() - began, False, taken))
            self.terms.watch.say(f"{one.name}: {taken}")
            return
        rung, finish = taken
        pays, verdict, gain = (True, "the start", None) if self.best is None else self._judged(self.best, rung)
        if source and frozen is not None and self.best is not frozen:  # whether the source helps
            _, words, gain = self._judged(frozen, rung)
            verdict = f"{words.removesuffix(': does not pay')}; {verdict}"
        rung = dataclasses.replace(finish() if pays else rung, seconds=time.monotonic() - began)
        step = Step(one.name, rung.spec, metrics_of(self.ground, rung), rung.seconds, pays, verdict, gain)
        name = main_metric(self.ground.dataset.targets())
        self.terms.watch.say(f"{one.name}: {name} {step.metrics.get(name, '-')} in {rung.seconds:.1f} s, {verdict}")
        self.rungs.append(rung)
        self.steps.append(step)
        if pays:
            self.best = rung
            if source:
                self.after[one.backbone] = rung

    def _judged(self, old: Rung, new: Rung) -> tuple[bool, str, dict[str, Any]]:
        return processes.decided(lambda: compare(self.ground, old, new, self.metric))

    def _tell(self) -> None:
        """What may take long comes next."""
        if self.so_far is not None and self.best is not None and self.told != len(self.rungs):
            self.so_far(self.climb())
            self.told = len(self.rungs)

    def _frozen_of(self, one: Plan, began: float) -> Rung:
        """The frozen probe that a step begins from."""
        if one.tuned and one.backbone in self.after:
            return self.after[one.backbone]
        for rung in self.rungs:
            if rung.plan.backbone == one.backbone and not rung.plan.tuned and rung.plan.methods not in CONSTANT:
                return rung
        backbone = _found(one, self.ground)
        features = self.terms.extract(self.ground.dataset, backbone)
        return solve(self.ground, Plan("probe", one.backbone, ("auto",)), backbone, features, began, self.terms.watch)

    def _solved(self, one: Plan, began: float) -> tuple[Rung, Callable[[], Rung]] | str:
        """A head on a frozen backbone."""
        ground, terms = self.ground, self.terms
        backbone = _found(one, ground)
        hurry = not one.required and one.backbone != "bundled:ngrams"  # they are counted faster than a sample
        sample = _sample(ground.dataset, backbone, terms) if hurry else []
        wait = processes.decided(lambda: _too_long(sample, len(ground.dataset), terms.deadline))
        if wait is not None:
            return wait
        features = _with_sample(terms.extract(ground.dataset, backbone), sample)
        rung = solve(ground, one, backbone, features, began, terms.watch)
        return rung, lambda: rung


def _found(one: Plan, ground: Ground) -> Backbone:
    """The backbone, ready: as far as it has to be fitted, to the training items."""
    return fitted(find(one.backbone), lambda: ground.dataset.take(ground.train).inputs())


def _tuned(ground: Ground, one: Plan, frozen: Rung, terms: Terms) -> tuple[Rung, Callable[[], Rung]] | str:
    """A tuned step up to its comparison, and what trains it on everything; or, in words, why it is left out."""
    must, endless = one.required, one.required and "epochs=" in one.methods[0]  # as long as was asked for
    own = terms.until(math.inf) if endless else terms
    try:
        need_train(f"The step '{one.name}'")
        from topwork import finetune, search
        from topwork.adaptation.graft import techniques

        start = finetune.Start(frozen.backbone, frozen.x, frozen.probe)
        whole, more = ground, {}
        if one.lesson:
            whole, more["join"] = one.lesson.joined(ground, frozen.backbone, terms)
        found, called = "", one.methods[0]
        for spec in one.methods:
            called = f"{spec} with {one.lesson.names}" if one.lesson else spec
            if search.is_search(spec):
                found = search.tune(whole, spec, start, own)
            else:
                found = finetune.tune(whole, called, techniques(spec), start, own, must=must, **more)
            if not isinstance(found, str):
                break
    except (MissingExtra, BadSetting) as error:
        if one.required:
            raise
        return f"left out: {error}"
    if isinstance(found, str):
        return found
    y = ground.dataset.targets()[found.rows]
    temperature = fit_temperature(found.held_out, y)
    loss = float(losses(found.held_out / temperature, y).mean())
    spread = band(found.held_out, y)
    head = Head("linear", {}, ground.dataset.activation, temperature, called, spread)
    probe = Probe(head, found.held_out, loss, found.reason)
    held = np.intersect1d(ground.held, found.readable)
    one = dataclasses.replace(one, backbone=frozen.plan.backbone)
    rung = Rung(one, frozen.backbone, frozen.features, probe, (), found.rows, held, 0.0, frozen, found.held)

    def finish() -> Rung:
        backbone, head, facts = found.again()
        if processes.rank():
            return rung  # the first one ships it
        head = dataclasses.replace(head, temperature=temperature, settings={**head.settings, **spread})
        asked = held if len(held) else found.rows
        with processes.alone():
            features = dataclasses.replace(terms, store=None).extract(ground.dataset.take(asked), backbone)
        features = dataclasses.replace(features, rows=asked[features.rows], choices=(*features.choices, *found.choices))
        return dataclasses.replace(
            rung,
            backbone=backbone,
            features=features,
            probe=dataclasses.replace(probe, head=head),
            asked=None,
            facts=facts,
        )

    return rung, finish


def _taught(ground: Ground, one: Plan, frozen: Rung, terms: Terms) -> tuple[Rung, Callable[[], Rung]] | str:
    """The frozen probe on the backbone that other data have changed; or, in words, why it is left out."""
    began, lesson = time.monotonic(), one.lesson
    assert lesson is not None
    try:
        found = lesson.moved(frozen.backbone, terms.until(math.inf) if one.required else terms)
    except (MissingExtra, BadSetting) as error:
        if one.required:
            raise
        return f"left out: {error}"
    if isinstance(found, str):
        return found
    backbone, facts = found
    features = terms.extract(ground.dataset, backbone)
    one = dataclasses.replace(one, backbone=f"{one.backbone} after {lesson.names}")
    rung = dataclasses.replace(solve(ground, one, backbone, features, began, terms.watch), facts=facts)
    return rung, lambda: rung


def _share(deadline: float, parts: int) -> float:
    """A deadline after one of so many parts of the time that is left."""
    now = time.monotonic()
    return now + max(deadline - now, 0) / parts


def _sample(dataset: Dataset, backbone: Backbone, terms: Terms) -> list[Features]:
    """Features of the first slices of a large dataset, which stay in the cache; none where there is no hurry."""
    if np.isinf(terms.deadline) or len(dataset) <= 4 * SAMPLED:
        return []
    ends = np.cumsum(SLICES)
    slices = [np.arange(end - size, end) for end, size in zip(ends, SLICES, strict=True)]
    return [dataclasses.replace(terms, watch=Watch()).extract(dataset.take(rows), backbone) for rows in slices]


def _too_long(sample: Sequence[Features], items: int, deadline: float) -> str | None:
    """Why a step does not fit into the budget, at the pace of its sample; opening the backbone is not paid twice."""
    if not sample:
        return None
    _, short, long = sample
    more = long.computed - short.computed
    if more <= 0:  # known from an earlier run
        return None
    pace = max(long.seconds - short.seconds, 0) / more  # seconds an image
    needed, left = pace * (items - SAMPLED), max(deadline - time.monotonic(), 0)
    if needed < left:
        return None
    return f"left out: it would take about {needed:,.0f} s and the budget has {left:,.0f} s left (--budget)"


def _with_sample(features: Features, sample: Sequence[Features]) -> Features:
    """The sample's forward passes are passes of this run, not found in the cache."""
    passes = sum(part.computed for part in sample)
    seconds = sum(part.seconds for part in sample)
    return dataclasses.replace(
        features,
        computed=features.computed + passes,
        cached=features.cached - passes,
        seconds=features.seconds + seconds,
    )
