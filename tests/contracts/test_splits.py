"""Every file in data/split/: a function of dataset and seed that keeps what belongs together on one side."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from topwork import plugins
from topwork.types import Dataset


def example(n=240):
    rng = np.random.default_rng(0)
    columns = {
        "item": [f"{i}.png" for i in range(n)],
        "target": pa.array(rng.integers(0, 3, n), pa.int32()),
        "split": pa.array([None] * n, pa.string()).dictionary_encode(),
        "group": [f"g{i // 6}" for i in range(n)],
        "twin": pa.array(np.arange(n) // 2, pa.int32()),
    }
    return Dataset(pa.table(columns), "", ("a", "b", "c"))


@pytest.mark.parametrize("name", plugins.names("data.split"))
def test_contract(name):
    kind = plugins.find("data.split", name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    data = example()
    one, again, other = (kind().assign(data, seed) for seed in (0, 0, 1))
    split = np.array(one.table["split"].to_pylist())
    assert set(split) == {"train", "test"}
    assert 0.1 < np.mean(split == "test") < 0.3
    assert one.table == again.table
    assert one.table != other.table
    assert one.table.drop_columns("split") == data.table.drop_columns("split")
    assert data.table["split"].null_count == len(data)
    assert len(one.history) == 1
    for column in ("twin", "group"):
        values = np.array(data.table[column].to_pylist())
        assert not set(values[split == "test"]) & set(values[split == "train"])
    targets = data.targets()
    for c in range(3):
        assert 0.1 < np.mean(split[targets == c] == "test") < 0.3
