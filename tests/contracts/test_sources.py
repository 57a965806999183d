"""Every file in sources/: what it accepts it reads, and a Dataset is always built alike."""

import contextlib
import dataclasses
import json
import sqlite3

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from topwork import plugins, sources
from topwork.errors import BadData

NAMES = plugins.names("sources")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Something for every source: a new source adds its own here."""
    root = tmp_path_factory.mktemp("sources")
    rows = []
    for i in range(8):
        path = root / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i * 20, np.uint8)).save(path)
        rows.append({"path": str(path), "label": "ab"[i % 2]})
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = [f"__label__{'ab'[i % 2]} a text of number {i}" for i in range(8)]
    (root / "lines.txt").write_text("\n".join(texts))
    for i, text in enumerate(texts):
        path = root / "texts" / "ab"[i % 2] / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with contextlib.closing(sqlite3.connect(root / "x.db")) as database, database:
        database.execute("create table texts (text, label)")
        database.executemany("insert into texts values (?, ?)", [(text, "ab"[i % 2]) for i, text in enumerate(texts)])
    (root / "clean").mkdir()
    pq.write_table(pa.table({**{key: [row[key] for row in rows] for key in rows[0]}, "split": [None, "test"] * 4}),
                   root / "clean" / "items.parquet")  # fmt: skip
    (root / "clean" / "history.json").write_text('{"kind": "cleaned", "name": "photos", "history": ["cleaned"]}')
    (root / "clean" / "CLEANED.md").write_text("# photos, cleaned")
    return {
        "cleaned": str(root / "clean"),
        "sql": f"sqlite:///{root / 'x.db'}",
        "text_file": str(root / "lines.txt"),
        "text_folder": str(root / "texts"),
        "folder": str(root / "photos"),
        "table": str(root / "t.jsonl"),
        "fractals": "fractals:classes=2,per_class=4",
    }


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, examples):
    kind = plugins.find("sources", name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    source = kind()
    accepted = {other: source.accepts(uri) for other, uri in examples.items()}
    if name != "cleaned":  # a cleaned folder looks like others, too: the first in the order of names reads it
        accepted["cleaned"] = False
    assert accepted == {other: other == name for other in examples}
    assert not source.accepts("/nowhere/at.all")
    data = source.read(examples[name])
    assert data.table.schema.field("item").type == pa.string()
    assert data.table.schema.field("target").type == pa.int32()
    assert pa.types.is_dictionary(data.table.schema.field("split").type)
    drawn = ":" in data.root  # nothing is stored
    assert data.labels == (("class_0000", "class_0001") if drawn else ("a", "b"))
    assert data.targets().tolist().count(1) == 4
    assert len(data.history) == (2 if name == "cleaned" else 1)  # and what was done before
    if data.modality == "text":
        assert data.table.schema.field("text").type == pa.string()
        assert source.modality(examples[name]) == "text"
        drawn = True
    assert drawn or all(open(path, "rb").close() is None for path in data.paths())
    again = sources.read(examples[name])
    assert again.table == data.table


@pytest.mark.parametrize("uri", ["/nowhere", "/nowhere/t.csv", "", "ftp://127.0.0.1/x.zip"])
def test_what_nobody_accepts(uri):
    with pytest.raises(BadData, match="Expected a folder with one subfolder per class"):
        sources.read(uri)


def test_a_cleaned_folder_is_read_as_one(examples):
    data = sources.read(examples["cleaned"])
    assert data.name == "photos"
    assert data.history[0] == "cleaned"
    assert len(data.rows_of("test")) == 4
    assert data.labels == ("a", "b")
