"""Steps of the ladder that learn from other labelled data, too: does a source help?

intermediate   the backbone is tuned on a source (of several: on each, and on all together, a head each), its heads are
               thrown away, and the frozen probe of the target is solved anew on what it sees now. The target's labels
               are not looked at before, so the probe is measured like any other
joint          target and sources are learnt at once, a head each (`adaptation/joint.py`); fold by fold, without the
               fold that is asked, like every tuned step

A source step is kept where the ladder's paired test says that it pays; later steps begin from the backbone that it
leaves. Pictures that are in the target, too, whatever its split, are left out of a source: they would be learnt from
before they are asked. What a source calls val or test is left alone.

Phang et al., Sentence Encoders on STILTs, 2018 (intermediate tasks); Caruana, Multitask Learning, 1997 (joint).
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import processes
from topwork.backbones.torch_backbone import need_train
from topwork.data.inspect import inspect
from topwork.data.overlap import overlap
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadData, BadSetting, UnknownName
from topwork.ground import FOLDS, Ground
from topwork.planning import Plan
from topwork.rung import Rung, solve
from topwork.sources import read as read_data
from topwork.store import Store, remote
from topwork.store.database import hidden
from topwork.terms import Terms
from topwork.types import Backbone, Dataset, Finding, Watch

if TYPE_CHECKING:
    from topwork.adaptation.joint import Joint
    from topwork.finetune import Bench

HOW = ("intermediate", "joint", "both")
SPECS = ("lp_ft", "last_stages(1)")  # the second where the time is short for the first
ENOUGH_EPOCHS = 3  # of the first
HEADS = ("logistic",)  # how heads of sources are solved before they are learnt
PIXELS = "bundled:pixels"


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled data that is not the target."""

    name: str
    uri: str
    dataset: Dataset  # labelled, inspected, without what the target has
    shared: int  # items that were left out because the target has them, too

    def fact(self) -> dict[str, Any]:
        """Plain JSON for a report."""
        return {"name": self.name, "source": self.uri, "items": len(self.dataset),
                "classes": len(self.dataset.labels), "left_out": self.shared}  # fmt: skip

    def finding(self) -> Finding | None:
        """What is said about it."""
        if not self.shared:
            return None
        message = f"source {self.name}: {self.shared:,} of its items are in the target, too"
        return Finding("source_overlap", "note", message, "left out of the source")


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a step learns from beside the target, and how."""

    sources: tuple[Source, ...]

    @property
    def names(self) -> str:
        """In one line."""
        return " & ".join(source.name for source in self.sources)

    def moved(self, given: Backbone, terms: Terms) -> tuple[Backbone, dict[str, Any]] | str:
        """The backbone after the sources, with what was proven about it; or, in words, why there is no time for them.

        With several the largest one stands where a target would stand, and the others are learnt beside it.
        """
        need_train("--source")
        from topwork import finetune
        from topwork.adaptation.graft import techniques

        left = processes.decided(lambda: terms.deadline - time.monotonic())
        if left < finetune.LEAST_SECONDS:
            return f"left out: its part of the budget is {max(left, 0):,.0f} s, too short to begin (--budget)"
        first, *others = sorted(self.sources, key=lambda source: -len(source.dataset))
        ground = _whole(first.dataset, terms.seed)
        probe = _probe(ground, given, terms)
        start = finetune.Start(given, probe.x, probe.probe)
        ground, join = _beside(ground, others, given, terms)
        said = ""
        for spec in SPECS:
            how, parts = f"{spec} on {self.names}", techniques(spec)
            bench = join(finetune.Bench.of(ground, how, parts, start, terms))
            decided = finetune.pace.decide(bench, terms.deadline, 0)
            if isinstance(decided, str):
                said = decided
                continue
            epochs = next(choice for choice in decided.choices if choice.name == "epochs")
            if epochs.value < ENOUGH_EPOCHS and spec != SPECS[-1]:
                continue
            terms.watch.say(f"{how}: {epochs}")
            backbone, _, facts = bench.shipped(bench.train(decided.plan, ground.train, "all items"))
            return backbone, facts
        return said

    def joined(self, ground: Ground, backbone: Backbone, terms: Terms) -> tuple[Ground, Callable[[Bench], Bench]]:
        """The target's ground with the sources' items behind it, and what puts them on a bench."""
        several = [one.name for one in (ground.dataset, *(s.dataset for s in self.sources)) if one.multilabel]
        if several:
            raise BadSetting(f"{several[0]} has lists of labels, which joint training cannot mix. Use intermediate")
        return _beside(ground, self.sources, backbone, terms)


def read(given: str | Path | Dataset | Sequence[str | Path | Dataset], how: str) -> list[tuple[str, Dataset]]:
    """Where each source comes from, and its items; raises what can be wrong before any work."""
    one = isinstance(given, (str, Path, Dataset))
    wanted = [given] if one else list(given)  # type: ignore[list-item, arg-type]
    if how not in HOW:
        raise UnknownName.among(how, "ways to use a source (--source-how)", HOW)
    if wanted:
        need_train("--source")
    return [(x.name, x) if isinstance(x, Dataset) else (hidden(str(x)), read_data(x)) for x in wanted]


def gather(
    given: Sequence[tuple[str, Dataset]], target: Dataset, store: Store | None, watch: Watch
) -> tuple[Source, ...]:
    """Inspect sources and leave out of them what the inspected target has; BadData where too little is left."""
    names = _names([(uri, dataset.name) for uri, dataset in given])
    found = []
    for name, (uri, dataset) in zip(names, given, strict=True):
        if dataset.modality != target.modality:
            raise BadData(f"--source {uri} holds {dataset.modality}s. Expected {target.modality}s, as in {target.name}")
        held = [row for side in ("val", "test") for row in dataset.rows_of(side)]
        labelled = dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)
        rows = np.setdiff1d(np.flatnonzero(labelled), held)
        if not len(rows):
            raise BadData(f"--source {uri}: no labelled items to learn from. Expected a folder per class, or a table")
        seen = inspect(dataset.take(rows), store, progress=watch.progress).dataset
        shared = overlap(target, seen, store)
        source = Source(name, uri, _with_labels(seen.take(np.flatnonzero(~shared))), int(shared.sum()))
        if len(source.dataset.labels) < 2:
            also = f" after {source.shared:,} were left out that the target has, too" if source.shared else ""
            raise BadData(
                f"--source {uri}: fewer than two classes to learn from, {len(source.dataset):,} items{also}. "
                "Expected at least two classes"
            )
        finding = source.finding()
        watch.say(f"source {name}: {len(source.dataset):,} items of {len(source.dataset.labels):,} classes")
        if finding:
            watch.say(f"{finding.severity}: {finding.message}: {finding.fix}")
        found.append(source)
    return tuple(found)


def insert(plans: Sequence[Plan], given: Sequence[Source], how: str, backbone: str) -> tuple[Plan, ...]:
    """The plans with the sources' steps before the first tuned one."""
    if not given:
        return tuple(plans)
    probes = [p for p in plans if not p.tuned and p.backbone != PIXELS]
    required = any(p.required for p in plans if p.name != "majority")  # --steps was given: they are taken
    like = dataclasses.replace((probes or [Plan("probe", backbone, ("auto",))])[-1], required=required)
    at = next((number for number, p in enumerate(plans) if p.tuned), len(plans))
    new: list[Plan] = []
    if how in ("intermediate", "both"):
        lessons = [Lesson((source,)) for source in given]
        if len(given) > 1 and not any(source.dataset.multilabel for source in given):
            lessons.append(Lesson(tuple(given)))
        new += [dataclasses.replace(like, name=f"source {lesson.names}", lesson=lesson) for lesson in lessons]
    if how in ("joint", "both"):
        lesson = Lesson(tuple(given))
        new.append(
            dataclasses.replace(like, name=f"joint with {lesson.names}", methods=SPECS, tuned=True, lesson=lesson)
        )
    return (*plans[:at], *new, *plans[at:])


