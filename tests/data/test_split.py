import numpy as np
import pyarrow as pa
import pytest
from sklearn.model_selection import StratifiedKFold

from topwork.data.split import divide, keep_together
from topwork.data.split.grouped import Grouped
from topwork.data.split.kfold import Kfold, folds
from topwork.data.split.stratified import Stratified
from topwork.errors import BadSetting
from topwork.types import Dataset


def dataset(targets, split=None, group=None, twin=None, multilabel=False, names=None):
    n = len(targets)
    columns = {"item": names or [f"{i}.jpg" for i in range(n)]}
    columns["target"] = pa.array(targets, pa.list_(pa.int32()) if multilabel else pa.int32())
    columns["split"] = pa.array(split or [None] * n, pa.string()).dictionary_encode()
    if group is not None:
        columns["group"] = pa.array(group, pa.string())
    if twin is not None:
        columns["twin"] = pa.array(twin, pa.int32())
    labels = tuple(map(str, range(1 + max((c for t in targets if t is not None for c in np.atleast_1d(t)), default=0))))
    return Dataset(pa.table(columns), "", labels, multilabel)


def sides(data):
    return np.array(data.table["split"].to_pylist())


def test_every_class_has_its_share():
    targets = np.repeat(np.arange(4), [500, 100, 50, 10])
    split = sides(Stratified(test=0.2, val=0.1).assign(dataset(targets.tolist()), seed=3))
    for c, n in enumerate((500, 100, 50, 10)):
        assert [(split[targets == c] == s).sum() for s in ("train", "val", "test")] == [n * 0.7, n * 0.1, n * 0.2]


def test_as_even_as_scikit_learn():
    rng = np.random.default_rng(0)
    targets = rng.choice(7, 731, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.04, 0.01])
    ours = folds(targets, None, 5, 0)
    theirs = np.empty(len(targets), int)
    for k, (_, rows) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(targets, targets)):
        theirs[rows] = k

    def spread(fold):
        table = np.array([[np.sum((fold == k) & (targets == c)) for k in range(5)] for c in range(7)])
        return np.ptp(table, axis=1).tolist(), np.ptp(table.sum(0))

    assert spread(ours)[0] <= spread(theirs)[0]
    assert max(spread(ours)[0]) <= 1
    assert spread(ours)[1] <= 1


