"""Rows of feature columns through the whole house: fit, prove, predict, evaluate, reduce, clean, store."""

import csv
import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import topwork as tw
from topwork import sources
from topwork.cli import app
from topwork.errors import BadData, BadSetting

N = 400


def people(folder, name="people.csv", seed=0, rows=N, classes=True, odd=()):
    """Two numbers and a word, with holes, of which one number and whether it is missing tell the class."""
    rng = np.random.default_rng(seed)
    size, age = rng.normal(0, 1, rows), rng.normal(40, 10, rows)
    town = np.array(["Oslo", "Bern", "Rome"])[rng.integers(0, 3, rows)]
    lost = rng.random(rows) < 0.2
    score = 2 * np.where(lost, 0.8, size) + (town == "Oslo") - 0.3 + rng.logistic(0, 0.3, rows)
    with open(folder / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "size", "age", "town", "kind" if classes else "score"])
        for n in range(rows):
            given = "" if lost[n] else f"{size[n]:.5f}"
            target = "high" if score[n] > 0 else "low"
            writer.writerow([n, given, f"{age[n]:.1f}", town[n], target if classes else f"{score[n]:.4f}"])
    return folder / name


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    data = people(folder)
    return data, tw.fit(data, out=folder / "model", engine="onnxruntime")


def test_a_table_of_numbers_and_words_is_learnt_and_proven(fitted):
    data, model = fitted
    assert (model.task, model.modality, model.columns) == ("tabular-classification", "row", ("size", "age", "town"))
    steps = {step["name"]: step for step in model.report["steps"]}
    assert steps["probe"]["kept"]
    assert model.report["metrics"]["accuracy"]["value"] > 0.85
    assert model.report["proof"]["agreement"] == 1
    assert {"missing_values"} <= {finding["kind"] for finding in model.report["findings"]}
    saved = sources.read(data)
    said = model.probabilities(saved.inputs())
    truth = np.array([["high", "low"].index(saved.labels[t]) for t in saved.targets()])
    assert (said.argmax(1) == truth).mean() > 0.85


def test_the_graph_alone_gives_the_same(fitted):
    import onnxruntime as ort

    data, model = fitted
    rows = sources.read(data).inputs()[:20]
    session = ort.InferenceSession(model.folder / "model.onnx")
    reader = json.loads((model.folder / "reader.json").read_bytes())
    for row, expected in zip(rows, model.probabilities(rows), strict=True):
        cells = json.loads(row)
        x, base = {}, 0
        for column in reader["columns"]:  # a second, plainer reader
            value = cells[column["name"]]
            if column["kind"] == "number":
                filled = column["median"] if value is None else value
                x[base] = (filled - column["mean"]) / column["std"]
                base += 1
                if column["missing"]:
                    x[base] = float(value is None)
                    base += 1
            else:
                for level in column["levels"]:
                    x[base] = float(value == level)
                    base += 1
        ids, weights = np.array([[*x]], np.int64), np.array([[*x.values()]], np.float32)
        p = np.asarray(session.run(["probabilities"], {"ids": ids, "weights": weights})[0])
        np.testing.assert_allclose(p[0], expected, atol=1e-5)


def test_a_missing_value_says_something(fitted):
    _, model = fitted
    small, lost = model.predict([{"size": -0.5, "age": 40, "town": "Rome"}, {"age": 40, "town": "Rome"}])
    assert (small.label, lost.label) == ("low", "high")


def test_inputs_of_all_kinds(fitted, tmp_path):
    _, model = fitted
    row = {"size": 1.5, "age": 30, "town": "Oslo"}
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    answers = [
        model.predict(x) for x in (row, json.dumps(row), path, {**row, "size": np.float32(1.5)}, {**row, "size": "1.5"})
    ]
    assert len({(a.label, round(a.probability, 5)) for a in answers}) == 1
    assert answers[0].input == "size 1.5, age 30, town Oslo"
    for wrong, why in (("tall", "no row"), ({"size": "tall"}, "column 'size' holds 'tall'"), ({"x": 1}, "no column")):
        with pytest.raises(BadData, match=why):
            model.predict(wrong)


def test_commands(fitted, tmp_path):
    data, model = fitted
    run = CliRunner().invoke
    told = run(app, ["predict", str(model.folder), str(data), "--csv"])
    lines = told.stdout.splitlines()
    assert (told.exit_code, len(lines), lines[1].split(",")[0]) == (0, N + 1, "people.csv line 2")
    told = run(app, ["predict", str(model.folder), "-", "--json"], input='{"size": 2}\n\n{"size": "x"}\n')
    assert told.exit_code == 0
    assert len(json.loads(told.stdout)) == 1
    assert "skipped size x: column 'size' holds 'x'" in told.stderr
    told = run(app, ["evaluate", str(model.folder), str(data), "--json", "--report", str(tmp_path / "r.html")])
    assert json.loads(told.stdout)["metrics"]["accuracy"]["n"] == N
    page = (tmp_path / "r.html").read_text()
    assert "speaks for what the model said" in page
    assert ">value</mark>" in page


