import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topwork.errors import BadSetting, StoreError
from topwork.features.write import check_suffix, write_features
from topwork.types import Dataset, Features


def dataset(multilabel=False):
    target = [[0, 1], None, [], [1]] if multilabel else [0, None, 1, 1]
    table = pa.table(
        {
            "item": ["a/ä.png", "b.png", "c.png", "d.png"],
            "target": pa.array(target, pa.list_(pa.int32()) if multilabel else pa.int32()),
            "split": pa.array(["train", None, "test", "test"]).dictionary_encode(),
        }
    )
    return Dataset(table, "/data", ("cat", "dog"), multilabel)


FEATURES = Features(
    x=np.arange(9, dtype=np.float32).reshape(3, 3),
    rows=np.array([0, 1, 3]),
    key="card/engine",
    engine="onnxruntime",
    seconds=0.1,
    computed=3,
    cached=0,
)


def test_parquet(tmp_path):
    write_features(FEATURES, dataset(), tmp_path / "new" / "f.parquet")
    table = pq.read_table(tmp_path / "new" / "f.parquet")
    assert table.schema.field("features").type == pa.list_(pa.float32(), 3)
    assert table.to_pydict() == {
        "item": ["a/ä.png", "b.png", "d.png"],
        "label": ["cat", None, "dog"],
        "split": ["train", None, "test"],
        "features": FEATURES.x.tolist(),
    }
    assert table.schema.metadata[b"topwork"] == b"card/engine"


def test_parquet_with_several_labels(tmp_path):
    write_features(FEATURES, dataset(multilabel=True), tmp_path / "f.parquet")
    assert pq.read_table(tmp_path / "f.parquet")["label"].to_pylist() == [["cat", "dog"], None, ["dog"]]


@pytest.mark.parametrize("multilabel", [False, True])
def test_npz_holds_no_objects(tmp_path, multilabel):
    write_features(FEATURES, dataset(multilabel), tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["features"], FEATURES.x)
        assert arrays["item"].tolist() == ["a/ä.png", "b.png", "d.png"]
        assert arrays["labels"].tolist() == ["cat", "dog"]
        assert arrays["split"].tolist() == ["train", "", "test"]
        expected = [[True, True], [False, False], [False, True]] if multilabel else [0, -1, 1]
        assert arrays["target"].tolist() == expected


def test_without_splits_and_without_rows(tmp_path):
    plain = dataset()
    plain = plain.replace(table=plain.table.drop_columns("split"))
    none = dataclasses.replace(FEATURES, x=FEATURES.x[:0], rows=FEATURES.rows[:0])
    write_features(none, plain, tmp_path / "f.parquet")
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 0
    write_features(FEATURES, plain, tmp_path / "f.parquet")
    assert pq.read_table(tmp_path / "f.parquet")["split"].to_pylist() == [None] * 3


def test_other_suffixes_and_folders_are_refused_first(tmp_path):
    with pytest.raises(BadSetting, match=r"'f.csv' ends in '.csv'. Expected one of: .parquet, .npz"):
        check_suffix(type(tmp_path)("f.csv"))
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(BadSetting, match="is a folder"):
        check_suffix(tmp_path / "f.npz")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    import errno
    import os

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_features(FEATURES, dataset(), tmp_path / "f.parquet")
    before = (tmp_path / "f.parquet").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"The disk is full: .*f.parquet was not written"):
        write_features(dataclasses.replace(FEATURES, key="other"), dataset(), tmp_path / "f.parquet")
    assert (tmp_path / "f.parquet").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["f.parquet"]
