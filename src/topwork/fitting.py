"""One fit, stage by stage: begin -> read -> inspect -> divide -> plan -> climb -> measure and save -> end.

Every stage takes what those before it have found out and gives back what it has found itself; `verbs.fit` is the page
that calls them. Where several processes share a fit all walk the same stages, and the first one measures and writes.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topwork import (
    account,
    choosing,
    ladder,
    live,
    planning,
    plugins,
    processes,
    redacting,
    saving,
    settings,
    source_steps,
    wishes,
)
from topwork import ground as grounds
from topwork.data.inspect import check_trainable
from topwork.data.inspect import inspect as look
from topwork.data.join import join
from topwork.errors import BadData, UnknownName
from topwork.ground import Ground
from topwork.growing import Since
from topwork.modalities import rows
from topwork.modalities.redaction import Redaction
from topwork.planning import Plan
from topwork.rung import Climb
from topwork.source_steps import Source
from topwork.store import Remembering, tracking
from topwork.store.cache import open_cache
from topwork.tasks import of
from topwork.types import DEFAULTS, Choice, Dataset, Findings, Watch

ENCRYPTED = (
    "encrypted: cache, model, report and checkpoints; decoded images and activations stay in memory, and the log of a "
    "run holds numbers alone"
)


@dataclass(frozen=True, eq=False)
class Job:
    """A fit whose settings can work, before its data are read."""

    asked: wishes.Fit
    watch: Watch
    clock: wishes.Stopwatch
    target: Path
    store: Remembering
    modality: str
    earlier: Since | None  # the model that it goes on from
    backbone: str  # as asked for, or that of the earlier model
    plans: tuple[Plan, ...]
    choices: tuple[Choice, ...]  # of the plans
    taken: tuple[Choice, ...]  # from the earlier model
    rule: str  # that divides
    columns: Mapping[str, str | None]  # that the rule needs
    tracker: tracking.Tracker | None
    deadline: float  # a time.monotonic() that optional steps must not overrun

    @property
    def run(self) -> Path:
        """Where trainings keep what they need to go on after a kill."""
        return self.target.absolute().with_name(f"{self.target.name}.run")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return not processes.rank()


@dataclass(frozen=True, eq=False)
class Given:
    """What was read, and what the settings mean for it."""

    dataset: Dataset
    others: list[tuple[str, Dataset]]  # other labelled data that may help, and where they come from
    masking: Redaction | None
    metric: str
    plans: tuple[Plan, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """What inspection has found."""

    found: Findings
    lessons: tuple[Source, ...]
    grown: str  # what measures, in words, where an earlier model says so


@dataclass(frozen=True, eq=False)
class Way:
    """All that a climb needs to know, and what its report says besides."""

    ground: Ground
    found: Findings
    plans: tuple[Plan, ...]
    metric: str
    facts: Mapping[str, Any]


def begin(asked: wishes.Fit, watch: Watch) -> Job:
    """Check the settings; what cannot work ends it before work begins."""
    processes.together()
    watch, clock = Watch() if processes.rank() else watch, wishes.Stopwatch()
    target = Path(asked.out) if asked.out is not None else Path("models") / wishes.name_of(asked.data)
    store = open_cache()  # a server that cannot be used, or a key that is none, ends it here
    if settings.encrypted():
        watch.say(ENCRYPTED)
    with processes.first():
        named = {"item_column": asked.item_column, "label_column": asked.label_column}
        modality = wishes.modality_of(asked.task, asked.data, asked.query, **named)
        earlier, backbone, taken = wishes.earlier(asked.since, asked.backbone)
        plans, choices = wishes.check_settings(modality, backbone, asked.steps, asked.split, target)
        if asked.reduce is not None:
            plugins.make("adaptation.reduction", asked.reduce)
    rule, columns = wishes.carried(
        asked.split, group_column=asked.group, time_column=asked.time_column, domain_column=asked.domain_column
    )
    if isinstance(asked.data, Dataset):
        rule = asked.split  # what is read already has the columns that the rule names
    tracker = tracking.make(asked.track)
    deadline = time.monotonic() + wishes.seconds_of(asked.budget)
    return Job(asked, watch, clock, target, store, modality, earlier, backbone, plans, tuple(choices), tuple(taken),
               rule, columns, tracker, deadline)  # fmt: skip


def read(job: Job) -> Given:
    """Read the data, test data of their own and sources, masked where that was asked; choose what must improve."""
    asked = job.asked
    with job.clock("read"):
        masking = redacting.without_needy(asked.redact)
        if masking is None and job.earlier is not None:
            masking = redacting.of_model(job.earlier.model)
        dataset = _dataset(job)
        others = source_steps.read(asked.sources, asked.source_how)
        if masking is not None:
            dataset, others = redacting.masked(dataset, others, masking, job.watch)
    if dataset.modality != job.modality:
        raise BadData(f"{dataset.name} holds {dataset.modality}s, but the task {asked.task} is about {job.modality}s")
    metric = _metric(asked.metric, dataset)
    plans, choices = job.plans, job.choices
    if dataset.numeric or asked.steps != "auto":
        plans, said = wishes.check_settings(
            job.modality, job.backbone, asked.steps, job.rule, job.target, dataset.numeric
        )
        choices = tuple(said)
    return Given(dataset, others, masking, metric, plans, (*choices, *job.taken))


def inspect(job: Job, given: Given) -> Seen:
    """Look at every item once, at what the sources share with them, and at what is new since an earlier model."""
    asked, earlier = job.asked, job.earlier
    with job.clock("inspect"), processes.first():
        found = look(given.dataset, job.store, progress=job.watch.progress, drop_leaks=not asked.keep_leaks)
        check_trainable(found.dataset)
        lessons = source_steps.gather(given.others, found.dataset, job.store, job.watch)
        found = dataclasses.replace(found, findings=(*found.findings, *(f for s in lessons if (f := s.finding()))))
        if earlier is None:
            return Seen(found, lessons, "")
        known = earlier.check(found.dataset)
        placed, grown = earlier.placed(found.dataset, asked.seed) if job.rule == "auto" else (found.dataset, "")
        growth = earlier.finding(found.dataset, known)
        return Seen(dataclasses.replace(found, dataset=placed, findings=(growth, *found.findings)), lessons, grown)


def divide(job: Job, seen: Seen) -> Ground:
    """Which rows are learnt from, in which folds, and which only measure."""
    wishes.check_alike(job.asked.data, seen.found.dataset)
    ground = grounds.divide(seen.found.dataset, job.rule, job.asked.seed)
    return dataclasses.replace(ground, text=seen.grown or ground.text)


def plan(job: Job, given: Given, seen: Seen, ground: Ground) -> Way:
    """The steps to take, and every choice that was made so far, said aloud."""
    asked, found = job.asked, seen.found
    findings = (f"{f.severity}: {f.message}" for f in found.findings)
    for line in (*found.dataset.notes, *findings, ground.text, *given.choices):
        job.watch.say(str(line))
    plans, choices = given.plans, list(given.choices)
    usual = DEFAULTS[job.modality]
    if job.backbone == "auto" and job.modality != "row" and any(one.backbone == usual for one in plans):
        chosen = _chosen(job, ground)
        choices.append(chosen)
        plans = planning.plan(asked.steps, chosen.value, job.modality, given.dataset.numeric)
    plans, found = wishes.understood(plans, found, job.watch)
    if asked.reduce is not None:
        plans = planning.reduced(plans, asked.reduce)
        choices.append(Choice("reduce", asked.reduce, "as told: between the frozen backbone and its head"))
    backbone = usual if job.backbone == "auto" else job.backbone
    plans = source_steps.insert(plans, seen.lessons, asked.source_how, backbone)
    return Way(ground, found, plans, given.metric, _facts(job, given, seen, choices))


def climb(job: Job, way: Way) -> Climb:
    """Take the steps; before one that may take long, the best until then is measured and saved."""

    def save_so_far(climbed: Climb) -> None:
        page.climbed(climbed.steps)
        measure_and_save(job, way, climbed)
        job.watch.say(f"a first model is in {job.target}; it stays there if you stop the rest (Ctrl-C)")

    with (
        job.clock("climb"),
        tracking.keeping(job.tracker if job.first else None, job.target, job.watch) as tracked,
        live.keeping(job.run if job.first else None, job.target.name, tracked, way.metric) as page,
    ):
        return ladder.climb(
            way.ground, way.plans, job.store, deadline=job.deadline, watch=page.watch, run=job.run, seed=job.asked.seed,
            so_far=save_so_far, metric=way.metric, batch_size=job.asked.batch_size, engine=job.asked.engine,
        )  # fmt: skip


def measure_and_save(job: Job, way: Way, climbed: Climb) -> None:
    """The first process measures the best step, also against an earlier model, and saves, proves and tells it."""
    if not job.first:
        return
    facts = dict(way.facts)
    with processes.alone():
        with job.clock("measure"):
            measured = account.measure(way.ground, climbed.best, job.asked.seed, job.watch)
        if job.earlier is not None:
            with job.clock("compare"):
                facts["growth"] = job.earlier.table(
                    way.ground, climbed, measured, way.metric, job.asked.seed, job.watch
                )
        saving.save(job.target, way.found, way.ground, climbed, measured, job.store, job.clock, job.watch, facts)


def end(job: Job) -> None:
    """Checkpoints are no longer needed; all processes leave together."""
    if job.first:
        shutil.rmtree(job.run, ignore_errors=True)
    processes.barrier()
    for note in job.store.notes:
        job.watch.say(note)


def _dataset(job: Job) -> Dataset:
    """The data, with test data of their own as their test split."""
    asked = job.asked
    options = {
        "item_column": asked.item_column,
        "label_column": asked.label_column,
        "numeric": wishes.numeric_of(asked.task),
        "features": wishes.features_of(asked.task),
    }
    if isinstance(asked.data, Dataset):
        dataset = asked.data
    else:
        own = {"query": asked.query, "split_column": asked.split_column, **job.columns}
        dataset = wishes.read(asked.data, **options, **own)
    if asked.test is None:
        return dataset
    alike = {**options, "numeric": dataset.numeric, "features": rows.names_of(dataset)}
    return join(dataset, wishes.read_test(asked.test, asked.data, alike))


def _metric(asked: str, dataset: Dataset) -> str:
    """What a step must improve."""
    task = of(dataset.targets())
    known = task.metric_names(len(dataset.labels), dataset.multilabel)
    metric = task.MAIN if asked == "auto" else asked
    if metric not in known:
        raise UnknownName.among(metric, "metrics", known)
    return metric


def _chosen(job: Job, ground: Ground) -> Choice:
    """The backbone, by measurement on what is learnt from."""
    learnt = ground.dataset.take(ground.train)
    with job.clock("rank"):
        chosen = choosing.choose_together(
            learnt, job.store, job.deadline, job.watch, held_out=len(ground.held) > 0,
            batch_size=job.asked.batch_size, engine=job.asked.engine,
        )  # fmt: skip
    job.watch.say(str(chosen))
    return chosen


def _facts(job: Job, given: Given, seen: Seen, choices: list[Choice]) -> dict[str, Any]:
    """What a report holds beside the numbers."""
    redact = given.masking.facts() if given.masking is not None and job.modality == "text" else None
    return {
        **wishes.facts("fit", job.asked.seed),
        "source": wishes.place(job.asked.data, job.asked.query),
        "choices": choices,
        **({"sources": [lesson.fact() for lesson in seen.lessons]} if seen.lessons else {}),
        **({"redact": redact} if redact is not None else {}),
    }
