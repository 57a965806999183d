"""Write a dataset as a table: path, text or features, label, split (csv, parquet), which `topwork fit` reads again."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from topwork.errors import BadSetting
from topwork.modalities.rows import parsed
from topwork.modalities.text import PAIR
from topwork.store import remote
from topwork.store.atomic import write_file
from topwork.types import Dataset

SEPARATOR = "|"  # between the labels of one item in a csv
MORE = ("group", "domain", "time")  # columns that are written where they are there


def write_table(dataset: Dataset, out: Path) -> None:
    """Absolute paths or texts, label names and splits, in row order; the file appears at once or not at all."""
    if out.suffix not in (".csv", ".parquet"):
        raise BadSetting(f"--out {out}: expected a name that ends in .csv or .parquet")
    write_file(out, table_bytes(columns_of(dataset, joined=out.suffix == ".csv"), out.suffix))


def columns_of(dataset: Dataset, joined: bool) -> dict[str, Any]:
    """Path or text, label, split, and what else the data say of every item; joined: several labels in one cell."""
    import pyarrow as pa

    label = dataset.labels[0] if dataset.numeric else "label"
    labels = [_names(dataset, target, joined) for target in dataset.table["target"].to_pylist()]
    more = {name: dataset.table[name] for name in MORE if name in dataset.columns}
    return {**_inputs(dataset), label: labels, "split": dataset.table["split"].cast(pa.string()), **more}


def table_bytes(columns: dict[str, Any], suffix: str) -> bytes:
    """As a .csv or .parquet file."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    file = io.BytesIO()
    (csv.write_csv if suffix == ".csv" else parquet.write_table)(pa.table(columns), file)
    return file.getvalue()


def _inputs(dataset: Dataset) -> dict[str, list[Any]]:
    if dataset.modality == "image":
        return {"path": [remote.absolute(path) for path in dataset.paths()]}
    texts = dataset.inputs()
    if dataset.modality == "row":
        return _features(texts, {"label", "split", "was", *MORE, *(dataset.labels if dataset.numeric else ())})
    if not any(PAIR in text for text in texts):
        return {"text": texts}
    sides = [text.partition(PAIR) for text in texts]
    return {"text_a": [side[0] for side in sides], "text_b": [side[2] for side in sides]}


def _features(rows: Sequence[str], taken: Collection[str]) -> dict[str, list[Any]]:
    """Column by column; one that is called like what is written beside it gets a _."""
    cells = [parsed(row) for row in rows]
    names = list(dict.fromkeys(name for row in cells for name in row))
    return {f"{name}_" if name in taken else name: [row.get(name) for row in cells] for name in names}


def _names(dataset: Dataset, target: Any, joined: bool) -> str | float | list[str] | None:
    if dataset.numeric:
        return target
    if target is None or isinstance(target, int):
        return None if target is None else dataset.labels[target]
    names = [dataset.labels[number] for number in target]
    return SEPARATOR.join(names) if joined else names
