"""Numbers as targets: told apart from classes, from every kind of table, rubbish named by its line, written back."""

import json
import random
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

import topwork as tw
from topwork import sources
from topwork.data.inspect import inspect
from topwork.data.join import join
from topwork.errors import BadData, BadSetting

DICE = random.Random(0)
FLOATS = [f"{DICE.gauss(5, 2):.3f}" for _ in range(200)]


def text(i):
    return f"word number {i} about {'abc'[i % 3]} and things"


def csv(folder, values, name="t.csv", header="price", quote='"'):
    lines = [f"{text(i)},{quote}{value}{quote}" for i, value in enumerate(values)]
    path = folder / name
    path.write_text("\n".join([f"text,{header}", *lines]) + "\n")
    return path


def kind(data):
    return "numbers" if data.numeric else "classes"


GUESSES = {
    "floats": (FLOATS, "numbers"),
    "many whole numbers": ([DICE.randint(1950, 2020) for _ in range(200)], "numbers"),
    "lengths": ([DICE.randint(0, 300) for _ in range(400)], "numbers"),
    "one to five stars": ([DICE.randint(1, 5) for _ in range(200)], "classes"),
    "half stars": ([DICE.randint(2, 10) / 2 for _ in range(200)], "classes"),
    "class codes 0 to 76": ([i % 77 for i in range(770)], "classes"),
    "class codes 1 to 77, each twice": ([1 + i % 77 for i in range(154)], "classes"),
    "0 and 1": ([i % 2 for i in range(50)], "classes"),
    "names": (["cat", "dog"] * 20, "classes"),
    "3 % rubbish": (["n/a" if i % 34 == 0 else one for i, one in enumerate(FLOATS)], "numbers"),
    "a tenth of the cells empty": (["" if i % 10 == 0 else one for i, one in enumerate(FLOATS)], "numbers"),
    "exponents, signs, blanks": ([f" {'-' * (i % 2)}{one}e2 " for i, one in enumerate(FLOATS)], "numbers"),
}


@pytest.mark.parametrize("name", GUESSES)
def test_numbers_and_classes_are_told_apart(name, tmp_path):
    values, expected = GUESSES[name]
    data = sources.read(csv(tmp_path, values))
    assert kind(data) == expected
    if expected == "numbers":
        assert data.labels == ("price",)
        assert data.activation == "identity"
        assert any("regression (--task says otherwise)" in note for note in data.notes)
        targets = data.targets()
        assert targets.dtype == np.float64
        usable = [float(one) for one in values if str(one).strip() not in ("", "n/a")]
        np.testing.assert_array_equal(targets, usable)
        assert len(data) + len(data.skipped) == len(values)


def test_rubbish_is_skipped_with_its_line(tmp_path):
    values = [*FLOATS]
    for at, rubbish in enumerate(("n/a", "", "nan", "inf", "-inf", "3,5", "1e99")):
        values[10 * at] = rubbish
    data = sources.read(csv(tmp_path, values))
    reasons = {one.item: one.reason for one in data.skipped}
    assert reasons == {
        "t.csv line 2": "'n/a' is not a number",
        "t.csv line 12": "no number",
        "t.csv line 22": "'nan' is not a number",
        "t.csv line 32": "'inf' is not a number",
        "t.csv line 42": "'-inf' is not a number",
        "t.csv line 52": "'3,5' is not a number; write it with a decimal point",
        "t.csv line 62": "'1e99' is too large: the largest number is 1e+36",
    }
    assert np.isfinite(data.targets()).all()


def test_what_are_no_numbers_is_refused_in_one_line(tmp_path):
    cases = {
        "decimal commas": ([one.replace(".", ",") for one in FLOATS], "free text"),
        "dates": ([date(2020, 1 + i % 12, 1 + i // 12).isoformat() for i in range(200)], "free text"),
        "money": ([f"${one}" for one in FLOATS], "free text"),
        "Python's underscores": ([f"1_{100 + i}" for i in range(200)], "free text"),
        "a fifth is rubbish": (["n/a" if i % 5 == 0 else one for i, one in enumerate(FLOATS)], "--task text-reg"),
    }  # fmt: skip
    for name, (values, words) in cases.items():
        with pytest.raises(BadData, match=words) as caught:
            sources.read(csv(tmp_path, values))
        assert "\n" not in str(caught.value), name
    with pytest.raises(BadData, match=r"no usable row of 200, .*decimal point"):
        sources.read(csv(tmp_path, cases["decimal commas"][0]), numeric=True)


def test_the_task_overrides_the_guess_both_ways(tmp_path):
    stars = csv(tmp_path, [1 + i % 5 for i in range(60)])
    as_numbers = sources.read(stars, numeric=True)
    assert kind(as_numbers) == "numbers"
    assert set(as_numbers.targets()) == {1, 2, 3, 4, 5}
    codes = csv(tmp_path, [100 * (i % 30) for i in range(120)], "codes.csv")
    assert kind(sources.read(codes)) == "numbers"
    as_classes = sources.read(codes, numeric=False)
    assert kind(as_classes) == "classes"
    assert len(as_classes.labels) == 30
    half = csv(tmp_path, ["n/a" if i % 2 else one for i, one in enumerate(FLOATS)], "half.csv")
    assert len(sources.read(half, numeric=True)) == 100


def test_a_folder_of_classes_has_no_numbers(photos):
    assert not sources.read(photos, numeric=False).numeric
    with pytest.raises(BadSetting, match=r"is read as a folder of classes\. Numbers stand in a column of a table"):
        sources.read(photos, numeric=True)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table(ending, tmp_path):
    path = tmp_path / f"t.{ending}"
    rows = [{"text": text(i), "price": float(one)} for i, one in enumerate(FLOATS)]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        mark = {"csv": ",", "tsv": "\t"}[ending]
        path.write_text("\n".join([f"text{mark}price", *(f"{row['text']}{mark}{row['price']}" for row in rows)]))
    data = sources.read(path)
    np.testing.assert_array_equal(data.targets(), np.array(FLOATS, float))


def test_numbers_of_other_types_of_parquet(tmp_path):
    values = np.arange(200) / 7
    columns = {
        "float32": pa.array(values, pa.float32()), "int16": pa.array((7 * values).astype(int), pa.int16()),
        "decimal": pa.array([Decimal(f"{one:.2f}") for one in values]),
        "null": pa.array([None if i < 5 else one for i, one in enumerate(values)]),
    }  # fmt: skip
    for name, column in columns.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"text": [text(i) for i in range(200)], "price": column}), path)
        data = sources.read(path)
        assert kind(data) == "numbers", name
        assert len(data) == 200 - 5 * (name == "null")
        assert data.targets()[-1] == pytest.approx(7 * values[-1] if name == "int16" else values[-1], abs=0.006)