def _whole(dataset: Dataset, seed: int) -> Ground:
    """Everything is learnt from."""
    rows = np.arange(len(dataset))
    folds = make_folds(dataset.targets(), keep_together(dataset), FOLDS, seed)
    return Ground(dataset, rows, rows[:0], folds, "cross-validation", "")


def _probe(ground: Ground, backbone: Backbone, terms: Terms) -> Rung:
    features = terms.extract(ground.dataset, backbone)
    return solve(ground, Plan("probe", "", HEADS), backbone, features, time.monotonic(), terms.watch)


def _beside(
    ground: Ground, sources: Sequence[Source], backbone: Backbone, terms: Terms
) -> tuple[Ground, Callable[[Bench], Bench]]:
    """Items of further sources behind those of a ground, without a label in its own set of labels."""
    if not sources:
        return ground, lambda bench: bench
    from topwork.adaptation.joint import Joint

    probes = [_probe(_whole(s.dataset, terms.seed), backbone, terms) for s in sources]
    joint = Joint(tuple((p.probe.head.arrays["weight"], p.probe.head.arrays["bias"]) for p in probes))
    N, more = len(ground.dataset), sum(len(source.dataset) for source in sources)
    folds = np.concatenate([ground.folds, np.full(more, -1, ground.folds.dtype)])
    whole = dataclasses.replace(ground, dataset=_stacked(ground.dataset, sources), folds=folds)
    return whole, lambda bench: _on_the_bench(bench, N, sources, joint)


