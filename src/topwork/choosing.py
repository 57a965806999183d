"""Choosing a backbone by measurement: candidates -> limits -> cost -> features of a sample -> scores -> one decision.

Every candidate sees the same stratified sample of the training items; its features go to the cache, so that those of
the winner are there when a model is fitted. Which of them wins says `judging.py`. What breaks a limit is left out
before it costs anything, where its card says so.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import processes, ranking
from topwork.backbones import catalogue, find
from topwork.backbones.source_head import probabilities, source_head
from topwork.data.split import divide, item_keys, keep_together
from topwork.errors import BadData, BadSetting, TopworkError
from topwork.evaluation.best import TOLERANCE, Best
from topwork.evaluation.score import score_repeats
from topwork.features.extract import extract
from topwork.features.latency import Latency, measure
from topwork.judging import AGREEING, accuracy_of, classes, guess_of, judge, paired, probed, repeated_folds, said_of
from topwork.shortlist import Limits, available, beyond_card, late, prior_of
from topwork.store import Store
from topwork.types import DEFAULTS, VERSION, Backbone, Choice, Dataset, Features, Metric, Skipped, Watch

SAMPLE = 1000  # items
LEAST = 20  # below that nothing can be said
SHARE = 1 / 2  # of what is left of a fit's budget
ANY = Limits()


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate and all that was found out about it."""

    spec: str
    backbone: Backbone
    features: Features  # of the sample
    latency: Latency
    held_out: Sequence[NDArray[np.float32]]  # (N, C) logits of the probe, one array a repeat
    evidence: NDArray[np.float64]  # (N,) probability that the probe gives to the true label
    metrics: Mapping[str, Metric]
    scores: Mapping[str, float]
    missing: Mapping[str, str]
    prior: float | None  # ImageNet top-1 in percent, known or guessed from its size
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Ranking:
    """All candidates that were measured, best first, and the decision."""

    candidates: tuple[Measured, ...]
    best: Best  # in the order of `candidates`
    left_out: tuple[Skipped, ...]
    sample: Dataset
    difference: tuple[float, float, float] | None  # accuracy of the pick less that of the runner-up, low, high: paired

    @property
    def pick(self) -> Measured:
        """The backbone to take."""
        return self.candidates[self.best.pick]

    @property
    def runner_up(self) -> Measured | None:
        """The best of the others."""
        return None if self.best.runner_up is None else self.candidates[self.best.runner_up]

    @property
    def reason(self) -> str:
        """Why this one, how sure, and what the next would cost: one line."""
        at, other = self.best.pick, self.runner_up
        accuracy = self.pick.metrics["accuracy"]
        right = "in the right fifth" if self.sample.numeric else "right"
        said = f"{100 * accuracy.value:.1f} % {right} on {len(self.sample):,} items, cross-validated"
        if other is None or self.difference is None:
            return f"{said}; nothing else was measured"
        d, low, high = (100 * value + 0.0 for value in self.difference)
        ratio = other.latency.single / self.pick.latency.single
        pace = f"{ratio:.1f} times as slow" if ratio >= 1 else f"{1 / ratio:.1f} times as fast"
        why = "best expected accuracy" if at == int(np.argmax(self.best.expected)) else "as good as the best and faster"
        return (
            f"{why}: {said}, the best with probability {self.best.chance[at]:.2f}; "
            f"{d:+.1f} points [{low:.1f}, {high:.1f}] over {other.spec}, which is {pace}"
        )


@dataclass(frozen=True, eq=False)
class Asked:
    """What all candidates have in common."""

    sample: Dataset
    labels: NDArray[Any]  # (N,) of the sample
    folds: Sequence[NDArray[Any]]  # (N,) of every repeat
    items: int  # of the whole dataset
    store: Store | None
    limits: Limits
    scores: Sequence[str] | None
    share: float  # a time.monotonic() when the measuring must end
    deadline: float  # and one when a pass over all items must have ended
    watch: Watch
    extraction: Mapping[str, Any]


