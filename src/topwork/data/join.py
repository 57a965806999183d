"""Put a test set of its own beside the training data: one dataset, labels matched by name, absolute paths of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topwork.errors import BadData
from topwork.store import remote
from topwork.types import WRITTEN, Dataset

if TYPE_CHECKING:
    import pyarrow as pa


def join(train: Dataset, test: Dataset) -> Dataset:
    """All rows of both; those of `test` are in split "test", and what `train` called test stays out of training.

    Raises BadData where `test` has labels that `train` has not: a model could never give them.
    """
    import pyarrow as pa

    if train.modality != test.modality:
        raise BadData(
            f"{train.name} has {train.modality}s and {test.name} has {test.modality}s. Expected the same kind in both"
        )
    if train.numeric != test.numeric:
        one, many = (test, train) if train.numeric else (train, test)
        raise BadData(f"{many.name} has numbers as targets and {one.name} has classes. Expected the same kind in both")
    if train.multilabel != test.multilabel:
        one, many = (test, train) if train.multilabel else (train, test)
        raise BadData(f"{many.name} has lists of labels and {one.name} has single ones. Expected the same kind in both")
    unknown = [] if train.numeric else sorted(set(test.labels) - set(train.labels))
    if unknown:
        raise BadData(
            f"{test.name} has labels that {train.name} has not: {', '.join(map(repr, unknown[:5]))}. "
            f"Expected some of: {', '.join(map(repr, train.labels[:10]))}"
        )
    number = [] if train.numeric else [train.labels.index(label) for label in test.labels]
    tables = [_rows(train, list(range(len(train.labels))), None), _rows(test, number, "test")]
    return train.replace(
        table=pa.concat_tables(tables),
        root="",
        skipped=train.skipped + test.skipped,
        notes=train.notes + tuple(f"test data: {note}" for note in test.notes),
        history=(*train.history, f"joined with test data {test.name}"),
    )


def _rows(dataset: Dataset, number: list[int], split: str | None) -> pa.Table:
    """Item, text, target, split, group of one side; `number` maps its label indices."""
    import numpy as np
    import pyarrow as pa

    renumber = np.asarray([*number, -1], np.int32)  # -1: not labelled
    target = dataset.table["target"].combine_chunks()
    if dataset.multilabel:
        target = pa.ListArray.from_arrays(target.offsets, pa.array(renumber[target.flatten().to_numpy()], pa.int32()))
    elif not dataset.numeric:
        moved = renumber[dataset.targets()]
        target = pa.array(moved, pa.int32(), mask=moved < 0)
    given = dataset.table["split"].cast(pa.string()).fill_null("train")
    named = given if split is None else pa.array([split] * len(dataset), pa.string())
    groups = dataset.table["group"] if "group" in dataset.columns else pa.nulls(len(dataset), pa.string())
    columns = {"target": target, "split": named, "group": groups}
    if dataset.modality in WRITTEN:
        return pa.table({"item": dataset.table["item"], "text": dataset.table["text"], **columns})
    paths = [remote.absolute(path) for path in dataset.paths()]
    return pa.table({"item": pa.array(paths, pa.string()), **columns})
