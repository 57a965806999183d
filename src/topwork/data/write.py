"""Write a dataset as a table: path, label, split (csv or parquet), which `topwork fit` reads again."""

from __future__ import annotations

import io
import os
from pathlib import Path

from topwork.errors import BadSetting
from topwork.store.atomic import write_file
from topwork.types import Dataset

SEPARATOR = "|"  # between the labels of one item in a csv


def write_table(dataset: Dataset, out: Path) -> None:
    """Absolute paths, label names and splits, in row order; the file appears at once or not at all."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if out.suffix not in (".csv", ".parquet"):
        raise BadSetting(f"--out {out}: expected a name that ends in .csv or .parquet")
    labels = [_names(dataset, target, out.suffix == ".csv") for target in dataset.table["target"].to_pylist()]
    columns = {"path": [os.path.abspath(path) for path in dataset.paths()], "label": labels}
    table = pa.table({**columns, "split": dataset.table["split"].cast(pa.string())})
    file = io.BytesIO()
    (csv.write_csv if out.suffix == ".csv" else parquet.write_table)(table, file)
    write_file(out, file.getvalue())


def _names(dataset: Dataset, target: int | list[int] | None, joined: bool) -> str | list[str] | None:
    if target is None or isinstance(target, int):
        return None if target is None else dataset.labels[target]
    names = [dataset.labels[number] for number in target]
    return SEPARATOR.join(names) if joined else names