def survey(
    dataset: Dataset,
    specs: Sequence[str],
    store: Store | None,
    *,
    limits: Limits = ANY,
    named: bool = True,
    scores: Sequence[str] | None = None,
    size: int = SAMPLE,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    share: float = math.inf,
    deadline: float = math.inf,
    watch: Watch | None = None,
    **extraction: Any,
) -> Ranking:
    """Measure each candidate on the same sample of the labelled rows of `dataset`, and decide.

    `named`: a candidate that cannot be opened is an error; otherwise it is left out. `scores`: names of the room, all
    of them by default. `share` and `deadline` are moments of `time.monotonic()`: when the measuring must end, and when
    a pass over the whole dataset must have ended.
    """
    watch = watch or Watch()
    sample = take_sample(dataset, size, seed)
    if dataset.numeric:
        watch.say("numbers: backbones are ranked by how well they tell the fifths apart in which the numbers lie")
    labels = np.unique(classes(sample), return_inverse=True)[1]
    folds = repeated_folds(labels, keep_together(sample), seed, item_keys(sample))
    asked = Asked(sample, labels, folds, len(dataset), store, limits, scores, share, deadline, watch, extraction)
    measured: list[Measured] = []
    left: list[Skipped] = []
    known = {entry.spec: entry for entry in catalogue.here()}
    for done, spec in enumerate(dict.fromkeys(specs)):
        watch.progress("rank", done, len(specs))
        facts = known.get(spec)
        try:
            reason = beyond_card(facts, limits) or ("" if not measured else late(spec, share))
            one = reason or _measure_one(spec, asked, facts, bool(measured))
        except TopworkError as error:
            if named:
                raise
            one = str(error)
        if isinstance(one, str):
            left.append(Skipped(spec, one))
            watch.say(f"{spec} left out: {one}")
        else:
            measured.append(one)
            watch.say(_line(one))
    watch.progress("rank", 1, 1)
    if not measured:
        reasons = "; ".join(f"{s.item}: {s.reason}" for s in left)
        raise BadSetting(f"No backbone is left to choose from. {reasons or 'None was named'}")
    return _decided(measured, left, asked, tolerance, seed)


def take_sample(dataset: Dataset, size: int = SAMPLE, seed: int = 0) -> Dataset:
    """About `size` labelled rows, every class with its share, chosen by the hash of their content."""
    if dataset.multilabel:
        raise BadSetting("Backbones are ranked for one label an item; these data have lists of labels. Name a backbone")
    rows = np.flatnonzero(dataset.table["target"].is_valid().to_numpy(zero_copy_only=False))
    if len(rows) > size:
        part = dataset.take(rows)
        share = size / len(rows)
        chosen = divide(part.targets(), keep_together(part), np.array([share, 1 - share]), seed, item_keys(part))
        rows = rows[chosen == 0]
    if len(rows) < LEAST or len(np.unique(dataset.targets()[rows])) < 2:
        raise BadData(
            f"{dataset.name}: {len(rows)} labelled items are too few to rank backbones. Expected {LEAST}, of 2 labels"
        )
    return dataset.take(rows)


def choose_for_fit(
    dataset: Dataset, store: Store | None, deadline: float, watch: Watch, *, held_out: bool = True, **extraction: Any
) -> Choice:
    """The backbone of `fit --backbone auto`: the best of what is here and fits into the budget, with its reason.

    Without held-out items the score will come from the same items that the choice was made on, and the reason says so.
    """
    bundled, usual = "needs no download and no torch; name another with --backbone", DEFAULTS[dataset.modality]
    specs = available(pixels=False, modality=dataset.modality)
    if len(specs) < 2:
        return Choice("backbone", usual, bundled)
    now = time.monotonic()
    share = now + SHARE * (deadline - now)
    try:
        found = survey(dataset, specs, store, named=False, scores=("probe", *AGREEING), share=share, deadline=deadline,
                       watch=watch, **extraction)  # fmt: skip
    except (BadData, BadSetting) as error:
        return Choice("backbone", usual, f"not ranked against {len(specs) - 1} other(s): {error}")
    if len(found.candidates) == 1:
        why = "; ".join(f"{s.item} left out: {s.reason}" for s in found.left_out)
        return Choice("backbone", found.pick.spec, f"{bundled} ({why})" if found.pick.spec == usual else why)
    why = f"{found.reason} ({len(found.candidates)} measured; --backbone names one)"
    if not held_out:
        why += ". Cross-validation measures the model on the same items, so its score flatters it a little"
    return Choice("backbone", found.pick.spec, why)


def choose_together(*given: Any, **options: Any) -> Choice:
    """The same where several processes share a fit: the first one chooses, all obey."""

    def choose() -> dict[str, Any]:
        with processes.alone():
            return dataclasses.asdict(choose_for_fit(*given, **options))

    return Choice(**processes.decided(choose))


def _measure_one(spec: str, asked: Asked, facts: catalogue.Entry | None, others: bool) -> Measured | str:
    """All about one candidate, or why it is left out; `others`: whether it may be, because another one is measured."""
    clock, sample, limits = [time.monotonic()], asked.sample, asked.limits
    backbone = find(spec, sample.modality)
    latency = measure(backbone, asked.store)
    if latency.bytes > limits.bytes:
        return f"{latency.bytes / 1e6:.1f} MB, the limit is {limits.bytes / 1e6:g} MB (--max-size)"
    if latency.single > limits.latency_seconds:
        ms = (latency.single * 1000, limits.latency_seconds * 1000)
        return f"{ms[0]:.1f} ms an item, the limit is {ms[1]:g} ms (--max-latency)"
    clock.append(time.monotonic())
    if others and clock[-1] + latency.batch * len(sample) > asked.share:
        return f"its features of the sample would take about {latency.batch * len(sample):,.0f} s (--budget)"
    if others and clock[-1] + latency.batch * asked.items > asked.deadline:
        return f"a pass over all items would take about {latency.batch * asked.items:,.0f} s (--budget)"
    features = extract(sample, backbone, asked.store, progress=asked.watch.progress, **asked.extraction)
    clock.append(time.monotonic())
    y, parts = asked.labels[features.rows], [one[features.rows] for one in asked.folds]
    head = source_head(backbone, features.x.shape[1])
    given = ranking.Given(
        probabilities(features.x, head) if head else None, parts[0], keep_together(sample)[features.rows]
    )
    evidence, held_out = probed(features.x, y, parts)
    names = [name for name in asked.scores or ranking.names() if name != "probe"]
    values, missing = ranking.compute(features.x, y, given, names)
    metrics = score_repeats([said_of(z, y) for z in held_out], parts)
    clock.append(time.monotonic())
    names = ["latency", "extract", "score"]
    seconds: dict[str, float] = dict(zip(names, np.diff(clock).tolist(), strict=True))
    return Measured(
        spec, backbone, features, latency, held_out, evidence, metrics,
        {"probe": accuracy_of(held_out, y)} | values, missing, prior_of(backbone, facts), seconds,
    )  # fmt: skip