def test_seed_decides_and_order_does_not():
    targets = np.arange(300) % 3
    a, b, c = (folds(targets, None, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert 0.7 < np.mean(a != c) < 0.9
    names = [f"{i}.jpg" for i in range(300)]
    order = np.random.default_rng(0).permutation(300)
    plain = Kfold().numbers(dataset(targets.tolist(), names=names), 0)
    mixed = Kfold().numbers(dataset(targets[order].tolist(), names=[names[i] for i in order]), 0)
    np.testing.assert_array_equal(plain[order], mixed)


def test_adding_items_moves_few():
    targets = (np.arange(1000) % 4).tolist()
    before = sides(Stratified().assign(dataset(targets), 0))
    after = sides(Stratified().assign(dataset([*targets, *[0, 1, 2, 3] * 10]), 0))[:1000]
    assert np.mean(before != after) < 0.03


def test_small_classes_are_spread_as_far_as_possible():
    targets = np.concatenate([np.arange(50), np.arange(50), np.arange(50, 100)])  # 50 classes of 2, 50 of 1
    fold = folds(targets, None, 5, 0)
    for c in range(50):
        assert len(set(fold[targets == c])) == 2
    assert np.ptp(np.bincount(fold, minlength=5)) <= 1


def test_twins_and_groups_stay_together():
    rng = np.random.default_rng(1)
    n = 600
    targets = rng.integers(0, 5, n)
    group = [None if i % 3 else f"g{rng.integers(40)}" for i in range(n)]
    twin = np.where(rng.random(n) < 0.3, rng.integers(0, 60, n), np.arange(100, 100 + n))
    data = dataset(targets.tolist(), group=group, twin=twin.tolist())
    fold, split = Kfold(4).numbers(data, 0), sides(Stratified(0.3).assign(data, 0))
    for column in (np.array(group, object), twin):
        for value in {v for v in column if v is not None}:
            assert len(set(fold[column == value])) == 1
            assert len(set(split[column == value])) == 1
    assert np.ptp(np.bincount(fold)) < 0.1 * n


def test_groups_stay_balanced():
    rng = np.random.default_rng(2)
    group = np.sort(rng.integers(0, 100, 2000))
    targets = (rng.random(2000) < 0.1 + 0.4 * (group % 2)).astype(int)
    data = dataset(targets.tolist(), group=[f"g{g}" for g in group])
    split = sides(Grouped(test=0.2).assign(data, 5))
    assert len(set(group[split == "test"]) & set(group[split == "train"])) == 0
    assert abs(np.mean(split == "test") - 0.2) < 0.02
    assert abs(targets[split == "test"].mean() - targets.mean()) < 0.03


def test_what_belongs_together_is_transitive():
    data = dataset([0] * 6, group=["a", "a", None, "b", None, None], twin=[1, 2, 2, 3, 4, 4])
    assert keep_together(data).tolist() == [0, 0, 0, 1, 2, 2]
    assert keep_together(data, None).tolist() == [0, 1, 1, 2, 3, 3]


def test_several_labels_per_item():
    rng = np.random.default_rng(3)
    targets = rng.random((800, 6)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.01])
    fold = folds(targets, None, 5, 0)
    counts = np.array([targets[fold == k].sum(0) for k in range(5)])
    assert (np.ptp(counts, axis=0) <= 3).all()
    assert np.ptp(np.bincount(fold)) <= 3
    data = dataset([np.flatnonzero(t).tolist() for t in targets], multilabel=True)
    split = sides(Stratified().assign(data, 0))
    share = targets[split == "test"].sum(0) / targets.sum(0)
    assert np.abs(share - 0.2).max() < 0.08


def test_what_the_source_decided_stays():
    split = ["train"] * 40 + ["test"] * 10 + [None] * 10
    targets = [i % 2 for i in range(58)] + [None, None]
    twin = [*range(59), 0]
    twin[1] = 45  # a training copy of a test picture
    after = sides(Stratified(test=0.0, val=0.25).assign(dataset(targets, split=split, twin=twin), 0))
    assert (after[40:50] == "test").all()
    assert after[1] == "test"
    assert np.sum(after == "val") == 12  # a quarter of the 47 others with a label
    assert after[58] is None


def test_a_class_of_one_is_learnt_from():
    targets = [0] * 10 + [1]
    for seed in range(5):
        assert sides(Stratified(0.2).assign(dataset(targets), seed))[10] == "train"


def test_groups_go_where_chi_square_grows_least():
    rng = np.random.default_rng(7)
    sizes = np.arange(2, 40)  # all different: the order is the docstring's, whatever the hash
    together = np.repeat(np.arange(len(sizes)), sizes)
    targets = rng.choice(3, len(together), p=[0.6, 0.3, 0.1])
    shares = np.array([0.6, 0.15, 0.25])
    table = np.array([np.bincount(targets[together == u], minlength=3) for u in range(len(sizes))])
    table = np.hstack([table, table.sum(1, keepdims=True)])  # (U, C + 1)
    wanted = np.outer(shares, table.sum(0))
    held, expected = np.zeros((3, 4)), np.empty(len(sizes), int)
    rarest = [min(table[:, c].sum() for c in range(3) if table[u, c]) for u in range(len(sizes))]
    for u in sorted(range(len(sizes)), key=lambda u: (rarest[u], -sizes[u])):
        costs = []
        for p in range(3):
            after = held.copy()
            after[p] += table[u]
            costs.append(((after - wanted) ** 2 / wanted).sum())
        expected[u] = np.argmin(costs)
        held[expected[u]] += table[u]
    np.testing.assert_array_equal(divide(targets, together, shares, 0), expected[together])


def test_shares_are_those_asked_for():
    for shares in ([0.5, 0.5], [0.7, 0.2, 0.1], [0.9, 0.1]):
        part = divide(np.zeros(1000, int), np.arange(1000), np.array(shares), 0)
        np.testing.assert_allclose(np.bincount(part) / 1000, shares)


def test_settings_that_cannot_work():
    data = dataset([0, 1, 0, 1], group=["a", None, "b", "b"])
    with pytest.raises(BadSetting, match="sum is below 1"):
        Stratified(test=0.8, val=0.2).assign(data, 0)
    with pytest.raises(BadSetting, match="at least 2"):
        Kfold(1).numbers(data, 0)
    with pytest.raises(BadSetting, match="no column 'patient'"):
        Grouped("patient").assign(data, 0)
    with pytest.raises(BadSetting, match="1 items have no 'group'"):
        Grouped().assign(data, 0)
    with pytest.raises(BadSetting, match="one group only"):
        Grouped().assign(dataset([0, 1], group=["a", "a"]), 0)
