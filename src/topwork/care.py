"""What only shows in the features: wrong labels, items unlike all others, groups that leak, splits that differ.

    cheap inspection -> features of a backbone (through the cache) -> out-of-fold probabilities of a probe
        label_errors    confident learning; how many are wrong, and what they look like
        outliers        far from their nearest neighbours
        stems           groups that names and cameras suggest: are they close, and does the score drop without company?
        shift           can a classifier tell one split from the other?
        projection      a map of it all

Every answer is an opinion of the backbone: none changes anything by itself, and what measures (val, test) is only
looked at. What does not apply (numbers, items without labels, too few of them) is left out in words.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import probe as probes
from topwork.data import crops, inspect_image, projection, stems
from topwork.data import label_errors as wrong_labels
from topwork.data.findings import HELD_OUT, words_of
from topwork.data.outliers import outliers, unit
from topwork.data.shift import shift
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.data.write import SEPARATOR
from topwork.errors import BadSetting
from topwork.evaluation.calibrate import cross_fitted
from topwork.evaluation.paired import Comparison, compare_hits
from topwork.features.extract import extract
from topwork.modalities.image import Facts
from topwork.store import Store
from topwork.tasks.classification import hits
from topwork.types import Backbone, Dataset, Finding, Findings, Watch

FOLDS = 5
LEAST = 20  # labelled items
SURE = 0.7  # probability from which a label is suggested
TRUSTED = 0.33  # share of the suspicious labels that are wrong below which most of them are said to be right
OVERLAP = FOLDS / (FOLDS - 1) + 0.35  # out-of-fold answers share their training items, see evaluation.intervals
TRIED = 2  # groupings whose price is measured
CLOSE = 0.02  # excess of closeness below which a grouping does not matter
MAP_ITEMS = 1500
TOLD = 0.6  # accuracy of telling two splits apart from which a shift is a warning
LARGE = 1e8  # items x features x classes from which the probe is ridge regression: a fiftieth of the time
PACE_ITEMS = (16, 48)  # the first ones pay for opening the backbone, the others tell the pace
_SEVERITY = ("error", "warning", "note")


@dataclass(frozen=True, eq=False)
class Sight:
    """An inspected dataset as a backbone sees it: only rows that have features."""

    dataset: Dataset
    rows: NDArray[np.int64]  # (N,) of the inspected dataset
    x: Any  # (N, D)
    z: NDArray[np.float32]  # (N, D) about the mean, of length 1
    backbone: str
    facts: list[Facts] | None  # of images: what the inspection has seen of each file
    seed: int
    watch: Watch
    not_done: list[str] = field(default_factory=list)  # what does not apply, and why

    @property
    def twins(self) -> NDArray[Any]:
        """(N,) same number: same picture or text."""
        return self.dataset.table["twin"].to_numpy()

    @property
    def splits(self) -> NDArray[Any]:
        """(N,) names, "" where there is none."""
        return self.dataset.table["split"].cast("string").fill_null("").to_numpy(zero_copy_only=False).astype(str)

    @property
    def many(self) -> str:
        """What the items are called."""
        return words_of(self.dataset).many

    def labelled(self) -> NDArray[np.int64]:
        """Those with a class."""
        y = self.dataset.targets()
        return np.flatnonzero(y.any(1) if y.ndim == 2 else np.isfinite(y) if self.dataset.numeric else y >= 0)

    def item(self, at: Any) -> str:
        """Its name."""
        return self.dataset.table["item"][int(at)].as_py()


@dataclass(frozen=True, eq=False)
class Judged:
    """Out-of-fold probabilities of the labelled items."""

    at: NDArray[np.int64]  # (M,) of the sight
    y: NDArray[Any]  # (M,) or (M, C)
    folds: NDArray[np.int32]
    p: NDArray[np.float64]  # (M, C)
    accuracy: float


def examine(
    found: Findings,
    backbone: Backbone,
    store: Store | None,
    *,
    seed: int = 0,
    watch: Watch | None = None,
    **extraction: Any,
) -> Findings:
    """The findings of a cheap inspection, and those that need features; facts hold `deep` and `map`."""
    watch, began = watch or Watch(), time.monotonic()
    if hasattr(backbone, "fitted"):
        raise BadSetting(f"{backbone.card.spec} knows nothing before it is fitted. Name another --backbone")
    features = extract(found.dataset, backbone, store, progress=watch.progress, **extraction)
    facts = _remembered(found.dataset, store)
    whole, new = _crops(found.dataset, features.rows, features.x, facts, seed, watch)
    dataset = whole.take(features.rows)
    known = [facts[row] for row in features.rows] if facts else None
    sight = Sight(dataset, features.rows, features.x, unit(features.x), backbone.card.spec, known, seed, watch)
    judged = _judge(sight)
    looks: tuple[Callable[[Sight, Judged | None], Iterator[Finding]], ...] = (
        _label_errors, _outliers, _groups, _shifts,
    )  # fmt: skip
    for number, look in enumerate(looks):
        watch.progress("care", number, len(looks))
        new += [_in_rows(one, sight) for one in look(sight, judged)]
    watch.progress("care", len(looks), len(looks))
    findings = sorted((*found.findings, *new), key=lambda one: _SEVERITY.index(one.severity))
    told = {
        **found.facts,
        "deep": {
            "backbone": backbone.card.spec,
            "items": len(dataset),
            "accuracy": judged.accuracy if judged else None,
            "seconds": time.monotonic() - began,
            "not_done": sight.not_done,
        },
        "map": _map(sight, findings),
    }
    said = f"deep inspection by {backbone.card.spec}: {len(new)} more findings"
    return Findings(whole.replace(history=(*whole.history, said)), tuple(findings), told)


def deepen(
    found: Findings, backbone: Backbone, store: Store | None, budget: float, *, watch: Watch, **options: Any
) -> Findings:
    """`examine`, if it takes no longer than `budget` seconds; how long it will take is said first."""
    began = time.monotonic()
    needed = seconds_needed(found.dataset, backbone, store)
    many = f"{len(found.dataset):,} {words_of(found.dataset).many}"
    if needed + (time.monotonic() - began) > budget:
        said = f"deep inspection left out: the features of {many} would take about {needed:,.0f} s (--deep takes it)"
        watch.say(said)
        return dataclasses.replace(found, facts={**found.facts, "deep": None, "left_out": said})
    if needed > 1:
        watch.say(f"deep inspection: the features of {many} take about {needed:,.0f} s (--quick leaves them out)")
    return examine(found, backbone, store, watch=watch, **options)


def seconds_needed(dataset: Dataset, backbone: Backbone, store: Store | None, **extraction: Any) -> float:
    """About how long the features of all items will take: at the pace of the first ones, which stay in the cache."""
    first, more = PACE_ITEMS
    if len(dataset) <= 4 * (first + more):
        return 0.0
    draw = np.random.Generator(np.random.Philox(key=1))  # what an earlier run knows is not always at the beginning
    some = np.sort(draw.choice(len(dataset), first + more, replace=False))
    opened = extract(dataset.take(some[:first]), backbone, store, **extraction)
    told = extract(dataset.take(some[first:]), backbone, store, **extraction)
    known = opened.cached > 0 and told.cached > 0  # part of it was seen before: the rest of it, too
    return 0.0 if known or not told.computed else told.seconds / told.computed * len(dataset)


def _judge(sight: Sight) -> Judged | None:
    """What a probe says of every labelled item without having seen its fold; None where there are no classes."""
    dataset = sight.dataset
    at = sight.labelled()
    if dataset.numeric:
        sight.not_done.append(f"label errors and groups: '{dataset.labels[0]}' is a number, not a class")
        return None
    y = dataset.targets()[at]
    classes = np.flatnonzero(y.any(0)) if y.ndim == 2 else np.unique(y)
    if len(at) < LEAST or len(classes) < 2:
        few = f"{len(at):,} labelled {sight.many} of {len(classes)} classes, at least {LEAST} of 2 are needed"
        sight.not_done.append(f"label errors and groups: {few}")
        return None
    folds = make_folds(y, keep_together(dataset)[at], FOLDS, sight.seed)
    large = len(at) * sight.x.shape[1] * len(dataset.labels) > LARGE
    return _judged(sight, at, y, folds, "ridge" if large else "logistic")


def _judged(sight: Sight, at: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int32], method: str) -> Judged:
    best, _ = probes.choose(
        sight.x[at], y, folds, len(sight.dataset.labels), methods=(method,), progress=sight.watch.progress
    )
    p = cross_fitted(best.held_out, y, folds, sight.dataset.activation)
    return Judged(at, y, folds, p, float(hits(p, y).mean()))


def _label_errors(sight: Sight, judged: Judged | None) -> Iterator[Finding]:
    """Labels that the others contradict."""
    if judged is None:
        return
    p, y = judged.p, judged.y
    found = wrong_labels.label_errors(p, y)
    wrong = found.wrong if y.ndim == 1 else found.wrong.any(1)
    wrong &= ~_unknown(judged)
    if not wrong.any():
        return
    order = np.flatnonzero(wrong)[np.argsort(found.quality[wrong], kind="stable")]
    expected = float(found.doubt[order].sum())
    names = sight.dataset.labels
    sure = p.max(1) >= SURE if y.ndim == 1 else np.where(found.wrong, np.maximum(p, 1 - p), 1).min(1) >= SURE
    better = [_named(found.likeliest[i], names) if sure[i] else "" for i in order]
    trusted = expected >= TRUSTED * len(order)
    first = order[0]
    one = sight.item(judged.at[first])
    example = f"{one} is labelled {_named(y[first], names)!r}"
    looks = _named(found.likeliest[first], names)
    share = expected / len(y)
    message = (
        f"{len(order):,} of {len(y):,} labels are suspicious, about {expected:,.0f} of them wrong ({share:.1%}): "
        f"{example} and looks like {looks!r}"
    )
    fix = "look at them, the surest first; topwork clean --apply findings.json relabels or drops the sure ones"
    if not trusted:
        fix = (
            f"{sight.backbone} is right about {judged.accuracy:.0%} of the {sight.many} only, so most of these labels "
            "are right: look at the first ones, or name a better --backbone"
        )
    scores = found.doubt[order] * (1 - found.quality[order])
    yield Finding(
        "label_errors", "warning" if expected >= 1 else "note", message, fix,
        tuple(judged.at[order].tolist()), tuple(sight.item(judged.at[i]) for i in order[:5]), tuple(better),
        tuple(np.round(scores, 4).tolist()),
    )  # fmt: skip


def _unknown(judged: Judged) -> NDArray[np.bool_]:
    """Items whose label no head has met that they were asked of."""
    if judged.y.ndim == 2:
        return np.zeros(len(judged.y), bool)
    pairs = np.unique(np.stack([judged.y, judged.folds], 1), axis=0)[:, 0]
    alone = np.flatnonzero(np.bincount(pairs, minlength=int(judged.y.max()) + 1) == 1)
    return np.isin(judged.y, alone)


def _outliers(sight: Sight, _: Judged | None) -> Iterator[Finding]:
    """Items unlike all others."""
    found = outliers(sight.x, sight.twins, seed=sight.seed)
    if found is None:
        sight.not_done.append(f"outliers: {len(sight.rows):,} {sight.many} are too few to say what is usual")
        return
    far = np.flatnonzero(found.far)
    if not len(far):
        return
    order = far[np.argsort(-found.distances[far], kind="stable")]
    chance = found.alarms * len(sight.rows)
    message = (
        f"{len(far):,} {sight.many} are unlike all others, e.g. {sight.item(order[0])}: "
        f"{found.distances[order[0]]:.2f} from its neighbours, usual is {np.median(found.distances):.2f} "
        f"({chance:.1f} such are to be expected by chance)"
    )
    fix = "look at them: a wrong file, or a rare case that is worth more than many common ones?"
    yield Finding(
        "outliers", "note", message, fix, tuple(order.tolist()), tuple(sight.item(i) for i in order[:5]), (),
        tuple(np.round(found.distances[order], 4).tolist()),
    )  # fmt: skip


def _groups(sight: Sight, judged: Judged | None) -> Iterator[Finding]:
    """Groups that a random split tears apart."""
    if judged is None:
        return
    if "group" in sight.dataset.columns:
        sight.not_done.append("groups that leak: the data name their groups, which stay together in every split")
        return
    y = judged.y if judged.y.ndim == 1 else np.unique(judged.y, axis=0, return_inverse=True)[1].reshape(-1)
    known = [sight.facts[at] for at in judged.at] if sight.facts else None
    taken = np.array([fact.taken for fact in known], np.int64) if known else None
    cameras = [fact.camera for fact in known] if known else None
    items = sight.dataset.table["item"].take(judged.at).to_pylist()
    suspected = stems.candidates(items, y, taken, cameras)
    first = np.sort(np.unique(sight.twins[judged.at], return_index=True)[1])  # copies are close anyway
    close = []
    for one in suspected:
        part = stems.Grouping(one.rule, one.names, one.codes[first])
        said = stems.closeness(sight.z[judged.at[first]], part, y[first], sight.seed)
        if said.p_value <= stems.LEVEL and said.excess >= CLOSE:
            close.append((said, one))
    close.sort(key=lambda pair: -pair[0].excess)
    for said, one in close[:TRIED]:
        gap = _price(sight, judged, one)
        if gap.low <= 0:
            continue
        yield _group_finding(sight, judged, one, said, gap)
        return
    if close:
        said, one = close[0]
        sight.not_done.append(
            f"groups: {sight.many} {one.rule} are more alike than others (p = {said.p_value:.3f}), but the score does "
            "not drop without their company"
        )


def _price(sight: Sight, judged: Judged, grouping: stems.Grouping) -> Comparison:
    """Accuracy with company in the training folds less that without it, on the same items."""
    links = np.stack([keep_together(sight.dataset)[judged.at], grouping.together()], 1)
    together = _joined(links)
    folds = make_folds(judged.y, together, FOLDS, sight.seed)
    mixed, apart = (_judged(sight, judged.at, judged.y, one, "ridge") for one in (judged.folds, folds))
    return compare_hits(hits(apart.p, judged.y), hits(mixed.p, judged.y), OVERLAP)


def _joined(links: NDArray[Any]) -> NDArray[np.int32]:
    """(N,) numbers: equal for rows that any of the columns (N, K) joins."""
    from topwork.data.duplicates import connected

    N, nodes, pairs = len(links), len(links), []
    for column in links.T:
        number = np.unique(column, return_inverse=True)[1]
        pairs.append(np.stack([np.arange(N), nodes + number], 1))
        nodes += int(number.max(initial=-1)) + 1
    return connected(nodes, np.concatenate(pairs))[:N]


def _group_finding(
    sight: Sight, judged: Judged, grouping: stems.Grouping, said: stems.Closeness, gap: Comparison
) -> Finding:
    crossing = stems.sides(grouping, sight.splits[judged.at], sight.seed)
    where = ""
    if crossing is not None:
        where = f"; {crossing[0]:,} of these groups lie on both sides of the split (by chance {crossing[1]:.0f})"
    has = np.flatnonzero(grouping.codes >= 0)
    size = np.bincount(grouping.codes[has], minlength=len(grouping.names))
    has = has[size[grouping.codes[has]] > 1]
    has = has[np.argsort(grouping.codes[has], kind="stable")]
    example = sight.item(judged.at[has[0]]), sight.item(judged.at[has[1]])
    message = (
        f"{sight.many} {grouping.rule} belong together ({grouping.groups:,} groups, e.g. {' and '.join(example)}): "
        f"with company in the training folds {100 * gap.difference:.1f} points more are right "
        f"[{100 * gap.low:.1f}, {100 * gap.high:.1f}] than without{where}"
    )
    leaks = crossing is not None and crossing[0] > 0
    fix = "the score flatters: keep groups together; topwork clean --apply findings.json writes a group column"
    return Finding(
        "leaking_groups", "error" if leaks else "warning", message, fix, tuple(judged.at[has].tolist()),
        tuple(example), tuple(grouping.names[c] for c in grouping.codes[has]),
        tuple([round(said.excess, 4)] * len(has)),
    )  # fmt: skip


def _remembered(dataset: Dataset, store: Store | None) -> list[Facts] | None:
    """What the inspection has kept of each image; None of texts, and where something has left the store."""
    if dataset.modality != "image" or store is None:
        return None
    known = store.get_many(inspect_image.NAMESPACE, dataset.table["content"].to_pylist())
    return None if any(value is None for value in known) else [Facts.from_bytes(value) for value in known if value]


def _crops(
    dataset: Dataset, rows: NDArray[np.int64], x: Any, facts: list[Facts] | None, seed: int, watch: Watch
) -> tuple[Dataset, list[Finding]]:
    """The dataset with crops as twins of what they were cut from."""
    if facts is None or len(rows) < 2:
        return dataset, []
    sketches = np.stack([np.frombuffer(facts[row].sketch, np.uint8) for row in rows])
    blank = np.array([facts[row].blank for row in rows], bool)
    pairs = crops.find(dataset.take(rows), sketches, blank, x, seed, watch.progress)
    return crops.findings(dataset, dataclasses.replace(pairs, pairs=rows[pairs.pairs]))


def _shifts(sight: Sight, _: Judged | None) -> Iterator[Finding]:
    """Splits that a classifier tells apart."""
    splits, together = sight.splits, keep_together(sight.dataset)

    def ask(x: NDArray[np.float32], sides: NDArray[np.int32], folds: NDArray[np.int32]) -> NDArray[Any]:
        return probes.choose(x, sides, folds, 2, methods=("ridge",))[0].held_out

    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        rows = [np.flatnonzero(splits == side) for side in (one, other)]
        if not all(map(len, rows)):
            continue
        found = shift(sight.x, rows[0], rows[1], together, make_folds, ask, sight.seed)
        if found is None:
            fewest = min(map(len, rows))
            sight.not_done.append(f"shift between {one} and {other}: {fewest} {sight.many} are too few")
            continue
        if found.low <= 0.5:
            continue
        typical = np.argsort(-found.margin, kind="stable")
        asked = len(typical) // 2
        shown = [found.rows[i] for i in typical if i >= asked][:20]
        said = f"{found.accuracy:.0%} [{found.low:.0%}, {found.high:.0%}] right, {found.n:,} {sight.many}"
        most = f"most surely {sight.item(shown[0])}"
        message = f"a classifier tells {one} from {other} ({said}; 50% if they were alike), {most}"
        fix = (
            f"what is measured on {other} is another distribution than what is learnt: was it gathered in another way?"
        )
        yield Finding(
            "shift", "warning" if found.accuracy >= TOLD else "note", message, fix, tuple(int(i) for i in shown),
            tuple(sight.item(i) for i in shown[:5]),
        )  # fmt: skip


def _map(sight: Sight, findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Places of up to MAP_ITEMS items, those with findings first; rows are those of the inspected dataset."""
    if len(sight.rows) < 3:
        return None
    named = {int(row) for one in findings if one.kind in ("label_errors", "outliers") for row in one.rows[:150]}
    chosen = np.flatnonzero(np.isin(sight.rows, sorted(named)))
    rest = np.setdiff1d(np.arange(len(sight.rows)), chosen)
    draw = np.random.Generator(np.random.Philox(key=sight.seed))
    room = max(MAP_ITEMS - len(chosen), 0)
    some = rest if len(rest) <= room else draw.choice(rest, room, replace=False)
    at = np.sort(np.concatenate([chosen, some]))
    made = projection.project(sight.x[at], seed=sight.seed)
    return {
        "method": made.method,
        "shown": made.shown,
        "rows": sight.rows[at].tolist(),
        "places": np.round(made.places, 4).tolist(),
    }


def _in_rows(finding: Finding, sight: Sight) -> Finding:
    """Rows of the sight become rows of the inspected dataset."""
    return dataclasses.replace(finding, rows=tuple(sight.rows[list(finding.rows)].tolist()))


def _named(target: Any, names: Sequence[str]) -> str:
    """A label, or several, as a table writes them."""
    if np.ndim(target) == 0:
        return str(names[int(target)])
    return SEPARATOR.join(names[int(c)] for c in np.flatnonzero(target))


def held_out(dataset: Dataset) -> NDArray[np.bool_]:
    """(N,) rows that measure."""
    return np.isin(dataset.table["split"].cast("string").fill_null("").to_numpy(zero_copy_only=False), HELD_OUT)
