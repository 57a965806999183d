"""Look at every item once: what is there, what cannot be read, what is there twice, what would flatter the score.

    read -> BLAKE2b-128 of the content -> facts of every item (inspect_image.py, inspect_text.py, inspect_row.py)
         -> counts, sizes, lengths; the same picture or text in several places; findings

Unreadable items leave the dataset, and so do training copies of val and test items (drop_leaks); both are listed in
`skipped` with their reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import FEW, HELD_OUT, about, counts, label_sets, left_out, spread_of, unreadable, words_of
from topwork.errors import BadData
from topwork.store import Store, remote
from topwork.types import WRITTEN, Dataset, Finding, Findings, Progress, Skipped, silent

_SEVERITY = ("error", "warning", "note")


def inspect(
    dataset: Dataset,
    store: Store | None = None,
    threads: int = 2,
    progress: Progress = silent,
    drop_leaks: bool = True,
) -> Findings:
    """The readable items with `content` and `twin` columns, and everything worth saying about them."""
    seen = _look(dataset, store, threads, progress)
    words = words_of(dataset)
    good = np.flatnonzero([reason is None for reason in seen.reasons])
    if not len(good):
        first = f"e.g. {dataset.table['item'][0].as_py()}: {seen.reasons[0]}" if len(dataset) else "it has no items"
        raise BadData(f"{dataset.name}: none of its {len(dataset):,} {words.many} can be read, {first}")
    bad = [Skipped(dataset.table["item"][row].as_py(), why) for row, why in enumerate(seen.reasons) if why is not None]
    whole = dataset
    if bad:
        whole, seen = dataset.take(good).replace(skipped=(*dataset.skipped, *bad)), seen.take(good)
    whole = whole.with_column("content", _binary(seen.contents))
    labels = label_sets(whole.targets())
    twin = seen.twins(near := seen.near(labels), labels)
    whole = whole.with_column("twin", _int32(twin))

    leaks = _leaking_rows(whole, twin) if drop_leaks else {}
    findings = [unreadable(dataset, bad), left_out(whole, leaks)]
    if leaks:
        stay = np.setdiff1d(np.arange(len(whole)), np.fromiter(leaks, int))
        items = whole.table["item"]
        out = [
            Skipped(items[row].as_py(), f"same {words.content} as {items[held].as_py()}") for row, held in leaks.items()
        ]
        whole, seen, near = whole.take(stay).replace(skipped=(*whole.skipped, *out)), seen.take(stay), near[stay]
    whole, lost = _without_empty_labels(whole)
    twin = whole.table["twin"].to_numpy()
    findings += [lost, *about(whole, same := seen.same(), near, twin, seen.blank, facts := seen.facts(), seen.likeness)]
    findings += _suspects(whole, seen)
    found = sorted((f for f in findings if f), key=lambda f: _SEVERITY.index(f.severity))
    said = f"inspect: {len(good):,} readable, {len(bad):,} unreadable, {len(leaks):,} leaking training copies left out"
    facts = {**_facts(whole, len(bad), same, twin), **facts}
    return Findings(whole.replace(history=(*whole.history, said)), tuple(found), facts)


def check_trainable(dataset: Dataset) -> None:
    """Raise BadData, in one line, when nothing can be learnt from the labels."""
    words = words_of(dataset)
    expected = f"Expected at least two classes with two {words.many} each"
    if not dataset.labels:
        raise BadData(f"{dataset.name}: no labels. {expected}: a subfolder per class, or a table with a label column")
    targets = dataset.targets()
    training = ~np.isin(dataset.table["split"].cast("string").to_numpy(zero_copy_only=False), HELD_OUT)
    if dataset.numeric:
        _check_numbers(dataset, targets[training & np.isfinite(targets)])
        return
    sizes = counts(targets[training], len(dataset.labels))
    with_items = [label for label, count in zip(dataset.labels, sizes, strict=True) if count]
    if not with_items:
        raise BadData(f"{dataset.name}: no labelled training {words.many}. {expected}")
    if len(with_items) == 1 and not dataset.multilabel:
        raise BadData(f"{dataset.name}: one class only ('{with_items[0]}', {sizes.sum():,} {words.many}). {expected}")
    if not dataset.multilabel and sizes.max() == 1:
        raise BadData(
            f"{dataset.name}: each of the {len(with_items):,} classes has a single training {words.one}. {expected}"
        )


def _check_numbers(dataset: Dataset, numbers: NDArray[Any]) -> None:
    many = words_of(dataset).many
    if len(numbers) < FEW:
        raise BadData(
            f"{dataset.name}: {len(numbers):,} training {many} with a number in '{dataset.labels[0]}'. "
            f"Expected at least {FEW}"
        )
    if numbers.min() == numbers.max():
        raise BadData(
            f"{dataset.name}: '{dataset.labels[0]}' is {numbers[0]:g} for all {len(numbers):,} training {many}. "
            "Expected different numbers"
        )


def _look(dataset: Dataset, store: Store | None, threads: int, progress: Progress) -> Any:
    """What the items tell, as arrays: contents, reasons, blank, and take, same, twins, facts."""
    if dataset.modality == "text":
        from topwork.data import inspect_text

        return inspect_text.look(dataset, progress)
    if dataset.modality == "row":
        from topwork.data import inspect_row

        return inspect_row.look(dataset, progress)
    from topwork.data import inspect_image

    with remote.ahead(dataset.paths()):
        return inspect_image.look(dataset, store, threads, progress)


def _suspects(dataset: Dataset, seen: Any) -> list[Finding | None]:
    """Items that look wrong by themselves."""
    if dataset.modality == "text":
        from topwork.data.suspects_text import suspects

        return suspects(dataset, seen)
    if dataset.modality == "row":
        from topwork.data.suspects_row import suspects as of_rows

        return of_rows(dataset, seen)
    from topwork.data.suspects_image import suspects as of_images

    return of_images(dataset, seen)


def _facts(dataset: Dataset, unreadable: int, same: NDArray[np.int32], twin: NDArray[np.int32]) -> dict[str, Any]:
    """Counts as plain JSON: of all, of classes, of splits, of copies."""
    splits = dataset.table["split"].cast("string").fill_null("unassigned").to_numpy(zero_copy_only=False)
    targets = dataset.targets()

    def tally(labels: NDArray[Any]) -> dict[str, Any]:
        if dataset.numeric:
            return spread_of(labels)
        return dict(zip(dataset.labels, map(int, counts(labels, len(dataset.labels))), strict=True))

    alone, different = len(np.unique(twin)), len(np.unique(same))
    copies: dict[str, Any] = {"pictures": alone}
    if dataset.modality in WRITTEN:
        copies = {
            f"{dataset.modality}s": alone,
            "duplicates": {"exact": len(same) - different, "near": different - alone},
        }
    return {
        "items": len(dataset),
        "unreadable": unreadable,
        **copies,
        "classes": tally(targets),
        "unlabelled": int(dataset.table["target"].null_count),
        "splits": {str(name): tally(targets[splits == name]) for name in sorted(set(splits))},
    }


def _leaking_rows(dataset: Dataset, twin: NDArray[np.int32]) -> dict[int, int]:
    """Training row -> a val or test row with the same picture."""
    held: dict[int, int] = {}
    for split in reversed(HELD_OUT):
        rows = dataset.rows_of(split)
        held |= zip(twin[rows[::-1]].tolist(), rows[::-1].tolist(), strict=True)
    train = dataset.rows_of("train")
    return {int(row): held[number] for row, number in zip(train, twin[train].tolist(), strict=True) if number in held}


def _without_empty_labels(dataset: Dataset) -> tuple[Dataset, Finding | None]:
    """Classes that lost their last image are no classes."""
    import pyarrow as pa

    if dataset.numeric:
        return dataset, None
    sizes = counts(dataset.targets(), len(dataset.labels))
    if not dataset.labels or sizes.all():
        return dataset, None
    kept = np.flatnonzero(sizes)
    number = np.full(len(sizes), -1, np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    old = dataset.table["target"].combine_chunks()
    if dataset.multilabel:
        new: Any = pa.ListArray.from_arrays(old.offsets, pa.array(number[old.values.to_numpy()]))
    else:
        codes = number[old.fill_null(0).to_numpy()]
        new = pa.array(codes, mask=old.is_null().to_numpy(zero_copy_only=False))
    gone = [dataset.labels[c] for c in np.flatnonzero(sizes == 0)]
    message = f"no usable {words_of(dataset).one} is left of {', '.join(map(repr, gone[:5]))}"
    finding = Finding("empty_class", "warning", message, "not a class of the model")
    return dataset.replace(labels=tuple(dataset.labels[c] for c in kept)).with_column("target", new), finding


def _binary(contents: NDArray[np.uint8]) -> Any:
    import pyarrow as pa

    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(contents), [None, pa.py_buffer(np.ascontiguousarray(contents))]
    )


def _int32(values: NDArray[np.int32]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.int32())
