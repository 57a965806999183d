"""Feature columns of a table: which they are, what is missing, what is no feature."""

import json

import pytest

from topwork import sources
from topwork.errors import BadData, BadSetting


def wrote(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def made(folder, N=60, **more):
    """A table of N rows: a number, a word, names of rows, a date, a constant, a free text, and the class."""
    lines = ["id,height,town,born,planet,note,class"]
    for n in range(N):
        height = more.get("heights", {}).get(n, 1.5 + n / 100)
        lines.append(
            f"{n + 7},{height},{['Oslo', 'Bern'][n % 2]},{1980 + n % 40}-01-02,Earth,x{n * 7919 % 997},{'ab'[n % 2]}"
        )
    return wrote(folder, "people.csv", "\n".join(lines) + "\n")


def test_columns_are_guessed_and_said(tmp_path):
    data = sources.read(made(tmp_path))
    assert sources.modality(tmp_path / "people.csv") == data.modality == "row"
    assert (len(data), data.labels, data.numeric) == (60, ("a", "b"), False)
    assert json.loads(data.inputs()[0]) == {"height": 1.5, "town": "Oslo"}
    said = " ".join(data.notes)
    for part in (
        "label column 'class': its name",
        "feature columns 'height', 'town': 1 of numbers, 1 of words",
        "'id' is no feature: it names the rows",
        "'born' is no feature: it holds dates",
        "'planet' is no feature: it is always 'Earth'",
        "'note' is no feature: 60 different words",
    ):
        assert part in said, part


def test_missing_values_stay_and_words_in_numbers_are_skipped(tmp_path):
    odd = {1: "", 2: "NA", 3: "?", 4: "tall", 5: "1e99", 6: "nan"}
    data = sources.read(made(tmp_path, 200, heights=odd))
    heights = [json.loads(row)["height"] for row in data.inputs()]
    assert heights[:4] == [1.5, None, None, None]
    assert heights[4] is None  # row 6: 4 and 5 were left out
    assert [(one.item, one.reason[:27]) for one in data.skipped] == [
        ("people.csv line 6", "column 'height' holds 'tall"),
        ("people.csv line 7", "column 'height' holds '1e99"),
    ]


def test_named_columns(tmp_path):
    path = made(tmp_path)
    data = sources.read(path, item_column="height,town,planet")
    assert set(json.loads(data.inputs()[0])) == {"height", "town", "planet"}
    data = sources.read(path, features=("height",), label_column="town")
    assert (json.loads(data.inputs()[0]), data.labels) == ({"height": 1.5}, ("Bern", "Oslo"))
    with pytest.raises(BadSetting, match="has no column 'weight'"):
        sources.read(path, features=("weight",))
    with pytest.raises(BadSetting, match="has no column 'c'"):
        sources.read(path, item_column="height,town,c")


def test_texts_and_images_come_first_unless_rows_are_asked_for(tmp_path):
    lines = ["words,size,class", *(f"a text of some words {n},{n % 9},{'ab'[n % 2]}" for n in range(40))]
    path = wrote(tmp_path, "t.csv", "\n".join(lines) + "\n")
    assert sources.modality(path) == "text"
    assert sources.modality(path, features=()) == "row"
    data = sources.read(path, features=())
    assert json.loads(data.inputs()[3]) == {"size": 3}


def test_words_alone_are_rows_only_when_asked_for(tmp_path):
    lines = ["shape,colour,class", *(f"{'xy'[n % 2]},{'rgb'[n % 3]},{'ab'[n % 2]}" for n in range(40))]
    path = wrote(tmp_path, "t.csv", "\n".join(lines) + "\n")
    with pytest.raises(BadData, match="no column holds image files, texts or numbers"):
        sources.read(path)
    assert json.loads(sources.read(path, features=()).inputs()[1]) == {"shape": "y", "colour": "g"}


def test_a_number_to_predict(tmp_path):
    lines = ["a,b,price", *(f"{n % 7},{n % 5},{n * 1.37:.2f}" for n in range(80))]
    data = sources.read(wrote(tmp_path, "t.csv", "\n".join(lines) + "\n"), label_column="price")
    assert (data.modality, data.numeric, data.labels) == ("row", True, ("price",))


def test_types_of_parquet_and_jsonl(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"x": [1.5, None, 3.0] * 10, "on": [True, False, None] * 10, "kind": [1.0, 2.0, None] * 10}
    table["y"] = [0, 1, 0] * 10
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    wrote(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    for name in ("t.parquet", "t.jsonl"):
        data = sources.read(tmp_path / name)
        assert json.loads(data.inputs()[0]) == {"x": 1.5, "on": 1, "kind": 1}
        assert json.loads(data.inputs()[1]) == {"x": None, "on": 0, "kind": 2}
        assert json.loads(data.inputs()[2]) == {"x": 3, "on": None, "kind": None}


def test_numbers_that_name_something_are_words(tmp_path):
    lines = ["shopId,zip,price,class", *(f"{n % 3 + 7},{(n % 4) * 1000},{n}.5,{'xy'[n % 2]}" for n in range(60))]
    data = sources.read(wrote(tmp_path, "t.csv", "\n".join(lines) + "\n"))
    assert json.loads(data.inputs()[1]) == {"shopId": "8", "zip": "1000", "price": 1.5}


def test_columns_that_a_spreadsheet_left_behind_are_left_out(tmp_path):
    lines = ["a,b,class,,,", *(f"{n % 7},{n % 5}.5,{'xy'[n % 2]},,, " for n in range(200)), "1,2,x,,z,", "1,2,x"]
    data = sources.read(wrote(tmp_path, "t.csv", "\n".join(lines) + "\n"))
    assert json.loads(data.inputs()[1]) == {"a": 1, "b": 1.5}
    assert "3 columns without a name at the end, all but empty, are left out" in data.notes
    assert (len(data), [one.reason for one in data.skipped]) == (201, ["3 fields, expected 6"])
    with pytest.raises(BadData, match="two columns are called ''"):
        sources.read(wrote(tmp_path, "u.csv", "\n".join(lines).replace(",,, ", ",1,2,3") + "\n"))


def test_several_tables_and_a_database(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, N in (("train", 60), ("test", 20)):
        made(folder, N).rename(folder / f"{name}.csv")
    data = sources.read(folder)
    assert (data.modality, len(data.rows_of("train")), len(data.rows_of("test"))) == ("row", 60, 20)
    assert json.loads(data.inputs()[60]) == {"height": 1.5, "town": "Oslo"}
    pytest.importorskip("sqlalchemy")
    import sqlite3

    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("create table people (id integer, height real, town text, class text)")
        db.executemany(
            "insert into people values (?, ?, ?, ?)",
            [(n, None if n % 9 == 0 else n / 7, ["Oslo", "Bern"][n % 2], "ab"[n % 2]) for n in range(60)],
        )
    uri = f"sqlite:///{tmp_path}/s.db"
    data = sources.read(uri, query="select * from people")
    assert sources.modality(uri, query="select * from people") == data.modality == "row"
    assert json.loads(data.inputs()[0]) == {"height": None, "town": "Oslo"}


def test_folders_of_images_have_no_feature_columns(tmp_path):
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(BadSetting, match="Feature columns stand in a table"):
        sources.read(tmp_path, features=())
