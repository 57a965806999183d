"""What an inspection sees in rows of feature columns."""

import json

import numpy as np
import pyarrow as pa

from topwork.data.inspect import inspect
from topwork.data.inspect_row import look
from topwork.modalities.rows import BLOCK, Words, written
from topwork.types import Dataset, silent


def dataset(rows, targets=None, labels=("a", "b"), splits=None):
    table = {
        "item": [f"t.csv line {n + 2}" for n in range(len(rows))],
        "text": [written(row) for row in rows],
        "target": pa.array(targets if targets is not None else [n % 2 for n in range(len(rows))], pa.int32()),
        "split": pa.array(splits or [None] * len(rows), pa.string()).dictionary_encode(),
    }
    return Dataset(pa.table(table), "", labels, name="t", modality="row")


def found(data):
    return {finding.kind: finding for finding in inspect(data).findings}


def different(N, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"x": round(float(x), 6), "y": round(float(y), 6), "w": "ab"[n % 2]}
        for n, (x, y) in enumerate(rng.normal(size=(N, 2)))
    ]


def test_missing_far_and_equal_values_are_found():
    rows = different(200)
    rows[3]["x"] = None
    rows[4]["w"] = None
    rows[5]["y"] = 900.0
    rows[7] = dict(rows[6])
    seen = found(dataset(rows))
    assert (seen["missing_values"].rows, seen["missing_values"].scores) == ((3, 4), (0.3333, 0.3333))
    assert "'x' 0.5%, 'w' 0.5%" in seen["missing_values"].message
    assert seen["far_values"].rows == (5,)
    assert seen["exact_duplicates"].rows == (6, 7)
    assert seen["conflicting_labels"].rows == (6, 7)
    facts = inspect(dataset(rows)).facts
    assert facts["columns"]["w"] == {"kind": "words", "missing": 1, "different": 2}
    assert facts["columns"]["y"]["max"] == 900.0
    assert facts["duplicates"] == {"exact": 1, "near": 0}


def test_the_order_of_columns_and_how_a_number_is_written_make_no_other_row():
    rows = [{"x": 1, "y": 2.5, "z": None}, {"y": 2.5, "x": 1.0}, {"x": 1, "y": 2.5001}]
    rows += different(20)
    same = look(dataset(rows), silent).same()
    assert same[0] == same[1] != same[2]


def test_where_few_rows_are_possible_equal_ones_are_no_copies():
    rows = [{"x": n % 5, "w": "abc"[n % 3]} for n in range(150)]
    data = inspect(dataset(rows, [n % 2 for n in range(150)]))
    kinds = {finding.kind for finding in data.findings}
    assert "recurring" in kinds
    assert not {"exact_duplicates", "conflicting_labels"} & kinds
    assert len(set(data.dataset.table["twin"].to_pylist())) == 150


def test_training_copies_of_what_measures_are_left_out():
    rows = different(60)
    rows[50] = dict(rows[1])
    data = inspect(dataset(rows, splits=["train"] * 45 + ["test"] * 15))
    assert [(one.item, one.reason) for one in data.dataset.skipped] == [("t.csv line 3", "same row as t.csv line 52")]


def test_a_column_that_is_the_label_is_said():
    rows = different(200)
    targets = [int(row["x"] > 0) for row in rows]
    assert "tells_all" not in found(dataset(rows, targets))
    for row, target in zip(rows, targets, strict=True):
        row["code"] = ["no", "yes"][target]
    assert "column 'code' alone tells the label" in found(dataset(rows, targets))["tells_all"].message


def test_blank_rows_and_those_that_are_none():
    rows = different(30)
    rows[2] = {"x": None, "y": None, "w": None}
    data = dataset(rows)
    texts = data.table["text"].to_pylist()
    texts[4] = "no row"
    seen = inspect(data.with_column("text", pa.array(texts)))
    kinds = {finding.kind: finding for finding in seen.findings}
    assert kinds["blank"].message == "1 row without any value"
    assert [one.item for one in seen.dataset.skipped] == ["t.csv line 6"]


def test_columns_over_several_blocks_with_words_that_come_late():
    N = BLOCK + 50
    rows = [{"x": n} if n < BLOCK else {"x": n, "late": n, "w": "b" if n == N - 1 else 3} for n in range(N)]
    columns = look(dataset(rows), silent).columns
    x, late, words = columns["x"], columns["late"], columns["w"]
    assert not isinstance(x, Words)
    assert not isinstance(late, Words)
    np.testing.assert_array_equal(x, np.arange(N))
    assert np.isnan(late[:BLOCK]).all()
    assert late[BLOCK:].tolist() == list(range(BLOCK, N))
    assert isinstance(words, Words)
    assert words.words == ("3", "b")
    assert [words.codes[at] for at in (0, BLOCK, N - 1)] == [-1, 0, 1]
    assert json.loads(written(rows[-1]))["w"] == "b"
