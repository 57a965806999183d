"""What is worth saying about a dataset: every finding is one sentence with its numbers, and what was or can be done."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.types import Dataset, Finding, Skipped


@dataclass(frozen=True)
class Words:
    """What the items of a modality are called."""

    one: str
    many: str
    content: str  # what two copies have in common
    contents: str
    exact: str
    near: str
    blank: str
    look: str  # advice about blank ones


Likeness = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""likeness(rows, others) -> (P,) 0..1: how much the items of each pair of rows have in common."""

WORDS = {
    "image": Words(
        "image", "images", "picture", "pictures",
        "byte for byte copies of other files", "resized or re-saved copies of other pictures",
        "of one colour only", "look at them: empty or broken recordings?",
    ),
    "text": Words(
        "text", "texts", "text", "texts",
        "the same as others but for case, spaces and marks at the end", "nearly the same as others",
        "without a letter or digit", "look at them: is something lost?",
    ),
    "row": Words(
        "row", "rows", "row", "rows",
        "the same as others in every column", "nearly the same as others",
        "without any value", "look at them: is something lost?",
    ),
}  # fmt: skip
COMMON = 0.2  # share of the items from which a suspicion is what the set is like
SHARE = 0.05  # of a second language or script, from which it is worth saying

FAR = 8.0  # robust standard deviations from the median: beyond them one normal number in 10^15 lies
FEW = 10  # items of a class below which nothing said about it is worth much
HELD_OUT = ("test", "val")


def about(
    dataset: Dataset,
    same: NDArray[np.int32],
    near: NDArray[np.int32],
    twin: NDArray[np.int32],
    blank: NDArray[np.bool_],
    facts: Mapping[str, Any],
    likeness: Likeness,
) -> list[Finding | None]:
    """Findings of the usable items.

    (N,) each: same: equal copies, near: copies, twin: copies and mirror images, blank: no content; likeness of pairs.
    """
    targets = dataset.targets()
    if dataset.numeric:
        return [
            *_copies(dataset, same, near, twin, likeness), crossing(dataset, twin), conflicts(dataset, twin),
            _blank(dataset, blank), _far_numbers(dataset, targets), _unlabelled(dataset, twin), _languages(facts),
        ]  # fmt: skip
    sizes = counts(targets, len(dataset.labels))
    return [
        *_copies(dataset, same, near, twin, likeness),
        crossing(dataset, twin),
        conflicts(dataset, twin),
        _blank(dataset, blank),
        _label_names(dataset),
        _tiny(dataset, sizes),
        _imbalance(dataset, sizes),
        _missing_in_split(dataset, targets),
        _unlabelled(dataset, twin),
        _languages(facts),
    ]


def words_of(dataset: Dataset) -> Words:
    """What its items are called."""
    return WORDS[dataset.modality]


def unreadable(dataset: Dataset, bad: list[Skipped]) -> Finding | None:
    """Files that are no images, or damaged; texts that are empty."""
    if not bad:
        return None
    message = f"{_count(dataset, len(bad))} cannot be read, e.g. {bad[0].item}: {bad[0].reason}"
    return Finding("unreadable", "warning", message, "left out", items=_few(s.item for s in bad))


def _copies(
    dataset: Dataset, same: NDArray[np.int32], near: NDArray[np.int32], twin: NDArray[np.int32], likeness: Likeness
) -> list[Finding | None]:
    """Exact copies, other copies of the same picture or text, mirrored ones; scores: how like the first of each."""
    words, alone = words_of(dataset), np.arange(len(same), dtype=np.int32)
    found = [
        *duplicates(dataset, "exact_duplicates", words.exact, alone, same),
        *duplicates(dataset, "near_duplicates", words.near, same, near),
        *duplicates(dataset, "mirrored_duplicates", "mirror images of other pictures", near, twin),
    ]
    groups = {"exact_duplicates": same, "near_duplicates": near, "mirrored_duplicates": twin}
    out: list[Finding | None] = []
    for one in found:
        rows = np.array(one.rows)
        _, first, group = np.unique(groups[one.kind][rows], return_index=True, return_inverse=True)
        scores = likeness(rows, rows[first[group]])
        out.append(dataclasses.replace(one, scores=tuple(np.round(scores, 4).tolist())))
    return out


