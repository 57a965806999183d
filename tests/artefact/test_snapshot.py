import numpy as np
import pyarrow as pa
import pytest

from topwork.artefact.bundle import MARKER, SNAPSHOT
from topwork.artefact.snapshot import Snapshot
from topwork.errors import BadSetting
from topwork.types import Dataset


def dataset(contents, targets, labels, **more):
    target = pa.array(targets, pa.list_(pa.int32()) if more.get("multilabel") else None)
    content = pa.array([bytes([c]) * 16 for c in contents], pa.binary(16))
    return Dataset(pa.table({"content": content, "target": target}), "", labels, **more)


def test_what_was_there_is_told_by_content_and_names_of_labels(tmp_path):
    old = dataset([5, 1, 9, 1, 7], [0, 1, 1, 1, 0], ("cat", "dog"))
    kept = Snapshot.of(old, np.array([0, 1]))
    (tmp_path / MARKER).write_text('{"format": 1}')
    (tmp_path / SNAPSHOT).write_bytes(kept.pack())
    kept = Snapshot.read(tmp_path)
    assert len(kept) == 5
    new = dataset([9, 2, 7, 1, 5], [2, 0, 2, 2, 1], ("ant", "cat", "dog"))  # 7 was a cat
    known = kept.known(new)
    assert known.content.tolist() == [True, False, True, True, True]
    assert known.label.tolist() == [True, False, False, True, True]
    assert known.held.tolist() == [False, False, False, False, True]  # a copy of 1 was learnt from
    assert known.gone == 0
    assert kept.known(new.take([1, 0])).gone == 3
    assert kept.known(old.take([4, 2, 0, 1, 3])).label.all()
    assert Snapshot.of(old.take([4, 2, 0, 1, 3]), np.array([2, 3])).pack() == kept.pack()


def test_more_items():
    kept = Snapshot.of(dataset([5, 1], [0, 1], ("cat", "dog")), np.array([0]))
    grown = kept.more(dataset([3], [0], ("ant",)))
    assert grown.known(dataset([3, 5, 1], [0, 1, 2], ("ant", "cat", "dog"))).label.all()
    assert grown.held.sum() == 1


def test_several_labels_and_numbers():
    several = dataset([1, 2], [[0, 1], []], ("a", "b"), multilabel=True)
    kept = Snapshot.of(several, np.zeros(0, int))
    assert kept.known(dataset([1, 2], [[2, 1], [1]], ("0", "a", "b"), multilabel=True)).label.tolist() == [True, False]
    numbers = Snapshot.of(dataset([1, 2], [0.5, -3.0], ("weight",), numeric=True), np.zeros(0, int))
    assert numbers.known(dataset([2, 1], [-3.0, 0.25], ("weight",), numeric=True)).label.tolist() == [True, False]


def test_there_is_none(tmp_path):
    (tmp_path / MARKER).write_text('{"format": 1}')
    with pytest.raises(BadSetting, match=r"holds no snapshot.safetensors: an older version wrote it"):
        Snapshot.read(tmp_path)
