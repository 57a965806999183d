"""The climb: majority class -> raw pixels -> frozen probe -> last stages -> everything, each kept only where it pays.

Of texts: majority class -> n-grams -> static embeddings -> frozen encoder -> contrastive pairs -> last layers -> all.

Every step is a backbone and a head, so all of them are compared, exported and proven in the same way. Up to the probe
the backbone is frozen and the head is solved on its cached features; a tuned step (`finetune.py`) changes the backbone,
beginning from that probe, and trains on everything only after its folds have shown that it pays. The choice between
them is made on out-of-fold predictions for the training items alone; held-out items only ever measure. A step is kept
if, paired item by item, it gets more of them right (exact McNemar test, one-sided, 5 %), or at least as many and more
surely (sign-flip test on the log losses, one-sided, 5 %). Where targets are numbers: if its R^2 is higher, or no lower
and its absolute errors are smaller, by the same tests.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork import plugins, processes
from topwork.adaptation import probe as probes
from topwork.backbones import find
from topwork.backbones.torch_backbone import need_train
from topwork.errors import BadSetting, MissingExtra, UnknownName
from topwork.evaluation.calibrate import activate, band, cross_fitted
from topwork.evaluation.paired import compare_hits, compare_losses, compare_metric
from topwork.evaluation.score import score, score_repeats, widening
from topwork.features.extract import extract
from topwork.ground import Ground, Rows
from topwork.nn.heads import probabilities
from topwork.nn.log_loss import fit_temperature, losses
from topwork.store import Store
from topwork.tasks import checked, item_losses, main_metric
from topwork.tasks.classification import hits
from topwork.types import DEFAULTS, Backbone, Dataset, Features, Head, Metric, Predictions, Probe, Step, Watch

if TYPE_CHECKING:
    from topwork.finetune import Bench

LEVEL = 0.05  # of the one-sided tests
SLICES = (32, 32, 160)  # images: one slice pays for opening the backbone, the difference of the others is the pace
SAMPLED = sum(SLICES)
AUTO = ("majority", "pixels", "probe", "last_stages", "lp_ft")
AUTO_TEXT = ("majority", "ngrams", "static", "probe", "setfit", "last_stages", "lp_ft")
SIMPLE = {  # steps that have a backbone of their own: which one, and how its head is solved
    "image": {"majority": ("bundled:pixels", "majority"), "pixels": ("bundled:pixels", "logistic")},
    "text": {
        "majority": ("bundled:text_small", "majority"),
        "ngrams": ("bundled:ngrams", "sparse_logistic"),
        "static": ("bundled:text_small", "logistic"),
    },
}
NUMBERS = {
    "majority": "mean",
    "logistic": "ridge",
    "sparse_logistic": "sparse_ridge",
}  # the same where they are targets
CONSTANT = (("majority",), ("mean",))  # methods that do not look at the item
CLASSES_ONLY = ("setfit",)
TUNING = "adaptation.tuning"


class Lesson(Protocol):
    """Other labelled data that a step learns from (`source_steps.py`)."""

    @property
    def names(self) -> str:
        """In one line."""
        ...

    def moved(self, frozen: Rung, terms: Terms) -> tuple[Backbone, dict[str, Any]] | str:
        """The backbone after them, with what was proven about it; or, in words, why there is no time for them."""
        ...

    def joined(self, ground: Ground, backbone: Backbone, terms: Terms) -> tuple[Ground, Callable[[Bench], Bench]]:
        """The ground with their items behind it, and what puts them on a bench."""
        ...


@dataclass(frozen=True)
class Plan:
    """One step before it is taken: which backbone, which ways to solve the head."""

    name: str
    backbone: str
    methods: tuple[str, ...]
    required: bool = False  # taken whatever the budget says
    tuned: bool = False  # its method changes the backbone, too; of several the first that the time allows
    lesson: Lesson | None = None  # other labelled data to learn from


@dataclass(frozen=True, eq=False)
class Rung:
    """One step that was taken."""

    plan: Plan
    backbone: Backbone
    features: Features  # of every row, training and held out
    probe: Probe  # its head has the temperature of its out-of-fold logits
    candidates: tuple[Probe, ...]
    rows: Rows  # training rows that have features, in the order of probe.held_out
    held: Rows  # held-out rows that have features
    seconds: float
    frozen: Rung | None = None  # of a tuned step: the probe that it began from
    asked: NDArray[np.float32] | None = None  # its logits of the held-out rows, where it was not trained on everything
    facts: Mapping[str, Any] = field(default_factory=dict)  # of a tuned step: what was trained, and what was proven

    @property
    def spec(self) -> str:
        """Backbone and head in one line."""
        return f"{self.plan.backbone} + {self.probe.head.method}"

    def x(self, rows: Rows) -> NDArray[np.float32]:
        """Features (N, D) of rows of the dataset; rows that lie side by side are a view, not a copy."""
        at = np.searchsorted(self.features.rows, rows)
        if len(at) and at[-1] - at[0] == len(at) - 1 and (np.diff(at) == 1).all():
            return self.features.x[at[0] : at[-1] + 1]
        return self.features.x[at]


@dataclass(frozen=True, eq=False)
class Terms:
    """What all steps of one climb have in common."""

    store: Store | None
    deadline: float  # a time.monotonic() that optional steps must not overrun
    watch: Watch
    run: Path | None = None  # where trainings keep what they need to go on after a kill
    seed: int = 0
    extraction: Mapping[str, Any] = field(default_factory=dict)  # options of `extract`

    @property
    def engine(self) -> str:
        """What runs frozen backbones."""
        return self.extraction.get("engine", "auto")

    def extract(self, dataset: Dataset, backbone: Backbone) -> Features:
        """Features of every item, cached."""
        return extract(dataset, backbone, self.store, progress=self.watch.progress, **self.extraction)

    def until(self, deadline: float) -> Terms:
        """The same with another deadline."""
        return dataclasses.replace(self, deadline=deadline)


@dataclass(frozen=True, eq=False)
class Climb:
    """The way up: all rungs, what they were worth, and the one that is kept."""

    rungs: tuple[Rung, ...]
    steps: tuple[Step, ...]
    best: Rung


def usual(modality: str, backbone: str = "", numeric: bool = False) -> tuple[str, ...]:
    """The steps of `--steps auto`."""
    steps = AUTO if modality == "image" else AUTO_TEXT
    if numeric:
        steps = tuple(NUMBERS.get(step, step) for step in steps if step not in CLASSES_ONLY)
    if backbone == DEFAULTS["text"]:  # it is a table: there are no layers to tune
        return tuple(step for step in steps if step != "static" and step not in plugins.names(TUNING))
    return steps


def plan(
    steps: str | Sequence[str], backbone: str, modality: str = "image", numeric: bool | None = None
) -> tuple[Plan, ...]:
    """Turn `--steps` into plans; `numeric`: whether targets are numbers, None where nobody knows yet.

    A probe by name, e.g. `logistic(l2=0.1)`, is a probe step solved in that way; what begins with a name of tuning/,
    e.g. `last_stages(1) + l2_sp`, changes the backbone. Raises BadSetting or UnknownName before any work begins.
    """
    auto = usual(modality, backbone, bool(numeric))
    wanted = auto if steps == "auto" else tuple(_split(steps) if isinstance(steps, str) else steps)
    if not wanted:
        raise BadSetting(f"--steps is empty. Expected auto, or some of: {', '.join(auto)}, or a probe such as logistic")
    names = NUMBERS if numeric else {}
    known = {
        names.get(name, name): Plan(names.get(name, name), trunk, (names.get(method, method),))
        for name, (trunk, method) in SIMPLE[modality].items()
    }
    only = names.get("logistic", "logistic")
    methods = (only,) if modality == "text" and backbone == DEFAULTS["text"] else ("auto",)
    known["probe"] = Plan("probe", backbone, methods)
    plans = []
    for spec in wanted if steps != "auto" else without_torch(wanted):
        tuned = spec.partition("+")[0].partition("(")[0].strip() in (*plugins.names(TUNING), "search")
        if tuned and steps != "auto":
            _check_tuning(spec, backbone, numeric)
        elif spec not in known and not tuned:
            name = spec.partition("(")[0].strip()
            if name not in plugins.names(probes.ROOM):
                raise UnknownName.among(
                    name, "steps", {*known, *plugins.names(probes.ROOM), *plugins.names(TUNING), "search"}
                )
            plugins.make(probes.ROOM, spec)
        named = known.get(spec, Plan(spec, backbone, (spec,), tuned=tuned))
        plans.append(dataclasses.replace(named, required=steps != "auto" or spec == auto[0]))
    return tuple(plans)


def reduced(plans: Sequence[Plan], by: str) -> tuple[Plan, ...]:
    """The plans with a reduction of the frozen features before every linear head; steps below and above stay."""
    below = {trunk for steps in SIMPLE.values() for trunk, _ in steps.values()} - {*DEFAULTS.values()}

    def behind(method: str) -> str:
        linear = method.partition("(")[0] in ("auto", "logistic", "ridge", "nearest_mean")
        return f"reduced(by={by!r}, probe={method!r})" if linear else method

    return tuple(
        one if one.tuned or one.backbone in below else dataclasses.replace(one, methods=tuple(map(behind, one.methods)))
        for one in plans
    )


def without_torch(steps: Sequence[str]) -> tuple[str, ...]:
    """The usual steps that can be taken here: those that change the backbone need torch."""
    if importlib.util.find_spec("torch") is not None:
        return tuple(steps)
    return tuple(step for step in steps if step not in plugins.names(TUNING))


def _check_tuning(spec: str, backbone: str, numeric: bool | None) -> None:
    """What can be wrong with a tuned step, before any work."""
    need_train(f"The step '{spec}'")
    from topwork import finetune, search

    if search.is_search(spec):
        if processes.count() > 1:
            raise BadSetting("A search tries one thing after the other in one process. Start it without a launcher")
        search.check(spec)
        find(backbone).module()
        return
    finetune.check(spec, find(backbone), numeric)  # an ONNX file can only be used frozen


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
        step = Step(one.name, rung.spec, _metrics(self.ground, rung), rung.seconds, pays, verdict, gain)
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
    """The backbone; one without weights is fitted to the training items, without their labels."""
    backbone = find(one.backbone)
    fitted = getattr(backbone, "fitted", None)
    return fitted(ground.dataset.take(ground.train).inputs()) if fitted else backbone


def _tuned(ground: Ground, one: Plan, frozen: Rung, terms: Terms) -> tuple[Rung, Callable[[], Rung]] | str:
    """A tuned step up to its comparison, and what trains it on everything; or, in words, why it is left out."""
    must, endless = one.required, one.required and "epochs=" in one.methods[0]  # as long as was asked for
    common = (math.inf if endless else terms.deadline, terms.run, terms.seed, terms.watch, terms.engine)
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
                found = search.tune(whole, spec, start, *common)
            else:
                found = finetune.tune(whole, called, techniques(spec), start, *common, must=must, **more)
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
        found = lesson.moved(frozen, terms.until(math.inf) if one.required else terms)
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


def solve(ground: Ground, one: Plan, backbone: Backbone, features: Features, began: float, watch: Watch) -> Rung:
    """Solve the head on the training rows and give it the temperature of its out-of-fold logits."""
    rows, held = (wanted[np.isin(wanted, features.rows)] for wanted in (ground.train, ground.held))
    rung = Rung(one, backbone, features, None, (), rows, held, 0.0)  # type: ignore[arg-type]
    y, labels = ground.dataset.targets()[rows], len(ground.dataset.labels)
    best, candidates = probes.choose(
        rung.x(rows), y, ground.folds[rows], labels, methods=one.methods, progress=watch.progress
    )
    temperature = fit_temperature(best.held_out, y)
    settings = {**best.head.settings, **band(best.held_out, y)}
    best = dataclasses.replace(best, head=dataclasses.replace(best.head, temperature=temperature, settings=settings))
    return dataclasses.replace(rung, probe=best, candidates=candidates, seconds=time.monotonic() - began)


def out_of_fold(ground: Ground, rung: Rung) -> Predictions:
    """What a step says of its training items, each asked of a head that has not seen its fold."""
    y, dataset = ground.dataset.targets()[rung.rows], ground.dataset
    return ground.predictions(
        rung.rows, cross_fitted(rung.probe.held_out, y, ground.folds[rung.rows], dataset.activation)
    )


def held_out(ground: Ground, rung: Rung) -> Predictions:
    """What a step says of the held-out items."""
    head = rung.probe.head
    if rung.asked is not None:
        return ground.predictions(rung.held, activate(rung.asked, head.activation, head.temperature))
    return ground.predictions(rung.held, probabilities(head, rung.x(rung.held)))


def _metrics(ground: Ground, rung: Rung) -> Mapping[str, Metric]:
    if len(rung.held):
        return score(held_out(ground, rung))
    return score_repeats([out_of_fold(ground, rung)], [ground.folds[rung.rows]])


def compare(ground: Ground, best: Rung, new: Rung, metric: str = "auto") -> tuple[bool, str, dict[str, Any]]:
    """Whether a step pays over the best one so far, and why, in words and in numbers."""
    sides = [(rung, out_of_fold(ground, rung)) for rung in (best, new)]
    common = np.intersect1d(best.rows, new.rows)
    (p, y), (q, _) = (
        checked(said.probabilities[at], said.targets[at], said.multilabel)
        for rung, said in sides
        for at in [np.isin(rung.rows, common)]
    )
    first, second = (ground.predictions(common, x) for x in (p, q))
    widen = widening([second], [ground.folds[common]])
    metric = main_metric(y) if metric == "auto" else metric
    if metric == "accuracy":
        right = compare_hits(hits(p, y), hits(q, y), widen)
    else:
        right = compare_metric(first, second, metric, widen)
    measure = "absolute error" if ground.dataset.numeric else "log loss"
    loss = compare_losses(item_losses(p, y), item_losses(q, y), widen, measure=measure)
    words = right.over(best.plan.name)
    surer = right.difference >= 0 and loss.difference > 0 and loss.p_value / 2 < LEVEL
    gain = {"over": best.plan.name, **{k: getattr(right, k) for k in ("difference", "low", "high", "p_value")},
            "surer": surer, "metric": metric}  # fmt: skip
    if right.difference > 0 and right.p_value / 2 < LEVEL:
        return True, words, gain
    if surer:
        return True, f"{words}, and {'closer' if ground.dataset.numeric else 'surer'}: {loss.over()}", gain
    return False, f"{words}: does not pay", gain


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


def _split(steps: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for letter in steps:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