def duplicates(
    dataset: Dataset,
    kind: str,
    what: str,
    before: NDArray[np.int32],
    after: NDArray[np.int32],
    scores: NDArray[Any] | None = None,
) -> list[Finding]:
    """One kind of copies: rows of all groups (N,) that were several before; the first of each group is among them."""
    rows = np.flatnonzero(np.isin(after, _groups_that_differ(after, before)))
    if not len(rows):
        return []
    extra = len(np.unique(before)) - len(np.unique(after))
    message, fix = (
        f"{what}: {_count(dataset, extra)}",
        "kept on one side of every split; topwork clean keeps one of each",
    )
    found = _finding(dataset, kind, "note", rows, True, message, fix)
    if found is None or scores is None:
        return [found] if found else []
    return [dataclasses.replace(found, scores=tuple(np.round(scores[rows], 4).tolist()))]


def left_out(dataset: Dataset, leaks: Mapping[int, int]) -> Finding | None:
    """Training rows that are the same picture or text as a val or test row."""
    if not leaks:
        return None
    item = dataset.table["item"]
    row, held = next(iter(leaks.items()))
    message = (
        f"{_count(dataset, len(leaks))} of the training set also in val or test, "
        f"e.g. {item[row].as_py()} = {item[held].as_py()}"
    )
    return Finding("leakage", "warning", message, "left out of training", items=_few(item[r].as_py() for r in leaks))


def crossing(dataset: Dataset, twin: NDArray[np.int32]) -> Finding | None:
    """Pictures or texts that are still in more than one split."""
    where = {split: dataset.rows_of(split) for split in ("train", *HELD_OUT)}
    shared: list[NDArray[Any]] = []
    words = []
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        both = np.intersect1d(twin[where[one]], twin[where[other]])
        if len(both):
            shared.append(both)
            words.append(f"{len(both):,} in {one} and {other}")
    if not shared:
        return None
    rows = np.flatnonzero(np.isin(twin, np.concatenate(shared)))
    serious = any(word.endswith(("train and test", "train and val")) for word in words)
    fix = "scores on them flatter: leave the training copies out" if serious else "val is not independent of test"
    message = f"the same {words_of(dataset).content} is in two splits: {', '.join(words)}"
    return _finding(dataset, "leakage", "error" if serious else "warning", rows, True, message, fix)


def conflicts(dataset: Dataset, twin: NDArray[np.int32]) -> Finding | None:
    """The same picture or text with different labels."""
    rows = _in_groups(twin)
    targets = label_sets(dataset.targets()[rows])
    rows, targets = rows[targets >= 0], targets[targets >= 0]
    groups = _groups_that_differ(twin[rows], targets)
    if not len(groups):
        return None
    one = np.flatnonzero(twin[rows] == groups[0])
    other = one[targets[one] != targets[one[0]]][0]
    example = " and ".join(dataset.table["item"][int(rows[i])].as_py() for i in (one[0], other))
    rows = rows[np.isin(twin[rows], groups)]
    words = words_of(dataset)
    kind = "an image" if dataset.modality == "image" else f"a {words.one}"
    several = f" If {kind} may have several labels, list them in one row" if not dataset.multilabel else ""
    message = f"{len(groups):,} {words.contents} have two different labels, e.g. {example}"
    found = _finding(dataset, "conflicting_labels", "warning", rows, True, message, f"at least one is wrong.{several}")
    if found is None or dataset.multilabel or dataset.numeric:
        return found
    return dataclasses.replace(found, suggest=_majority(dataset, twin[rows], dataset.targets()[rows]))


def _majority(dataset: Dataset, groups: NDArray[Any], targets: NDArray[Any]) -> tuple[str, ...]:
    """Of each row the label that more rows of its group have than any other; "" where there is none."""
    votes: dict[int, Counter[int]] = defaultdict(Counter)
    for group, target in zip(groups.tolist(), targets.tolist(), strict=True):
        votes[group][target] += 1
    best = {group: count.most_common(2) for group, count in votes.items()}
    names = {
        group: dataset.labels[two[0][0]] if len(two) == 1 or two[0][1] > two[1][1] else ""
        for group, two in best.items()
    }
    return tuple(names[group] for group in groups.tolist())


def _blank(dataset: Dataset, blank: NDArray[np.bool_]) -> Finding | None:
    rows = np.flatnonzero(blank)
    words = words_of(dataset)
    message = f"{_count(dataset, len(rows))} {words.blank}"
    return _finding(dataset, "blank", "note", rows, len(rows) > 0, message, words.look)


