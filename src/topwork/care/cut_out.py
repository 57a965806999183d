"""Crops: images that were cut out of others become twins of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data import crops, inspect_image
from topwork.modalities.image import Facts
from topwork.store import Store
from topwork.types import Dataset, Finding, Watch


def join_crops(
    dataset: Dataset, rows: NDArray[np.int64], x: Any, facts: list[Facts] | None, seed: int, watch: Watch
) -> tuple[Dataset, list[Finding]]:
    """The dataset with crops as twins of what they were cut from."""
    if facts is None or len(rows) < 2:
        return dataset, []
    sketches = np.stack([np.frombuffer(facts[row].sketch, np.uint8) for row in rows])
    blank = np.array([facts[row].blank for row in rows], bool)
    pairs = crops.find(dataset.take(rows), sketches, blank, x, seed, watch.progress)
    return crops.findings(dataset, dataclasses.replace(pairs, pairs=rows[pairs.pairs]))


def remembered(dataset: Dataset, store: Store | None) -> list[Facts] | None:
    """What the inspection has kept of each image; None of texts, and where something has left the store."""
    if dataset.modality != "image" or store is None:
        return None
    known = store.get_many(inspect_image.NAMESPACE, dataset.table["content"].to_pylist())
    return None if any(value is None for value in known) else [Facts.from_bytes(value) for value in known if value]
