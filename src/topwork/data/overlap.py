"""Items of one dataset that are in another one, too: equal bytes, or another copy of the same picture or text.

What an inspection saw is in the store; a file whose facts have left it is looked at again. Twins as in `duplicates`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import mirror_twins, twins
from topwork.data.inspect_image import remembered
from topwork.store import Store
from topwork.types import WRITTEN, Dataset, silent


def overlap(dataset: Dataset, other: Dataset, store: Store | None = None) -> NDArray[np.bool_]:
    """(N,) rows of `other` whose picture or text is in `dataset`; both are inspected."""
    if dataset.modality in WRITTEN:
        both = _twins_of_texts(dataset, other)
        return np.isin(both[len(dataset) :], both[: len(dataset)])
    contents = np.frombuffer(
        b"".join(content for one in (dataset, other) for content in one.table["content"].to_pylist()), np.uint8
    ).reshape(-1, 16)
    facts = [*remembered(dataset, store), *remembered(other, store)]
    labels, blank = _labels(dataset, other), np.array([fact.blank for fact in facts], bool)
    hashes = np.array([(fact.fingerprint, fact.mirrored) for fact in facts], np.uint64).reshape(-1, 2)
    sketches = np.stack([np.frombuffer(fact.sketch, np.uint8) for fact in facts])
    near = twins(contents, hashes[:, 0], sketches, blank, labels)
    twin = mirror_twins(near, hashes[:, 0], hashes[:, 1], sketches, blank, labels)
    return np.isin(twin[len(dataset) :], twin[: len(dataset)])


def _twins_of_texts(*datasets: Dataset) -> NDArray[np.int32]:
    """Twins over all datasets, one after the other."""
    import pyarrow as pa

    from topwork.data import inspect_row, inspect_text

    texts = pa.concat_tables([one.table.select(["text"]) for one in datasets])
    look = inspect_row.look if datasets[0].modality == "row" else inspect_text.look
    return look(datasets[0].replace(table=texts), silent).near(_labels(*datasets))


def _labels(*datasets: Dataset) -> NDArray[Any]:
    """(N,) numbers over all datasets, equal where the names of the labels are."""
    numbers: dict[frozenset[str], int] = {}
    found = []
    for dataset in datasets:
        names = np.asarray(dataset.labels, object)
        for target in dataset.targets():
            own = names[target] if dataset.multilabel else names[[target]] if target >= 0 else ()
            found.append(numbers.setdefault(frozenset(own), len(numbers)))
    return np.asarray(found, np.int32)
