"""A dataset that grows: what is new since a model was made, a refit on all that is here, both models on old and new.

    snapshot.safetensors  -> old, new, relabelled, gone      by content, so files may move and rows be renumbered
    cache                 -> features of what is new         the old ones are there: the same backbone, unless another
                                                             one is named
    held-out items        -> stay held out                   what measured the old model measures the new one, too, with
                                                             a fifth of the new items; copies stay on one side
    both models           -> evaluation/growth.py            drift, forgetting and gain, with intervals

Items that the old model has learnt from would flatter it. Where it held none out (it was cross-validated), its own
measure of that time stands for it on old items. Where no old item is in the source any more, the new model learns from
new items alone, which is said: `topwork extend` keeps what a model remembers of its classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork import plugins
from topwork.adaptation import probe as probes
from topwork.artefact import bundle, weights
from topwork.artefact.model import Model
from topwork.artefact.snapshot import Known, Snapshot
from topwork.backbones import find
from topwork.data.shift import shift
from topwork.data.split import SPLITS, keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadData, StoreError, TopworkError
from topwork.evaluation import growth
from topwork.ground import HOLD_OUT, Ground
from topwork.nn.heads import probabilities
from topwork.types import Choice, Dataset, Finding, Metric, Predictions, Skipped, Watch

if TYPE_CHECKING:
    from topwork.account import Measured
    from topwork.rung import Climb, Rung

OWN = ("bundled:pixels", "bundled:ngrams", "bundled:columns")  # no pretrained backbones: a refit looks for one again
ENOUGH = 20  # old items that neither model has learnt from, to be compared by them
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Since:
    """The model that a fit goes on from."""

    model: Model
    snapshot: Snapshot
    answers: dict[bytes, Array] = field(default_factory=dict)  # of the model, by content: a climb may save twice

    @classmethod
    def of(cls, model: Model) -> Since:
        """Raises BadSetting where it keeps no snapshot."""
        return cls(model, Snapshot.read(model.folder, model.seal))

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.model.manifest.get("name") or self.model.folder.name)

    def backbone(self) -> Choice | None:
        """What the model was made of, if it can be found again: what that sees of the old items is in the cache."""
        card = self.model.card
        with contextlib.suppress(TopworkError):
            if card.spec not in OWN and find(card.spec, card.modality):
                return Choice("backbone", card.spec, f"that of {self.name}; --backbone names another")
        return None

    def check(self, dataset: Dataset) -> Known:
        """What is known of an inspected dataset; BadData where nothing is new or it is of another kind."""
        model = self.model
        for what, ours, theirs in (
            ("holds", f"{dataset.modality}s", f"{model.modality}s"),
            ("has", _kind(dataset.numeric, dataset.multilabel), _kind(model.numeric, model.multilabel)),
        ):
            if ours != theirs:
                raise BadData(f"{dataset.name} {what} {ours}, but {model.folder} was made from {theirs}")
        known = self.snapshot.known(_labelled(dataset))
        if known.label.all():
            raise BadData(
                f"{dataset.name}: nothing is new since {model.folder} was made: all its {len(known.label):,} labelled "
                f"{dataset.modality}s were there, with the same labels. Leave --since out to fit all the same"
            )
        return known

    def finding(self, dataset: Dataset, known: Known) -> Finding:
        """How much is old, new, relabelled and gone, in words."""
        old, new = int(known.content.sum()), int((~known.content).sum())
        moved = int((known.content & ~known.label).sum())
        parts = [f"{old:,} of {len(known.content):,} {dataset.modality}s were there when {self.name} was made"]
        parts.append(f"{new:,} are new")
        parts += [f"{moved:,} have another label now"] if moved else []
        parts += [f"{known.gone:,} of its items are gone"] if known.gone else []
        if old:
            return Finding("growth", "note", ", ".join(parts), "it is fitted on all that are here")
        fix = "only new ones are learnt from, and what was known may be lost; topwork extend keeps what is remembered"
        return Finding("growth", "warning", ", ".join(parts), fix)

    def placed(self, dataset: Dataset, seed: int) -> tuple[Dataset, str]:
        """With what measured the old model, and a fifth of the new items, in the test split; and that in words.

        Only where the old model held items out and the source puts none into val or test; "" otherwise.
        """
        import pyarrow as pa

        known = self.snapshot.known(dataset)
        labelled = dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)
        given = any(len(dataset.rows_of(side)) for side in ("val", "test"))
        if given or not (known.held & labelled).any():
            return dataset, ""
        together = keep_together(dataset)
        number = np.full(len(dataset), -1, np.int8)
        number[np.isin(together, together[known.held])] = SPLITS.index("test")
        number[np.isin(together, together[known.content & ~known.held])] = SPLITS.index(
            "train"
        )  # a copy was learnt from
        free = np.flatnonzero((number < 0) & labelled)
        if len(free):
            split = plugins.make("data.split", HOLD_OUT).assign(dataset.take(free), seed).table["split"].cast("string")
            number[free] = np.where(
                split.to_numpy(zero_copy_only=False) == "test", *map(SPLITS.index, ("test", "train"))
            )
        column = pa.DictionaryArray.from_arrays(pa.array(np.maximum(number, 0), mask=number < 0), pa.array(SPLITS))
        said = f"what measured {self.name}, and a fifth of the new {dataset.modality}s"
        return dataset.with_column("split", column, history=f"split: test holds {said}"), said

    def table(
        self, ground: Ground, climbed: Climb, measured: Measured, metric: str, seed: int, watch: Watch
    ) -> dict[str, Any]:
        """Drift, forgetting and gain as plain JSON."""
        rung = climbed.best
        rows = rung.held if len(rung.held) else rung.rows
        folds = None if len(rung.held) else ground.folds[rows]
        asked = ground.dataset.take(rows)
        known = self.snapshot.known(asked)
        unseen = known.label & known.held
        fair = ~known.label | (unseen & (unseen.sum() >= ENOUGH))  # of the others its own measure of that time is told
        first = _first_look(climbed)
        before, passes = self._answers(asked, first, rows, fair, watch)
        before, after = _side_by_side(before, self.model.labels, measured.predictions)
        then = _metric(self._report.get("metrics", {}).get(metric))

        def compared(name: str, which: Array, said: str, fair: bool = True) -> dict[str, Any]:
            parts = [_some(one, which) for one in (before, after)]
            return growth.row(
                name, parts[0] if fair else None, parts[1], metric, folds if folds is None else folds[which], said
            )

        found = []
        old = None
        if unseen.sum() >= ENOUGH:
            found.append(compared("old", unseen, "neither model has learnt from them"))
            old = _metric(found[-1]["before"])
        elif known.label.any():
            found.append(compared("old", known.label, "before: its own measure when it was made", fair=False))
            old = then
            now = _metric(found[-1]["after"])
            found[-1]["before"] = None if then is None else dataclasses.asdict(then)
            if then is not None and now is not None:
                found[-1]["difference"] = growth.apart(then, now, metric, growth.is_loss(after, metric))
        for name, which, said in (
            (
                "relabelled",
                known.content & ~known.label,
                "their labels have changed; the old model may have learnt the others",
            ),
            ("new", ~known.content, "the old model has never seen them, the new one has not learnt from them"),
        ):
            if which.any():
                found.append(compared(name, which, said))
        drift = None
        fresh = _metric(found[-1]["before"]) if found and found[-1]["data"] == "new" else None
        if fresh is not None and old is not None:
            drift = growth.apart(old, fresh, metric, growth.is_loss(after, metric))
        whole = self.snapshot.known(ground.dataset)
        numbers = {
            "since": self.name,
            "metric": metric,
            "items": {
                "old": int(whole.label.sum()),
                "new": int((~whole.content).sum()),
                "relabelled": int((whole.content & ~whole.label).sum()),
                "gone": whole.gone,
            },
            "passes": {
                "computed": first.features.computed, "cached": first.features.cached, "asking_the_old": passes,
            },
            "rows": found,
            "drift": drift,
            "told_apart": _told_apart(ground, first, whole, seed),
            "labels": {"new": sorted(set(ground.dataset.labels) - set(self.model.labels)),
                       "gone": sorted(set(self.model.labels) - set(ground.dataset.labels))},
        }  # fmt: skip
        return {**numbers, "text": _in_words(numbers, ground.dataset.modality)}

    @property
    def _report(self) -> Mapping[str, Any]:
        try:
            return self.model.report
        except StoreError:
            return {}

    def _answers(self, asked: Dataset, first: Rung, rows: Array, which: Array, watch: Watch) -> tuple[Array, int]:
        """(N, C) of the old model, zeros but for `which` of the rows, and the forward passes that it took.

        None where it is a head on what the first look has seen; a tuned backbone is asked by its own graph.
        """
        model = self.model
        found = np.zeros((len(rows), max(1, len(model.labels))))
        if first.backbone.card.key == model.card.key:
            head = weights.head_of(model.contents(bundle.CHECKED[1]), model.manifest["head"])
            found[which] = probabilities(head, first.x(rows[which]))
            return found, 0
        asked = asked.take(np.flatnonzero(which))
        contents, inputs = asked.table["content"].to_pylist(), asked.inputs()
        news: dict[bytes, int] = {}
        for row, content in enumerate(contents):
            if content not in self.answers:
                news.setdefault(content, row)
        for done, (content, answer) in enumerate(
            zip(news, model.rows([inputs[row] for row in news.values()]), strict=True)
        ):
            watch.progress(f"ask {self.name}", done + 1, len(news))
            if isinstance(answer, Skipped):
                raise BadData(f"{answer.item}: {answer.reason}, though it could be read before")
            self.answers[content] = answer
        for row, content in zip(np.flatnonzero(which), contents, strict=True):
            found[row] = self.answers[content]
        return found, len(self.answers)


def _first_look(climbed: Climb) -> Rung:
    """What saw the items before anything was tuned; where features cost less than keeping them, each step does."""
    taken = [rung.frozen or rung for rung in climbed.rungs if rung.plan.backbone == climbed.best.plan.backbone]
    plain = [rung for rung in taken if rung.plan.lesson is None]  # no other data have changed its backbone
    return max(plain or taken, key=lambda rung: rung.features.computed)


def _told_apart(ground: Ground, rung: Rung, known: Known, seed: int) -> dict[str, Any] | None:
    """Whether a classifier can tell new items from old ones by what the backbone sees of them."""
    rows = rung.features.rows
    x = rung.x(rows)
    if not isinstance(x, np.ndarray):  # n-grams
        return None

    def ask(x: Array, sides: Array, folds: Array) -> Array:
        return probes.choose(x, sides, folds, 2, methods=("logistic",))[0].held_out

    sides = [np.flatnonzero(known.content[rows]), np.flatnonzero(~known.content[rows])]
    found = shift(x, sides[0], sides[1], keep_together(ground.dataset)[rows], make_folds, ask, seed)
    if found is None:
        return None
    return {"accuracy": found.accuracy, "low": found.low, "high": found.high, "p_value": found.p_value, "n": found.n}


def _in_words(numbers: Mapping[str, Any], thing: str) -> str:
    items, passes = numbers["items"], numbers["passes"]
    moved = f", {items['relabelled']:,} with another label" if items["relabelled"] else ""
    cost = f"{passes['computed']:,} forward passes, {passes['cached']:,} {thing}s were in the cache"
    if items["old"] and not passes["cached"]:
        cost = f"{passes['computed']:,} forward passes, none was in the cache"
    said = [f"{items['old']:,} old {thing}s{moved} and {items['new']:,} new ones: {cost}."]
    rows = {row["data"]: row for row in numbers["rows"]}
    if not items["old"]:
        said.append(f"No {thing} of {numbers['since']} is here, so forgetting cannot be measured.")
    if (row := rows.get("old")) and row["difference"]:
        said.append(_judged(row["difference"], "Forgotten", "Better", f"on {row['n']:,} old {thing}s"))
    if (row := rows.get("new")) and row["difference"]:
        said.append(_judged(row["difference"], "Worse", "Gained", f"on {row['n']:,} new ones"))
    if numbers["drift"]:
        said.append(_judged(numbers["drift"], "Drift", "Easier", f"{numbers['since']} on new ones against old ones"))
    if apart := numbers["told_apart"]:
        said.append(
            f"New ones can be told from old ones {'' if apart['low'] > 0.5 else 'no better than by chance '}"
            f"({apart['accuracy']:.0%} [{apart['low']:.0%}, {apart['high']:.0%}] right, 50% if they were alike)."
        )
    return " ".join(said)


def _judged(difference: Mapping[str, Any], worse: str, better: str, where: str) -> str:
    word = worse if difference["high"] < 0 else better if difference["low"] > 0 else "No difference can be shown"
    return f"{word}: {where} {difference['text']}."


def _side_by_side(before: Array, labels: tuple[str, ...], after: Predictions) -> tuple[Predictions, Predictions]:
    """Both over the labels of either; the truth keeps its numbers."""
    if after.numeric:
        return dataclasses.replace(after, probabilities=before.astype(np.float32)), after
    names = (*after.labels, *(label for label in labels if label not in after.labels))
    C, N = len(after.labels), len(after.targets)
    old = np.zeros((N, len(names)), np.float32)
    old[:, [names.index(label) for label in labels]] = before
    new = np.zeros((N, len(names)), np.float32)
    new[:, :C] = after.probabilities
    targets = after.targets
    if after.multilabel:
        targets = np.zeros((N, len(names)), bool)
        targets[:, :C] = after.targets
    return tuple(dataclasses.replace(after, probabilities=p, targets=targets, labels=names) for p in (old, new))  # type: ignore[return-value]


def _some(said: Predictions, which: Array) -> Predictions:
    return dataclasses.replace(said, probabilities=said.probabilities[which], targets=said.targets[which], items=())


def _labelled(dataset: Dataset) -> Dataset:
    return dataset.take(np.flatnonzero(dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)))


def _metric(found: Mapping[str, Any] | None) -> Metric | None:
    return Metric(**found) if found else None


def _kind(numeric: bool, multilabel: bool) -> str:
    return "numbers" if numeric else "lists of labels" if multilabel else "one label an item"
