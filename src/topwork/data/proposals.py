"""What to do about a finding, row by row: a proposal, which a user may change before it is applied.

    duplicates           the first of each picture or text stays, one that measures (test, then val) before others: drop
    leakage              training copies of what measures: drop
    conflicting_labels   the label of the majority of its copies stays: drop the others; all where there is no majority
    label_names          several spellings of a name: relabel to the most frequent one
    label_errors         wrong with probability 0.9, and so at the noise that is proven, too: relabel where the other
                         label is sure, else drop
    leaking_groups       group: a column that keeps them together in every split
    blank, cut_off       drop
    anything else        keep: to be looked at

What measures (val, test) is never dropped or relabelled on the word of a model. Of several proposals for one row the
strongest counts: drop, then relabel, then group, then keep.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import HELD_OUT, counts, label_sets
from topwork.errors import UnknownName
from topwork.types import Dataset, Finding

Action = Literal["drop", "relabel", "group", "keep"]
ACTIONS: tuple[Action, ...] = get_args(Action)  # the strongest first
SURE = 0.9  # P(wrong) from which a label is dropped or changed: see label_errors.py
COPIES = ("exact_duplicates", "near_duplicates", "mirrored_duplicates", "cropped_duplicates")
ALIASES = {"duplicates": COPIES, "leaks": ("leakage",)}
OPINIONS = ("label_errors", "outliers")  # of a model
DEEP = (*OPINIONS, "cropped_duplicates")  # need features
KINDS = (
    "unreadable", *COPIES, "leakage", "conflicting_labels", "blank", *OPINIONS, "cut_off", "nearly_uniform", "blurred",
    "dark", "overexposed", "odd_brightness", "tiny", "odd_size", "odd_shape", "odd_colour", "turned", "animated",
    "garbled", "markup", "very_long", "very_short", "template", "missing_values", "far_values", "far_numbers",
    "unlabelled",
)  # fmt: skip
"""Findings whose rows can be dropped."""
USUAL = (
    "unreadable", "exact_duplicates", "near_duplicates", "mirrored_duplicates", "leakage", "conflicting_labels",
    "blank", "cut_off",
)  # fmt: skip
"""What `clean` drops when nothing is named: facts about files that need no features, no opinions."""


@dataclass(frozen=True)
class Proposal:
    """What to do with one row of the inspected dataset."""

    row: int
    action: Action
    reason: str
    to: str = ""  # relabel: the new label, several joined by |; group: its name
    score: float | None = None


def propose(finding: Finding, dataset: Dataset) -> list[Proposal]:
    """A proposal for every row of a finding, or for every row that it speaks about."""
    rule = _RULES.get(finding.kind)
    if rule is not None:
        return list(rule(finding, dataset))
    scores: Sequence[float | None] = finding.scores or [None] * len(finding.rows)
    return [
        Proposal(row, "keep", f"{finding.kind}: to be looked at", score=score)
        for row, score in zip(finding.rows, scores, strict=True)
    ]


def drops(finding: Finding, dataset: Dataset) -> dict[int, str]:
    """Row -> reason: what `--drop KIND` drops. Where a kind has a rule for what stays, that; otherwise all its rows.

    Labels that are named are dropped from P(wrong) 0.9 on, proven or not: who names them has decided.
    """
    measures = _measures(dataset) if finding.kind in OPINIONS else np.zeros(len(dataset), bool)
    if finding.kind == "label_errors":
        scored = zip(finding.rows, finding.scores, strict=True)
        return {row: _wrong(score) for row, score in scored if score >= SURE and not measures[row]}
    if finding.kind in _RULES:
        return {one.row: one.reason for one in propose(finding, dataset) if one.action == "drop"}
    return {row: finding.kind for row in finding.rows if not measures[row]}


def kinds_of(names: Iterable[str]) -> tuple[str, ...]:
    """The kinds that some names stand for; UnknownName names those that exist."""
    chosen: list[str] = []
    for name in names:
        if name not in KINDS and name not in ALIASES:
            raise UnknownName.among(name, "findings that can be dropped", {*KINDS, *ALIASES})
        chosen += ALIASES.get(name, (name,))
    return tuple(dict.fromkeys(chosen))


def strongest(proposals: Iterable[Proposal]) -> dict[int, Proposal]:
    """Row -> the proposal that counts."""
    best: dict[int, Proposal] = {}
    for one in proposals:
        if one.row not in best or ACTIONS.index(one.action) < ACTIONS.index(best[one.row].action):
            best[one.row] = one
    return best


def _duplicates(finding: Finding, dataset: Dataset) -> Iterator[Proposal]:
    item, rows = dataset.table["item"], np.asarray(finding.rows, np.int64)
    bytes_alike = finding.kind == "exact_duplicates" and dataset.modality == "image"  # texts differ in case and marks
    alike = dataset.table["content" if bytes_alike else "twin"].combine_chunks()
    group = alike.dictionary_encode().indices.to_numpy()[rows]
    odd = _outvoted(label_sets(dataset.targets())[rows], group)
    order = np.lexsort((rows, _rank(dataset)[rows], odd))[::-1]  # the first one is written last
    stays = dict(zip(group[order].tolist(), rows[order].tolist(), strict=True))
    for row, number in zip(finding.rows, group.tolist(), strict=True):
        if stays[number] == row:
            yield Proposal(row, "keep", "the copy that stays")
        else:
            yield Proposal(row, "drop", f"copy of {item[stays[number]].as_py()}")


def _outvoted(labels: NDArray[Any], group: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whose label is not the one that most of their group have."""
    pairs, number, count = np.unique(np.stack([group, labels], 1), axis=0, return_inverse=True, return_counts=True)
    most = np.zeros(int(group.max(initial=0)) + 1, np.int64)
    np.maximum.at(most, pairs[:, 0], count)
    return count[number.reshape(-1)] < most[group]