def _label_names(dataset: Dataset) -> Finding | None:
    """Labels that a person would read as one: equal but for case, spaces or Unicode form (NFKC)."""
    alike: dict[str, list[int]] = defaultdict(list)
    for c, label in enumerate(dataset.labels):
        alike[" ".join(unicodedata.normalize("NFKC", label).casefold().split())].append(c)
    several = [group for group in alike.values() if len(group) > 1]
    if not several:
        return None
    names = "; ".join(" and ".join(repr(dataset.labels[c]) for c in group) for group in several[:3])
    message = f"{len(several):,} classes are written in several ways: {names}"
    fix = "kept apart; rename them if they mean the same"
    if dataset.multilabel:
        return Finding("label_names", "warning", message, fix)
    sizes, targets = counts(dataset.targets(), len(dataset.labels)), dataset.targets()
    usual = {c: max(group, key=lambda one: (sizes[one], -one)) for group in several for c in group}
    rows = np.flatnonzero(np.isin(targets, [c for c, name in usual.items() if c != name]))
    found = _finding(dataset, "label_names", "warning", rows, True, message, fix)
    return found and dataclasses.replace(found, suggest=tuple(dataset.labels[usual[int(targets[r])]] for r in rows))


def _tiny(dataset: Dataset, sizes: NDArray[np.int64]) -> Finding | None:
    tiny = [f"'{dataset.labels[c]}' ({sizes[c]})" for c in np.argsort(sizes, kind="stable") if sizes[c] < FEW]
    if not tiny:
        return None
    words = words_of(dataset)
    message = (
        f"{len(tiny):,} classes have fewer than {FEW} {words.many}: {', '.join(tiny[:5])}{' ...' * (len(tiny) > 5)}"
    )
    single = f" One {words.one} can be learnt or tested, not both" if sizes.min() == 1 else ""
    fix = f"add {words.many} or merge classes.{single}"
    rows = _rows_with(dataset, np.flatnonzero(sizes < FEW))
    return _finding(dataset, "tiny_class", "warning" if single else "note", rows, True, message, fix)


def _imbalance(dataset: Dataset, sizes: NDArray[np.int64]) -> Finding | None:
    if len(sizes) < 2 or dataset.multilabel or sizes.max() < 3 * sizes.min():
        return None
    big, small = int(sizes.argmax()), int(sizes.argmin())
    message = (
        f"the largest class '{dataset.labels[big]}' ({sizes[big]:,}) has {sizes[big] / sizes[small]:.0f} times the "
        f"{words_of(dataset).many} of the smallest, '{dataset.labels[small]}' ({sizes[small]:,})"
    )
    severity = "warning" if sizes[big] >= 10 * sizes[small] else "note"
    return Finding("imbalance", severity, message, "read balanced accuracy beside accuracy")


def _missing_in_split(dataset: Dataset, targets: NDArray[Any]) -> Finding | None:
    """Classes that a split lacks; worst when training lacks them."""
    lacking = {}
    for split in ("train", *HELD_OUT):
        rows = dataset.rows_of(split)
        if len(rows):
            absent = np.flatnonzero(counts(targets[rows], len(dataset.labels)) == 0)
            lacking |= {split: [dataset.labels[c] for c in absent]} if len(absent) else {}
    if not lacking:
        return None
    parts = [f"{split} has no {', '.join(repr(n) for n in names[:5])}" for split, names in lacking.items()]
    fix = "such a class can never be predicted" if "train" in lacking else "scores say nothing about such a class"
    missing = np.flatnonzero(np.isin(dataset.labels, lacking.get("train", ())))
    rows = _rows_with(dataset, missing)  # nothing like them is learnt from
    severity = "error" if "train" in lacking else "warning"
    return _finding(dataset, "missing_in_split", severity, rows, True, "; ".join(parts), fix)


def _far_numbers(dataset: Dataset, targets: NDArray[Any]) -> Finding | None:
    """Numbers far from all others: |y - median| > FAR robust standard deviations, 1.4826 median |y - median|."""
    known = np.flatnonzero(np.isfinite(targets))
    away = np.abs(targets[known] - np.median(targets[known]))
    scale = 1.4826 * float(np.median(away))
    rows = known[away > FAR * scale] if scale > 0 else known[:0]
    if not len(rows) or len(rows) > SHARE * len(known):  # a long tail is no mistake
        return None
    example = f"{dataset.table['item'][int(rows[0])].as_py()}: {targets[rows[0]]:g}"
    message = f"{len(rows):,} numbers of '{dataset.labels[0]}' are far from all others, e.g. {example}"
    return _finding(dataset, "far_numbers", "note", rows, True, message, "typing mistakes, another unit? Look at them")