def _on_the_bench(bench: Bench, N: int, sources: Sequence[Source], joint: Joint) -> Bench:
    """The same bench with every item's own target, and as many classes as each source has."""
    targets = [bench.feed.targets[:N], *(source.dataset.targets() for source in sources)]
    feed = dataclasses.replace(
        bench.feed,
        targets=np.concatenate(targets).astype(np.int64),
        source=np.repeat(np.arange(len(targets)), [len(part) for part in targets]),
        classes=(*bench.feed.classes, *(len(source.dataset.labels) for source in sources)),
    )
    counts = (len(bench.ground.train), *(len(source.dataset) for source in sources))
    beside = np.intersect1d(np.arange(N, len(feed)), bench.readable)
    return dataclasses.replace(
        bench, feed=feed, parts=(*bench.parts, joint), beside=beside, own=joint.shares(counts)[0]
    )


def _stacked(dataset: Dataset, sources: Sequence[Source]) -> Dataset:
    """Rows of a dataset, then those of the sources, which have no label in it."""
    import pyarrow as pa

    def of(one: Dataset, *columns: str) -> pa.Table:
        items = one.table["item"].to_pylist() if one.modality == "text" else map(remote.absolute, one.paths())
        kept = {column: one.table[column] for column in ("content", "text", *columns) if column in one.columns}
        return pa.table({"item": pa.array(list(items), pa.string())} | kept)

    tables = [of(dataset, "target", "twin", "group"), *(of(source.dataset) for source in sources)]
    return dataset.replace(table=pa.concat_tables(tables, promote_options="default"), root="")


def _with_labels(dataset: Dataset) -> Dataset:
    """Without the classes that have lost all their items."""
    import pyarrow as pa

    targets = dataset.targets()
    if dataset.multilabel:
        return dataset
    kept = np.unique(targets)
    if len(kept) == len(dataset.labels):
        return dataset
    labels = tuple(dataset.labels[c] for c in kept)
    return dataset.replace(labels=labels).with_column("target", pa.array(np.searchsorted(kept, targets), pa.int32()))


def _names(given: Sequence[tuple[str, str]]) -> list[str]:
    """Each once: two folders of one name are told apart by those above them, or by a number."""
    short = Counter(name for _, name in given)
    names = [name if short[name] == 1 else "/".join(Path(uri).parts[-2:]) for uri, name in given]
    return [name if names.count(name) == 1 else f"{name} {at + 1}" for at, name in enumerate(names)]
