"""Rows of feature columns against scikit-learn's imputer, scaler and one-hot encoder."""

import json
import math

import numpy as np
import pytest

from topwork.errors import BadData, BadWeights
from topwork.modalities.columns import CLIP, LEVELS, ColumnsReader
from topwork.modalities.readers import open_reader
from topwork.modalities.rows import is_missing, number_of, parsed, shown, written
from topwork.modalities.text import READER


def dense(reader, rows):
    """(N, D) of what a graph would add up."""
    tokens = reader.read(rows)
    x = np.zeros((len(rows), len(reader.features)), np.float32)
    for n in range(len(rows)):
        at = slice(tokens.ends[n], tokens.ends[n + 1])
        np.add.at(x[n], tokens.ids[at], tokens.weights[at])
    return x


def table(seed=0, N=200):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(5, 3, (N, 2)) * [1, 1000]
    numbers[rng.random((N, 2)) < 0.2] = np.nan
    towns = np.array(["Oslo", "Bern", "Rome"])[rng.integers(0, 3, N)]
    return numbers, towns


def rows_of(numbers, towns):
    return [
        written({"a": None if math.isnan(a) else a, "b": None if math.isnan(b) else b, "town": town})
        for (a, b), town in zip(numbers.tolist(), towns.tolist(), strict=True)
    ]


def test_numbers_are_what_scikit_learn_makes_of_them():
    impute = pytest.importorskip("sklearn.impute")
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers, towns = table()
    new, new_towns = table(1, 50)
    reader = ColumnsReader.fitted(rows_of(numbers, towns))
    assert reader.features[:4] == ("a", "a missing", "b", "b missing")
    imputer = impute.SimpleImputer(strategy="median", add_indicator=True).fit(numbers)
    scaler = StandardScaler().fit(imputer.transform(numbers)[:, :2])
    words = OneHotEncoder(sparse_output=False).fit(towns[:, None])
    for values, names in ((numbers, towns), (new, new_towns)):
        filled = np.asarray(imputer.transform(values))
        expected = {"a": 0, "b": 1}
        x = dense(reader, rows_of(values, names))
        z = np.asarray(scaler.transform(filled[:, :2]))
        for name, at in expected.items():
            np.testing.assert_allclose(x[:, reader.features.index(name)], z[:, at], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(x[:, reader.features.index(f"{name} missing")], filled[:, 2 + at])
        hot = np.asarray(words.transform(names[:, None]))
        for at, level in enumerate(words.categories_[0]):
            np.testing.assert_array_equal(x[:, reader.features.index(f"town = {level}")], hot[:, at])


def test_what_training_has_not_seen():
    reader = ColumnsReader.fitted([written({"a": a, "town": town}) for a, town in ((1, "x"), (2, "y"), (3, "x"))])
    assert reader.features == ("a", "town = x", "town = y")
    x = dense(reader, [written({"a": None, "town": "z"}), written({"b": 1}), written({"a": 1e9, "town": None})])
    np.testing.assert_array_equal(x[0], [0, 0, 0])  # the median is the mean here; z is no word that is known
    np.testing.assert_array_equal(x[1], [0, 0, 0])
    np.testing.assert_array_equal(x[2], [CLIP, 0, 0])


def test_constant_columns_give_nothing_and_alone_are_refused():
    reader = ColumnsReader.fitted([written({"a": 0.1 + 0.2, "b": n, "c": "same"}) for n in (1, 2)])
    assert reader.features == ("b",)
    with pytest.raises(BadData, match="all alike"):
        ColumnsReader.fitted([written({"a": 1, "b": "x"})] * 5)


def test_missing_in_training_is_a_feature_of_its_own_also_of_words():
    rows = [written({"a": a, "w": w}) for a, w in ((1, "x"), (None, "y"), (3, None), (1, "x"))]
    reader = ColumnsReader.fitted(rows)
    assert reader.features == ("a", "a missing", "w = x", "w = y", "w missing")
    x = dense(reader, rows)
    assert x[1, 1] == 1
    assert x[2, 4] == 1
    assert x[:, [1, 4]].sum() == 2


def test_rare_words_are_none_and_many_are_cut():
    words = [f"w{n:03d}" for n in range(100) for _ in range(2)] + ["rare"]
    reader = ColumnsReader.fitted([written({"w": word}) for word in words])
    assert len(reader.features) == LEVELS
    assert "w = rare" not in reader.features
    assert dense(reader, [written({"w": "rare"})]).sum() == 0


def test_files_give_the_same_reader_and_damaged_ones_are_refused():
    reader = ColumnsReader.fitted(rows_of(*table()))
    again = open_reader(reader.files())
    assert again.files() == reader.files()
    assert isinstance(again, ColumnsReader)
    assert again.hash == reader.hash
    np.testing.assert_array_equal(again.read(rows_of(*table(3))).weights, reader.read(rows_of(*table(3))).weights)
    facts = json.loads(reader.files()[READER])
    for broken in (
        {**facts, "columns": 3},
        {"kind": "columns"},
        {**facts, "columns": [{**facts["columns"][0], "std": -1}]},
        {**facts, "columns": [{**facts["columns"][0], "mean": "nan"}]},
        {**facts, "columns": [{**facts["columns"][2], "levels": [3]}]},
        {**facts, "columns": [{**facts["columns"][0], "kind": "code"}]},
    ):
        with pytest.raises(BadWeights, match="describes no columns"):
            open_reader({READER: json.dumps(broken).encode()})


@pytest.mark.parametrize("text", ["", "[1]", "3", "{", "[" * 100_000, '{"a": 1', "null"])
def test_what_is_no_row_is_said(text):
    with pytest.raises(BadData, match="no row"):
        parsed(text)


def test_numbers_and_missing_values():
    assert number_of("1e3", "a") == 1000
    assert number_of(True, "a") == 1
    for bad in ("abc", "1_000", "inf", float("inf"), 1e40, [1], "nan"):
        with pytest.raises(BadData, match="column 'a' holds"):
            number_of(bad, "a")
    assert all(map(is_missing, (None, float("nan"), "", " NA ", "null", "?", "-")))
    assert not any(map(is_missing, (0, False, "0", "no", "x")))


def test_a_row_that_a_caller_gives_is_checked():
    reader = ColumnsReader.fitted([written({"a": a, "town": town}) for a, town in ((1, "x"), (2, "y"))])
    assert parsed(reader.checked({"a": "2.5", "town": "NA", "other": 1})) == {"a": 2.5, "town": None}
    with pytest.raises(BadData, match="no column that the model knows"):
        reader.checked({"other": 1})
    with pytest.raises(BadData, match="column 'a' holds 'tall'"):
        reader.checked({"a": "tall"})


def test_shown():
    assert shown(written({"age": 41, "height": None, "x": 0.1234567891, "town": "Oslo"})) == (
        "age 41, height –, x 0.123457, town Oslo"
    )