def _decided(measured: list[Measured], left: list[Skipped], asked: Asked, tolerance: float, seed: int) -> Ranking:
    """Paired on the items that every candidate could read; best first."""
    rows = np.array(sorted(set.intersection(*(set(one.features.rows.tolist()) for one in measured))))
    labels, folds = asked.labels[rows], [part[rows] for part in asked.folds]
    places = [np.searchsorted(one.features.rows, rows) for one in measured]
    evidence = [one.evidence[at] for one, at in zip(measured, places, strict=True)]
    held_out = [[z[at] for z in one.held_out] for one, at in zip(measured, places, strict=True)]
    guess = guess_of([one.prior for one in measured], [one.scores for one in measured])
    costs = np.array([one.latency.single for one in measured])

    def best_of(order: Sequence[int]) -> Best:
        picked = list(order)
        return judge(
            [evidence[k] for k in picked],
            [held_out[k] for k in picked],
            labels,
            folds,
            costs[picked],
            guess[picked],
            tolerance,
            seed,
        )

    first = best_of(range(len(measured)))
    order = np.lexsort((np.arange(len(measured)), -first.expected)).tolist()
    best = best_of(order)
    gap = None
    if best.runner_up is not None:
        first, second = (held_out[order[at]] for at in (best.pick, best.runner_up))
        gap = paired(first, second, labels, folds)
    return Ranking(tuple(measured[k] for k in order), best, tuple(left), asked.sample, gap)


def _line(one: Measured) -> str:
    accuracy = one.metrics["accuracy"]
    return (
        f"{one.spec}: accuracy {accuracy} on the sample, {1000 * one.latency.single:.1f} ms an item, "
        f"{one.features.computed:,} forward passes in {one.seconds['extract']:.1f} s"
    )


def tell(found: Ranking, **facts: Any) -> dict[str, Any]:
    """The numbers of a ranking: what the page, the terminal and --json show."""
    best, sample = found.best, found.sample
    front = frontier([(one.latency.single, one.metrics["accuracy"].value) for one in found.candidates])
    return {
        "topwork": VERSION,
        "kind": "ranking",
        "modality": sample.modality,
        **facts,
        "sample": {
            "items": len(sample),
            "classes": len(np.unique(classes(sample))),
            "smallest_class": int(np.unique(classes(sample), return_counts=True)[1].min()),
        },
        "candidates": [
            {
                "spec": one.spec,
                "name": one.backbone.card.name,
                "pick": at == best.pick,
                "runner_up": at == best.runner_up,
                "front": at in front,
                "metrics": {name: dataclasses.asdict(one.metrics[name]) for name in ("accuracy", "log_loss")},
                "expected": {"value": best.expected[at], "low": best.low[at], "high": best.high[at]},
                "chance": best.chance[at],
                "regret": best.regret[at],
                "latency": {"single": one.latency.single, "batch": one.latency.batch},
                "bytes": one.latency.bytes,
                "parameters": one.backbone.card.parameters,
                "features": one.features.x.shape[1],
                "licence": one.backbone.card.licence,
                "prior": one.prior,
                "scores": dict(one.scores),
                "missing": dict(one.missing),
                "forward_passes": one.features.computed,
                "seconds": dict(one.seconds),
            }
            for at, one in enumerate(found.candidates)
        ],
        "pick": found.pick.spec,
        "runner_up": found.runner_up.spec if found.runner_up else None,
        "difference": dict(zip(("value", "low", "high"), found.difference, strict=True)) if found.difference else None,
        "reason": found.reason,
        "left_out": [dataclasses.asdict(one) for one in found.left_out],
    }


def frontier(points: Sequence[tuple[float, float]]) -> set[int]:
    """Which of (cost, worth) no other one beats: none that costs as little is worth as much."""
    kept: set[int] = set()
    best = -math.inf
    for at in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[at][1] > best:
            kept.add(at)
            best = points[at][1]
    return kept