def test_which_values_mattered_is_shown(fitted):
    _, model = fitted
    entries = [entry for shelf in model.report["gallery"].values() for entry in shelf]
    assert entries
    for entry in entries:
        told = {piece.split()[0]: effect for piece, effect in entry["words"] if effect is not None}
        assert set(told) == {"size", "age", "town"}
    effects = np.array([[effect for _, effect in entry["words"] if effect is not None] for entry in entries])
    assert np.abs(effects[:, 0]).mean() > np.abs(effects[:, 1]).mean()  # age says nothing


def test_numbers_with_a_test_table_and_a_reduction(tmp_path):
    train, test = (people(tmp_path, f"{name}.csv", seed, 300, classes=False) for seed, name in enumerate(("a", "b")))
    model = tw.fit(train, test=test, label_column="score", reduce="whitening(k=4)", out=tmp_path / "model")
    assert model.task == "tabular-regression"
    assert model.report["metrics"]["r2"]["n"] == 300
    assert model.report["metrics"]["r2"]["value"] > 0.7
    assert "whitening" in model.report["head"]["method"]
    answer = model.predict({"size": 1, "age": 40, "town": "Rome"})
    assert answer.low < answer.value < answer.high


def test_the_same_fit_gives_the_same_bits(fitted, tmp_path):
    data, model = fitted
    again = tw.fit(data, out=tmp_path / "model", engine="onnxruntime")
    for file in ("model.onnx", "reader.json", "model.safetensors"):
        assert (again.folder / file).read_bytes() == (model.folder / file).read_bytes()


def test_cleaned_rows_are_read_as_they_were(fitted, tmp_path):
    data, _ = fitted
    done = tw.clean(data, tmp_path / "cleaned", drop="missing_values")
    back = sources.read(tmp_path / "cleaned")
    assert back.modality == "row"
    assert 0 < len(back) == len(done.dataset) < N
    assert set(json.loads(back.inputs()[0])) == {"size", "age", "town"}
    assert all(json.loads(row)["size"] is not None for row in back.inputs())


def test_more_rows_since_a_model(fitted, tmp_path):
    _, model = fitted
    more = people(tmp_path, "more.csv", 0, N)
    with more.open("a") as file:
        file.writelines((people(tmp_path, "new.csv", 7, 150).read_text().splitlines(keepends=True))[1:])
    new = tw.fit(more, since=model.folder, out=tmp_path / "new")
    assert new.report["growth"]["since"] == model.manifest["name"]


def test_rows_of_a_database_are_judged(fitted, tmp_path):
    pytest.importorskip("sqlalchemy")
    import sqlite3

    _, model = fitted
    uri = f"sqlite:///{tmp_path}/p.db"
    with sqlite3.connect(tmp_path / "p.db") as db:
        db.execute("create table people (id integer primary key, size real, age real, town text, planet text)")
        rows = [(n, None if n % 5 == 0 else n / 10 - 2, 40, "Oslo", "Earth") for n in range(40)]
        db.executemany("insert into people values (?, ?, ?, ?, ?)", rows)
    wanted = ["--query", "select * from people", "--to", "sql", "--table", "judged"]
    told = CliRunner().invoke(app, ["predict", str(model.folder), uri, *wanted])
    assert told.exit_code == 0, told.output
    with sqlite3.connect(tmp_path / "p.db") as db:
        kept = dict(db.execute("select id, label from judged").fetchall())
    direct = model.predict([{"size": size, "age": age, "town": town} for _, size, age, town, _ in rows])
    assert kept == {n: answer.label for n, answer in enumerate(direct)}


def cases(*given: tuple[dict[str, Any], str]) -> tuple[tuple[dict[str, Any], str], ...]:
    return given


def test_what_is_not_for_rows_is_one_line(fitted, tmp_path):
    data, model = fitted
    for wrong, why in cases(
        ({"redact": True}, "in which nothing is masked"),
        ({"steps": "last_stages(1)"}, "has nothing that could be trained|works on images or texts"),
        ({"task": "image-classification"}, "holds rows, but the task|Feature columns|is about images"),
        ({"backbone": "bundled"}, "reads image, expected one that reads row"),
        ({"item_column": "size,age,weight"}, "has no column 'weight'"),
    ):
        with pytest.raises((BadData, BadSetting), match=why) as caught:
            tw.fit(data, out=tmp_path / "no", **wrong)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "no").exists()
    with pytest.raises(BadSetting, match="there are no backbones to rank"):
        tw.rank(data)
    other = people(tmp_path, "other.csv")
    other.write_text(other.read_text().replace("size", "length"))
    with pytest.raises(BadSetting, match="has no column 'size'"):
        tw.evaluate(model, other)
