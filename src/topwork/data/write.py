"""Write a dataset as a table: path or text, label, split (csv or parquet), which `topwork fit` reads again."""

from __future__ import annotations

import io
import os
from pathlib import Path

from topwork.errors import BadSetting
from topwork.modalities.text import PAIR
from topwork.store.atomic import write_file
from topwork.types import Dataset

SEPARATOR = "|"  # between the labels of one item in a csv


def write_table(dataset: Dataset, out: Path) -> None:
    """Absolute paths or texts, label names and splits, in row order; the file appears at once or not at all."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if out.suffix not in (".csv", ".parquet"):
        raise BadSetting(f"--out {out}: expected a name that ends in .csv or .parquet")
    labels = [_names(dataset, target, out.suffix == ".csv") for target in dataset.table["target"].to_pylist()]
    table = pa.table({**_inputs(dataset), "label": labels, "split": dataset.table["split"].cast(pa.string())})
    file = io.BytesIO()
    (csv.write_csv if out.suffix == ".csv" else parquet.write_table)(table, file)
    write_file(out, file.getvalue())


def _inputs(dataset: Dataset) -> dict[str, list[str]]:
    if dataset.modality != "text":
        return {"path": [os.path.abspath(path) for path in dataset.paths()]}
    texts = dataset.inputs()
    if not any(PAIR in text for text in texts):
        return {"text": texts}
    sides = [text.partition(PAIR) for text in texts]
    return {"text_a": [side[0] for side in sides], "text_b": [side[2] for side in sides]}


def _names(dataset: Dataset, target: int | list[int] | None, joined: bool) -> str | list[str] | None:
    if target is None or isinstance(target, int):
        return None if target is None else dataset.labels[target]
    names = [dataset.labels[number] for number in target]
    return SEPARATOR.join(names) if joined else names