def _unlabelled(dataset: Dataset, twin: NDArray[np.int32]) -> Finding | None:
    rows = np.flatnonzero(dataset.table["target"].is_null().to_numpy(zero_copy_only=False))
    message = f"{_count(dataset, len(rows))} without label"
    found = _finding(dataset, "unlabelled", "note", rows, len(rows) > 0, message, "not used")
    if found is None or dataset.multilabel or dataset.numeric:
        return found
    targets = dataset.targets()
    known = targets >= 0
    low, high = np.full(int(twin.max()) + 1, len(dataset.labels)), np.full(int(twin.max()) + 1, -1)
    np.minimum.at(low, twin[known], targets[known])
    np.maximum.at(high, twin[known], targets[known])
    copied = rows[low[twin[rows]] == high[twin[rows]]]  # a copy of it has a label, and no other has another
    if not len(copied):
        return found
    better = dict(zip(copied.tolist(), high[twin[copied]].tolist(), strict=True))
    suggest = tuple(dataset.labels[better[row]] if row in better else "" for row in rows.tolist())
    fix = f"not used; the label of {len(copied):,} is known from a copy"
    return dataclasses.replace(found, fix=fix, suggest=suggest)


def _languages(facts: Mapping[str, Any]) -> Finding | None:
    """Texts in several languages."""
    shares = {name: share for name, share in facts.get("languages", {}).items() if share >= SHARE}
    if len(shares) < 2:
        return None
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Finding(
        "languages", "note", f"texts in several languages: {said}", "expected? A backbone may know only some"
    )


def suspicious(
    dataset: Dataset, kind: str, rows: NDArray[Any], scores: NDArray[Any], message: str, fix: str, sure: bool = False
) -> Finding | None:
    """These rows with what was measured of them; what holds for many of all is said without rows, unless it is sure.

    `message` has {} where "12 images" goes; scores (N,) of all items.
    """
    if not len(rows):
        return None
    said = message.format(_count(dataset, len(rows)))
    if len(rows) > COMMON * len(dataset) and len(rows) > FEW and not sure:
        said = f"{said}, of {len(dataset):,}: the set is so"
        return Finding(kind, "note", said, "expected? Then there is nothing to do")
    found = _finding(dataset, kind, "warning" if sure else "note", rows, True, said, fix)
    return found and dataclasses.replace(found, scores=tuple(round(float(s), 4) for s in scores[rows]))


def _finding(
    dataset: Dataset, kind: str, severity: Any, rows: NDArray[Any], there: bool, message: str, fix: str
) -> Finding | None:
    if not there:
        return None
    items = dataset.table["item"]
    return Finding(kind, severity, message, fix, tuple(rows.tolist()), _few(items[int(r)].as_py() for r in rows[:5]))


def counts(targets: NDArray[Any], C: int) -> NDArray[np.int64]:
    """Items of each class."""
    if targets.ndim == 2:
        return targets.sum(0)
    return np.bincount(targets[targets >= 0], minlength=C)


def spread_of(numbers: NDArray[Any]) -> dict[str, float]:
    """Count, smallest, median and largest of the numbers that are known."""
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return {"items": 0}
    return {
        "items": len(known),
        "min": float(known.min()),
        "median": float(np.median(known)),
        "max": float(known.max()),
        "mean": float(known.mean()),
        "std": float(known.std()),
    }


def label_sets(targets: NDArray[Any]) -> NDArray[np.int32]:
    """(N,) numbers, equal where the labels are equal; -1 without label."""
    if targets.dtype.kind == "f":
        known = np.isfinite(targets)
        return np.where(known, np.unique(targets, return_inverse=True)[1], -1).astype(np.int32)
    if targets.ndim == 1:
        return targets
    packed = np.packbits(targets, axis=1)
    return np.unique(packed, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _rows_with(dataset: Dataset, classes: NDArray[Any]) -> NDArray[np.int64]:
    """Rows with one of these classes."""
    targets = dataset.targets()
    return np.flatnonzero(targets[:, classes].any(1) if targets.ndim == 2 else np.isin(targets, classes))


def _in_groups(numbers: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows whose number occurs more than once."""
    return np.flatnonzero(np.bincount(numbers)[numbers] > 1)


def _groups_that_differ(groups: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Groups with more than one distinct value."""
    if not len(groups):
        return groups
    pairs = np.unique(np.stack([groups, values], 1), axis=0)[:, 0]
    number, count = np.unique(pairs, return_counts=True)
    return number[count > 1]


def _count(dataset: Dataset, count: int) -> str:
    words = words_of(dataset)
    return f"{count:,} {words.one if count == 1 else words.many}"


def _few(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(item for item, _ in zip(items, range(5), strict=False))
