"""What a verb was asked for: every word checked before work begins, every secret kept out of what is shown."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork import plugins, processes
from topwork.errors import BadData, BadSetting, UnknownName
from topwork.store import remote
from topwork.store.database import Database, command_of, hidden, is_database
from topwork.store.one_select import is_select
from topwork.types import DEFAULTS, Choice, Dataset, Finding, Findings, Watch

if TYPE_CHECKING:
    from topwork.artefact.model import Model
    from topwork.growing import Since
    from topwork.planning import Plan

TASKS = {  # what goes in, and whether numbers come out
    "image-classification": ("image", False),
    "image-regression": ("image", True),
    "text-classification": ("text", False),
    "text-regression": ("text", True),
    "tabular-classification": ("row", False),
    "tabular-regression": ("row", True),
}


@dataclass(frozen=True)
class Fit:
    """What `topwork fit` was asked for: its options, which `verbs.fit` explains."""

    data: str | Path | Dataset
    query: str | None = None
    since: str | Path | Model | None = None
    test: str | Path | None = None
    sources: str | Path | Dataset | Sequence[str | Path | Dataset] = ()
    source_how: str = "intermediate"
    task: str = "auto"
    backbone: str = "auto"
    steps: str | Sequence[str] = "auto"
    reduce: str | None = None
    budget: str | float = "5m"
    metric: str = "auto"
    split: str = "auto"
    group: str | None = None
    item_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    time_column: str | None = None
    domain_column: str | None = None
    redact: bool | str | Sequence[str] = False
    keep_leaks: bool = False
    batch_size: int | None = None
    engine: str = "auto"
    seed: int = 0
    track: str | None = None
    out: str | Path | None = None


def seconds_of(budget: str | float, flag: str = "--budget") -> float:
    """Seconds of "90s", "5m", "2h", a number of seconds, or "none"."""
    text = str(budget).strip().lower()
    if text == "none":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text)
    if not match:
        raise BadSetting(f"{flag} {budget}: expected seconds, minutes or hours such as 90s, 5m, 2h, or none")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def modality_of(task: str, data: str | Path | Dataset, query: str | None = None, **columns: str | None) -> str:
    """What goes into the model: as the task says, or as the data are, of which `columns` are named."""
    if task != "auto":
        if task not in TASKS:
            raise UnknownName.among(task, "tasks", TASKS)
        return TASKS[task][0]
    if isinstance(data, Dataset):
        return data.modality
    from topwork import sources

    return sources.modality(data, query=query, **columns)


def numeric_of(task: str) -> bool | None:
    """Whether numbers come out, as far as the task says."""
    return None if task == "auto" else TASKS[task][1]


def features_of(task: str) -> tuple[str, ...] | None:
    """Whether rows of feature columns are asked for: (), all that there are; None: where there is nothing else."""
    return () if task != "auto" and TASKS[task][0] == "row" else None


def options_of(model: Model) -> dict[str, Any]:
    """Options of a source so that data are read as a saved model expects them."""
    return {"numeric": model.numeric, **({"features": model.columns} if model.columns else {})}


def earlier(since: str | Path | Model | None, backbone: str) -> tuple[Since | None, str, list[Choice]]:
    """The model that a fit goes on from, the backbone, and why that one."""
    if since is None:
        return None, backbone, []
    from topwork.artefact.model import load
    from topwork.growing import Since

    found = Since.of(load(since) if isinstance(since, (str, Path)) else since)
    chosen = found.backbone() if backbone == "auto" else None
    return found, backbone if chosen is None else chosen.value, [] if chosen is None else [chosen]


def carried(rule: str, **columns: str | None) -> tuple[str, dict[str, str | None]]:
    """A rule of `data/split`, and options of a source so that it carries the column that the rule divides by.

    by_time(column='created') is by_time on what the source calls `time`, which is its column 'created'.
    """
    made = None if rule == "auto" else plugins.make("data.split", rule)
    name: str | None = getattr(made, "carries", None)
    if made is None or name is None or made.column == name:
        return rule, columns
    if columns.get(f"{name}_column") not in (None, made.column):
        raise BadSetting(f"{rule} and --{name}-column {columns[f'{name}_column']} name two columns. Name one")
    given = {f.name: getattr(made, f.name) for f in dataclasses.fields(made) if getattr(made, f.name) != f.default}
    options = ", ".join(f"{option}={value!r}" for option, value in given.items() if option != "column")
    plain = rule.partition("(")[0].strip()
    return f"{plain}({options})" if options else plain, {**columns, f"{name}_column": made.column}


def check_settings(
    modality: str, backbone: str, steps: str | Sequence[str], split: str, target: Path, numeric: bool | None = None
) -> tuple[tuple[Any, ...], list[Choice]]:
    """Everything that can be wrong before the data are looked at: names, specs, weights, the output folder."""
    from topwork import planning
    from topwork.artefact.bundle import MARKER
    from topwork.backbones import find
    from topwork.store.atomic import check_replaceable

    if split != "auto":
        plugins.make("data.split", split)
    check_replaceable(target, MARKER)
    plans = planning.plan(steps, DEFAULTS[modality] if backbone == "auto" else backbone, modality, numeric)
    for spec in {one.backbone for one in plans}:
        found = find(spec, modality)
        if not hasattr(found, "fitted"):
            found.graph()  # weights that do not fit, or a card that lies, end it here
    choices = []
    auto = planning.usual(modality, DEFAULTS[modality] if backbone == "auto" else backbone, bool(numeric))
    if steps == "auto" and len(here := planning.without_torch(auto)) < len(auto):
        choices.append(Choice("steps", ", ".join(here), "those that change the backbone need the 'train' extra"))
    return plans, choices


def understood(plans: tuple[Plan, ...], found: Findings, watch: Watch) -> tuple[tuple[Plan, ...], Findings]:
    """Without optional steps whose backbone knows another language; said as a finding."""
    from topwork import planning
    from topwork.backbones import find
    from topwork.shortlist import foreign

    looking = [p.backbone for p in plans if p.methods not in planning.CONSTANT]
    reasons = {spec: foreign(find(spec).card, found.facts) for spec in looking}
    strange = {spec: reason for spec, reason in reasons.items() if reason}
    fix = "name a backbone of that language with --backbone hf:NAME; n-grams know every language"
    more = tuple(Finding("language", "warning", reason, fix) for reason in strange.values())
    for finding in more:
        watch.say(f"{finding.severity}: {finding.message}; {finding.fix}")
    kept = tuple(p for p in plans if p.required or p.backbone not in strange)
    return kept, dataclasses.replace(found, findings=(*found.findings, *more))


def read(data: str | Path, **columns: Any) -> Dataset:
    """The items and labels of a folder, table or database."""
    from topwork import sources

    if str(data).startswith("fractals:"):
        raise BadData(f"{data}: drawn while they are learnt from, there are no files. Use topwork pretrain {data} ...")
    return sources.read(data, **columns)


def read_test(test: str | Path, data: str | Path | Dataset, columns: Mapping[str, Any]) -> Dataset:
    """Test data of their own; of a database, a second query to it is enough."""
    from topwork import sources

    if is_database(data) and is_select(str(test)):
        return sources.read(str(data), query=str(test), **columns)
    return sources.read(test, **columns)


def check_alike(data: str | Path | Dataset, dataset: Dataset) -> None:
    """Raise BadData where several processes have read a database that changed meanwhile."""
    if processes.count() > 1 and is_database(data):
        from topwork.account import data_hash

        if len(set(processes.gathered(data_hash(dataset)))) > 1:
            raise BadData(f"{dataset.name}: it changed while the processes read it. Start again")


def place(data: str | Path | Dataset, query: str | None) -> str:
    """Where data come from, without secrets."""
    return hidden(str(data)) + (f": {query}" if query else "")


def command(verb: str) -> str:
    """What was called, without secrets."""
    return command_of(["topwork", *sys.argv[1:]]) if "topwork" in sys.argv[0] else f"topwork.{verb}(...)"


def facts(verb: str, seed: int) -> dict[str, Any]:
    """When, by which command and with which seed something was made."""
    return {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": command(verb), "seed": seed}


def listed(specs: str) -> list[str]:
    """Split at the commas outside brackets."""
    return [part for part in re.split(r",(?![^(]*\))", specs) if part.strip()]


def name_of(data: str | Path | Dataset) -> str:
    """What a model of these data is called if nobody says otherwise."""
    if is_database(data):
        return Database(str(data)).name
    return Path(data.name if isinstance(data, Dataset) else remote.title(remote.welcome(data))).stem or "model"


@dataclass
class Stopwatch:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as one stage."""
        start = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - start

    def total(self) -> dict[str, float]:
        """All stages, and all of it."""
        return {**self.seconds, "total": time.monotonic() - self.began}