def test_images_pairs_and_groups(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "images.csv").write_text(
        "path,weight,group\n" + "".join(f"a.png,{i / 3},g{i % 4}\n" for i in range(40))
    )
    data = sources.read(tmp_path / "images.csv")
    assert (kind(data), data.modality, data.labels) == ("numbers", "image", ("weight",))
    assert "group" in data.columns
    lines = "".join(f"a sentence {i},another one {i},{i / 9}\n" for i in range(60))
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,similarity\n" + lines)
    data = sources.read(tmp_path / "pairs.csv")
    assert (kind(data), data.labels) == ("numbers", ("similarity",))
    assert sources.modality(tmp_path / "pairs.csv") == "text"


def test_a_folder_of_tables_with_splits(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    csv(folder, FLOATS[:120], "train.csv")
    csv(folder, FLOATS[120:160], "valid.csv")
    csv(folder, FLOATS[160:], "test.csv")
    data = sources.read(folder)
    assert kind(data) == "numbers"
    assert [len(data.rows_of(split)) for split in ("train", "val", "test")] == [120, 40, 40]
    np.testing.assert_array_equal(data.targets()[data.rows_of("test")], np.array(FLOATS[160:], float))


def test_tables_are_joined_by_what_they_measure(tmp_path):
    train = sources.read(csv(tmp_path, FLOATS))
    few = csv(tmp_path, [1, 2, 3, 4], "test.csv")  # alone they would be classes
    both = join(train, sources.read(few, numeric=train.numeric))
    assert list(both.targets()[both.rows_of("test")]) == [1, 2, 3, 4]
    with pytest.raises(BadData, match="t has numbers as targets and test has classes"):
        join(train, sources.read(few))


def test_the_test_table_of_a_fit_is_read_as_its_training_table_is(tmp_path):
    fitted = tw.fit(csv(tmp_path, FLOATS), test=csv(tmp_path, [3, 4, 5, 6, 7, 8], "test.csv"), steps="mean",
                    out=tmp_path / "m")  # fmt: skip
    assert fitted.report["evaluated_on"]["n"] == 6
    told = tw.evaluate(fitted, tmp_path / "test.csv")
    assert told["metrics"]["mae"]["value"] == pytest.approx(fitted.report["metrics"]["mae"]["value"], rel=1e-5)


def test_twins_with_two_numbers_are_a_finding(tmp_path):
    path = tmp_path / "t.csv"
    lines = [f"{text(i)},{one}" for i, one in enumerate(FLOATS)]
    lines += [f"{text(3)},99.5", f"{text(4)},{FLOATS[4]}"]  # one contradicts, one repeats
    path.write_text("\n".join(["text,price", *lines]))
    findings = {one.kind: one for one in inspect(sources.read(path)).findings}
    assert set(findings["conflicting_labels"].rows) == {3, 200}
    assert findings["exact_duplicates"].rows
    assert not {"imbalance", "tiny_class", "label_names", "one_class"} & set(findings)


def test_numbers_far_from_all_others_are_a_finding(tmp_path):
    values = [*FLOATS]
    values[17] = "5000"
    findings = {one.kind: one for one in inspect(sources.read(csv(tmp_path, values))).findings}
    assert findings["far_numbers"].rows == (17,)
    assert "t.csv line 19: 5000" in findings["far_numbers"].message
    assert "far_numbers" not in {one.kind for one in inspect(sources.read(csv(tmp_path, FLOATS))).findings}


def test_split_and_extract_write_numbers_back(tmp_path):
    found = inspect(sources.read(csv(tmp_path, FLOATS))).dataset
    assert found.targets().dtype == np.float64
    from typer.testing import CliRunner

    from topwork.cli import app

    run = CliRunner().invoke(app, ["split", str(tmp_path / "t.csv"), "--out", str(tmp_path / "s.csv")])
    assert run.exit_code == 0, run.output
    again = sources.read(tmp_path / "s.csv")
    assert kind(again) == "numbers"
    assert sorted(again.targets()) == sorted(map(float, FLOATS))
    assert len(again.rows_of("test")) > 0
    means = [again.targets()[again.rows_of(split)].mean() for split in ("train", "test")]
    assert abs(means[0] - means[1]) < 1  # of like distribution
    out = tmp_path / "f.parquet"
    run = CliRunner().invoke(
        app, ["extract", str(tmp_path / "t.csv"), "--backbone", "bundled:text_small", "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    written = pq.read_table(out)
    numbers = next(written[name] for name in ("label", "price", "target") if name in written.column_names)
    np.testing.assert_allclose(np.array(numbers.to_pylist(), float), np.array(FLOATS, float))
