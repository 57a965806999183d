"""What is worth saying about a dataset: every finding is one sentence with its numbers, and what was or can be done."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
}  # fmt: skip
SHARE = 0.05  # of a second language or script, from which it is worth saying

FEW = 10  # items of a class below which nothing said about it is worth much
HELD_OUT = ("test", "val")


def about(
    dataset: Dataset,
    same: NDArray[np.int32],
    twin: NDArray[np.int32],
    blank: NDArray[np.bool_],
    facts: Mapping[str, Any],
) -> list[Finding | None]:
    """Findings of the usable items; same (N,): copies, twin (N,): same picture or text, blank (N,): no content."""
    targets = dataset.targets()
    sizes = counts(targets, len(dataset.labels))
    return [
        *_copies(dataset, same, twin),
        _crossing(dataset, twin),
        _conflicts(dataset, twin),
        _blank(dataset, blank),
        _label_names(dataset),
        _tiny(dataset, sizes),
        _imbalance(dataset, sizes),
        _missing_in_split(dataset, targets),
        _unlabelled(dataset),
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


def _copies(dataset: Dataset, same: NDArray[np.int32], twin: NDArray[np.int32]) -> list[Finding | None]:
    """Exact copies, and other copies of the same picture or text."""
    words = words_of(dataset)
    exact_rows, near_rows = _in_groups(same), _in_groups(twin)
    near_rows = near_rows[np.isin(twin[near_rows], _groups_that_differ(twin, same))]
    extra = len(same) - len(np.unique(same))
    near = len(np.unique(same)) - len(np.unique(twin))
    return [
        _finding(
            dataset, "exact_duplicates", "note", exact_rows, extra > 0,
            f"{words.exact}: {_count(dataset, extra)}", "kept on one side of every split",
        ),
        _finding(
            dataset, "near_duplicates", "note", near_rows, near > 0,
            f"{words.near}: {_count(dataset, near)}", "kept on one side of every split",
        ),
    ]  # fmt: skip


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


def _crossing(dataset: Dataset, twin: NDArray[np.int32]) -> Finding | None:
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


def _conflicts(dataset: Dataset, twin: NDArray[np.int32]) -> Finding | None:
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
    return _finding(dataset, "conflicting_labels", "warning", rows, True, message, f"at least one is wrong.{several}")


def _blank(dataset: Dataset, blank: NDArray[np.bool_]) -> Finding | None:
    rows = np.flatnonzero(blank)
    words = words_of(dataset)
    message = f"{_count(dataset, len(rows))} {words.blank}"
    return _finding(dataset, "blank", "note", rows, len(rows) > 0, message, words.look)


def _label_names(dataset: Dataset) -> Finding | None:
    """Labels that a person would read as one: equal but for case, spaces or Unicode form (NFKC)."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in dataset.labels:
        alike[" ".join(unicodedata.normalize("NFKC", label).casefold().split())].append(label)
    several = [group for group in alike.values() if len(group) > 1]
    if not several:
        return None
    names = "; ".join(" and ".join(map(repr, group)) for group in several[:3])
    message = f"{len(several):,} classes are written in several ways: {names}"
    return Finding("label_names", "warning", message, "kept apart; rename them if they mean the same")


def _tiny(dataset: Dataset, sizes: NDArray[np.int64]) -> Finding | None:
    tiny = [f"'{dataset.labels[c]}' ({sizes[c]})" for c in np.argsort(sizes, kind="stable") if sizes[c] < FEW]
    if not tiny:
        return None
    words = words_of(dataset)
    message = (
        f"{len(tiny):,} classes have fewer than {FEW} {words.many}: {', '.join(tiny[:5])}{' ...' * (len(tiny) > 5)}"
    )
    single = f" One {words.one} can be learnt or tested, not both" if sizes.min() == 1 else ""
    return Finding(
        "tiny_class", "warning" if single else "note", message, f"add {words.many} or merge classes.{single}"
    )


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
    return Finding("missing_in_split", "error" if "train" in lacking else "warning", "; ".join(parts), fix)


def _unlabelled(dataset: Dataset) -> Finding | None:
    rows = np.flatnonzero(dataset.table["target"].is_null().to_numpy(zero_copy_only=False))
    return _finding(
        dataset, "unlabelled", "note", rows, len(rows) > 0, f"{_count(dataset, len(rows))} without label", "not used"
    )


def _languages(facts: Mapping[str, Any]) -> Finding | None:
    """Texts in several languages."""
    shares = {name: share for name, share in facts.get("languages", {}).items() if share >= SHARE}
    if len(shares) < 2:
        return None
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Finding(
        "languages", "note", f"texts in several languages: {said}", "expected? A backbone may know only some"
    )


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


def label_sets(targets: NDArray[Any]) -> NDArray[np.int32]:
    """(N,) numbers, equal where the labels are equal; -1 without label."""
    if targets.ndim == 1:
        return targets
    packed = np.packbits(targets, axis=1)
    return np.unique(packed, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)


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