def _leakage(finding: Finding, dataset: Dataset) -> Iterator[Proposal]:
    item, twin, rank = dataset.table["item"], dataset.table["twin"].to_numpy(), _rank(dataset)
    best: dict[int, int] = {}
    for row in finding.rows:
        kept = best.get(int(twin[row]))
        if kept is None or rank[row] < rank[kept]:
            best[int(twin[row])] = row
    for row in finding.rows:
        kept = best[int(twin[row])]
        if rank[row] > rank[kept]:
            yield Proposal(row, "drop", f"also measured on: {item[kept].as_py()}")
        else:
            yield Proposal(row, "keep", "measures")


def _conflicts(finding: Finding, dataset: Dataset) -> Iterator[Proposal]:
    twin, labels = dataset.table["twin"].to_numpy(), label_sets(dataset.targets())
    for number in dict.fromkeys(twin[list(finding.rows)].tolist()):
        rows = [row for row in finding.rows if twin[row] == number]
        values, count = np.unique(labels[rows], return_counts=True)
        sure = (count == count.max()).sum() == 1
        for row in rows:
            if sure and labels[row] == values[count.argmax()]:
                yield Proposal(row, "keep", "the label of most of its copies")
            else:
                why = "most of its copies have another label" if sure else "its copies have other labels"
                yield Proposal(row, "drop", why)


def _label_names(_: Finding, dataset: Dataset) -> Iterator[Proposal]:
    targets, sizes = dataset.targets(), counts(dataset.targets(), len(dataset.labels))
    alike: dict[str, list[int]] = {}
    for c, label in enumerate(dataset.labels):
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(c)
    better = {c: max(group, key=lambda k: (sizes[k], -k)) for group in alike.values() for c in group}
    for row, target in enumerate(targets):
        own = np.flatnonzero(target) if targets.ndim == 2 else np.atleast_1d(target)
        if any(c >= 0 and better[int(c)] != c for c in own):
            to = "|".join(dict.fromkeys(dataset.labels[better[int(c)]] for c in own))
            yield Proposal(row, "relabel", "another spelling of the same name", to)


def _label_errors(finding: Finding, dataset: Dataset) -> Iterator[Proposal]:
    measures = _measures(dataset)
    proven = finding.proven or [True] * len(finding.rows)
    for row, to, score, known in zip(finding.rows, finding.suggest, finding.scores, proven, strict=True):
        if measures[row]:
            yield Proposal(row, "keep", "suspicious label, but it measures: look at it", to, score)
        elif score < SURE:
            yield Proposal(row, "keep", "suspicious label, perhaps right", to, score)
        elif not known:
            why = "suspicious label, but too few of the surest ones are wrong to act on it: look at it"
            yield Proposal(row, "keep", why, to, score)
        else:
            action: Action = "relabel" if to and finding.severity != "note" else "drop"
            yield Proposal(row, action, _wrong(score), to, score)


def _wrong(score: float) -> str:
    return f"label is wrong with probability {score:.2f}"


def _groups(finding: Finding, _: Dataset) -> Iterator[Proposal]:
    for row, name in zip(finding.rows, finding.suggest, strict=True):
        yield Proposal(row, "group", "kept together", name)


def _lost(finding: Finding, _: Dataset) -> Iterator[Proposal]:
    why = {"blank": "blank: nothing to learn from", "cut_off": "cut off: a part of it is missing"}[finding.kind]
    for row in finding.rows:
        yield Proposal(row, "drop", why)


_RULES: Mapping[str, Callable[[Finding, Dataset], Iterator[Proposal]]] = {
    **dict.fromkeys(COPIES, _duplicates),
    "leakage": _leakage,
    "conflicting_labels": _conflicts,
    "label_names": _label_names,
    "label_errors": _label_errors,
    "leaking_groups": _groups,
    "blank": _lost,
    "cut_off": _lost,
}


def _rank(dataset: Dataset) -> NDArray[np.int64]:
    """(N,) 0: test, 1: val, 2: the rest."""
    split = dataset.table["split"].cast("string").to_numpy(zero_copy_only=False)
    return np.select([split == name for name in HELD_OUT], [0, 1], 2)


def _measures(dataset: Dataset) -> NDArray[np.bool_]:
    return _rank(dataset) < 2
