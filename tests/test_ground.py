"""Folds belong to items, not to rows; domains that are left out in turn are the folds."""

import numpy as np
import pyarrow as pa
import pytest

from topwork.errors import BadSetting
from topwork.ground import divide
from topwork.types import Dataset


def data(order=None, n=120):
    columns = {
        "item": [f"{i}.jpg" for i in range(n)],
        "target": pa.array(np.arange(n) % 3, pa.int32()),
        "split": pa.array([None] * n, pa.string()).dictionary_encode(),
        "domain": [f"d{i // 3 % 4}" for i in range(n)],
        "time": pa.array(np.arange(n) * 7.0 % n),
    }
    whole = Dataset(pa.table(columns), "", ("a", "b", "c"), name="drawn")
    return whole if order is None else whole.take(order)


def folds(ground):
    return dict(zip(ground.dataset.table["item"].to_pylist(), ground.folds.tolist(), strict=True))


@pytest.mark.parametrize("rule", ["auto", "kfold(folds=4)", "by_domain", "by_time(test=0.25)", "few_shot(k=20)"])
def test_the_order_of_rows_decides_nothing(rule):
    order = np.random.default_rng(0).permutation(120)
    one, other = divide(data(), rule, 3), divide(data(order), rule, 3)
    held = [set(g.dataset.table["item"].take(g.held).to_pylist()) for g in (one, other)]
    assert held[0] == held[1]
    pairs = {(folds(one)[item], folds(other)[item]) for item in folds(one)}
    assert len(pairs) == len(set(one.folds.tolist()))


def test_each_domain_is_left_out_in_turn():
    ground = divide(data(), "by_domain")
    assert (ground.kind, ground.drawn, len(ground.held)) == ("cross-validation", False, 0)
    assert ground.text == "4 parts, each left out in turn (by_domain)"
    for fold in range(4):
        assert set(ground.dataset.table["domain"].take(np.flatnonzero(ground.folds == fold)).to_pylist()) == {
            f"d{fold}"
        }
    named = divide(data(), "by_domain(test='d1')")
    assert (named.kind, named.drawn, len(named.held)) == ("test", True, 30)
    assert divide(data(), "kfold(folds=4)").drawn


def test_what_only_measures_is_later_than_all_that_is_learnt_from():
    ground = divide(data(), "by_time(test=0.25)")
    time = np.array(ground.dataset.table["time"].to_pylist())
    assert time[ground.train].max() < time[ground.held].min()
    assert len(ground.held) == 30
    with pytest.raises(BadSetting, match="has no column 'created'"):
        divide(data(), "by_time(column='created')")
