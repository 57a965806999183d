"""Features for use elsewhere: one row per item, written at once or not at all.

.parquet   item string, label string (several: list<string>), split string, features fixed_size_list<float>[D]
.npz       features (N, D) float32, item (N,) str, target (N,) int32 or (N, C) bool, labels (C,) str, split (N,) str
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from topwork.errors import BadSetting
from topwork.store.atomic import explain
from topwork.types import Dataset, Features

SUFFIXES = (".parquet", ".npz")


def check_suffix(path: Path) -> None:
    """Refuse a file that could not be written, before any work."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadSetting(f"'{path}' ends in '{path.suffix}'. Expected one of: {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise BadSetting(f"'{path}' is a folder. Expected a file to write, e.g. {path / 'features.parquet'}")


def write_features(features: Features, dataset: Dataset, path: Path) -> None:
    """Write features with item, label and split of every row."""
    check_suffix(path)
    taken = dataset.take(features.rows)
    with _appearing(path) as file:
        if path.suffix.lower() == ".npz":
            _npz(features, taken, file)
        else:
            import pyarrow.parquet as pq

            pq.write_table(_table(features, taken), file, compression="zstd", row_group_size=8192)


def _table(features: Features, taken: Dataset) -> pa.Table:
    size = features.x.shape[1]
    x = pa.FixedSizeListArray.from_arrays(pa.array(features.x.reshape(-1)), size)
    names = pa.array(taken.labels, pa.string())
    target = taken.table["target"].combine_chunks()
    if taken.numeric:
        label = target
    elif taken.multilabel:
        label = pa.ListArray.from_arrays(target.offsets, names.take(target.values), mask=target.is_null())
    else:
        label = names.take(target)
    columns = {"item": taken.table["item"], "label": label, "split": _split(taken), "features": x}
    return pa.table(columns).replace_schema_metadata({"topwork": features.key, "engine": features.engine})


def _npz(features: Features, taken: Dataset, file: IO[bytes]) -> None:
    np.savez(
        file,
        features=features.x,
        item=np.array(taken.table["item"].to_pylist(), np.str_),
        target=taken.targets(),
        labels=np.array(taken.labels, np.str_),
        split=np.array([split or "" for split in _split(taken).to_pylist()], np.str_),
        key=np.array(features.key),
    )


def _split(taken: Dataset) -> pa.Array | pa.ChunkedArray:
    if "split" not in taken.columns:
        return pa.nulls(len(taken), pa.string())
    return taken.table["split"].cast(pa.string())


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when the block ends well."""
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent, delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file.name)
    except OSError as error:
        raise explain(error, target) from error
