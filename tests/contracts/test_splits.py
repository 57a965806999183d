"""Every file in data/split/: a function of dataset and seed that keeps what belongs together on one side."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from topwork import plugins
from topwork.data.split import crossing, hashed
from topwork.types import Dataset

SPECS = {"few_shot": "few_shot(k=58)"}  # where the default does not leave a fifth for the test
UNDRAWN = {"by_time"}  # nothing in them is drawn, so the seed decides nothing
UNEVEN = {"by_time", "by_domain"}  # classes have the share that they happen to have there
NAMES = plugins.names("data.split")


def example(n=240, rows=None, order=None):
    """n items in groups of six and twins of two; `rows`: only these; `order`: of the rows."""
    rng = np.random.default_rng(0)
    pool = 4 * n
    times = hashed(np.arange(pool, dtype=np.uint64) // np.uint64(6), 9) % np.uint64(10**9)
    columns = {
        "item": [f"{i}.png" for i in range(pool)],
        "target": pa.array(np.arange(pool) // 6 % 3 if n > 240 else rng.integers(0, 3, pool), pa.int32()),
        "split": pa.array([None] * pool, pa.string()).dictionary_encode(),
        "group": [f"g{i // 6}" for i in range(pool)],
        "twin": pa.array(np.arange(pool) // 2, pa.int32()),
        "time": pa.array(times.astype(np.int64), pa.timestamp("s")),
        "domain": [f"d{i // 6 % 5}" for i in range(pool)],
    }
    data = Dataset(pa.table(columns), "", ("a", "b", "c"))
    return data.take(np.arange(n) if rows is None else rows)


def made(name):
    return plugins.make("data.split", SPECS.get(name, name))


def sides(data):
    return dict(zip(data.table["item"].to_pylist(), data.table["split"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    kind = plugins.find("data.split", name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    data = example()
    one, again, *others = (made(name).assign(data, seed) for seed in (0, 0, 1, 2, 3, 4))
    split = np.array(one.table["split"].to_pylist())
    assert set(split) == {"train", "test"}
    assert 0.1 < np.mean(split == "test") < 0.3
    assert one.table == again.table
    assert all(one.table == other.table for other in others) == (name in UNDRAWN)
    assert one.table.drop_columns("split") == data.table.drop_columns("split")
    assert data.table["split"].null_count == len(data)
    assert len(one.history) == 1
    assert crossing(one) == {"twin": 0, "group": 0}
    for column in ("twin", "group"):
        values = np.array(data.table[column].to_pylist())
        assert not set(values[split == "test"]) & set(values[split == "train"])
    targets = data.targets()
    for c in range(3) if name not in UNEVEN else ():
        assert 0.1 < np.mean(split[targets == c] == "test") < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_decides_nothing(name):
    order = np.random.default_rng(1).permutation(240)
    assert sides(made(name).assign(example(), 3)) == sides(made(name).assign(example(rows=order), 3))


@pytest.mark.parametrize("name", NAMES)
def test_adding_items_moves_few(name):
    """A tenth more items, in new groups and in old ones; the bounds are those that data/split/__init__.py states."""
    rng = np.random.default_rng(5)
    start = np.sort(rng.permutation(1440)[:1200])
    fresh = np.setdiff1d(np.arange(1440), start)[:60]
    more = np.concatenate([start, fresh, np.arange(1440, 1500)])
    spec = {"few_shot": "few_shot(k=20)", "by_time": "by_time(test=0.2)", "by_domain": "by_domain(test='d3')"}.get(
        name, name
    )
    moved = []
    for seed in range(4):
        rule = plugins.make("data.split", spec)
        before, same, after = (sides(rule.assign(example(1440, rows=rows), seed)) for rows in (start, start, more))
        assert before == same  # adding none moves none
        moved.append(sum(before[item] != after[item] for item in before))
    a, U, C = 0.1, 240, 3
    waver = 1200 * np.sqrt(2 * a * 0.2 * 0.8 * C / (np.pi * U))
    most = {"by_domain": 0, "by_time": 120, "few_shot": 120}.get(name, 3 * waver)
    assert np.mean(moved) <= most, moved
    assert most < 0.15 * 1200  # a split drawn anew would move 32 %
