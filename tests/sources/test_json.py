"""Lists of JSON objects: the fates of jsonl, row by row, whatever the size."""

import io
import json
import tracemalloc

import pytest
from typer.testing import CliRunner

from topwork import sources
from topwork.cli import app
from topwork.errors import BadData
from topwork.sources import _json
from topwork.sources._rows import READERS

from .test_texts import ROWS, labelled, one, said, write

OBJECTS = [{"text": text, "label": label, "n": i} for i, (text, label) in enumerate(ROWS)]


@pytest.mark.parametrize("content", [
    json.dumps(OBJECTS), json.dumps(OBJECTS, indent=2), json.dumps({"data": OBJECTS}),
    json.dumps({"version": "1.0", "about": {"data": [1, {"a": []}]}, "data": OBJECTS, "more": [1]}),
    "\n".join(map(json.dumps, OBJECTS)),  # JSON lines that are called .json
    "\n".join(json.dumps({**row, "data": 1}) for row in OBJECTS),
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_way_to_write_them(tmp_path, content, encoding):
    path = one(tmp_path, content.encode(encoding), "t.json")
    data = sources.read(path)
    assert labelled(data) == dict(ROWS)
    assert data.modality == sources.modality(path) == "text"
    lines = content.startswith("{") and "version" not in content and content.count("\n")
    assert data.table["item"][1].as_py() == ("t.json line 2" if lines else "t.json row 2")


def test_it_reads_as_jsonl_does(tmp_path):
    rows = [
        *OBJECTS, [1], 7, None, {"text": None, "label": "pos"}, {"text": "no label here"},
        {"text": "half \ud83d", "label": "pos"}, {"text": "a list", "label": {"x": 1}}, {}, {"other": 1},
    ]  # fmt: skip
    lines = sources.read(one(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    listed = sources.read(one(tmp_path, json.dumps(rows, indent=1), "t.json"))
    assert labelled(listed) == labelled(lines)
    assert [s.reason for s in listed.skipped] == [s.reason for s in lines.skipped]
    assert [s.item for s in listed.skipped] == [s.item.replace("jsonl line", "json row") for s in lines.skipped]
    assert listed.notes == tuple(note.replace("t.jsonl", "t.json") for note in lines.notes)


def test_damaged_bytes_cost_their_row_alone(tmp_path):
    good = [json.dumps({"text": f"caf\u00e9 {i}", "label": "ab"[i % 2]}, ensure_ascii=False) for i in range(6)]
    content = ("[" + ",\n".join(good) + "]").encode().replace("é 3".encode(), b"\xe9 3")
    data = sources.read(one(tmp_path, content, "t.json"))
    assert [(s.item, s.reason) for s in data.skipped] == [("t.json row 4", "not valid UTF-8")]
    assert len(data) == 5
    assert "1 line is not valid UTF-8" in said(data)


@pytest.mark.parametrize(("content", "message"), [
    ("", "0 bytes"), ("  \n ", "is empty"), ("[]", "no JSON object. Expected a list of them"),
    ('{"data": []}', "no JSON object"), ("[1, 2]", "no JSON object"), ('"text"', "begins with"), ("nonsense", "begins"),
    ('{"text": "one", "label": "a"}', r"holds one object \(text, label\) and no list"),
    ('{"text": {"0": "a"}, "label": {"0": "b"}}', "orient='records'"),
    ('{"images": [{"id": 1}], "annotations": []}', "images, annotations"),
    ('{"data": [1, 2]}', "'data' holds no objects"),
    ('{"text" "one"}', "a name and a colon"), ('{"text": 1 2}', "expected , or }"),
    ('[{"text": "one", "label": "a"}, {"text": "two"', "t.json row 2: not JSON"),
    ('[{"text": "one", "label": "a"}', "t.json row 1: the file ends behind it"),
    ('[{"text": "one", "label": "a"} {"text": 1}]', "row 1: expected , or ] behind it, found '{'"),
    ('[{"text": "one", "label": "a"},]', "row 2: not JSON"),
    ('[{"text": "a\0b", "label": "a"}]', "row 1: not JSON: Invalid control character"),
    ('[{"text": "one", "label": "a"}, ' + "[" * 200_000, "row 2: is nested too deep"),
    ('{"a": ' + '{"b":' * 200_000, "is nested too deep"),
    ('[{"text": "one", "label": "a"}, {"text": "two", "label": ' + "9" * 10_000 + "}]", "row 2: not JSON: Exceeds"),
    ('[{"text": "' + "x" * (5 << 20), "row 1: not JSON: .* or over 4,194,304 characters long"),
])  # fmt: skip
def test_hopeless_files_get_one_line(tmp_path, content, message):
    with pytest.raises(BadData, match=message) as caught:
        sources.read(one(tmp_path, content, "t.json"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_where_blocks_end_does_not_matter(monkeypatch, block):
    monkeypatch.setattr(_json, "_BLOCK", block)
    values = [{"a": [1, 2, {"b": "x]}"}]}, 12, -1.5e10, "te\\u0078t", True, None, [], {}]
    text = json.dumps({"first": 123, "data": [{}, *values], "last": 0}, indent=1)
    assert [(n, v) for n, _, v in _json.elements(io.StringIO(text))] == list(enumerate([{}, *values], 1))
    assert [json.loads(raw) for _, raw, _ in _json.elements(io.StringIO(text))] == [{}, *values]
    assert not _json.is_lines(io.StringIO(text))
    assert _json.is_lines(io.StringIO('{"a": [1]} \n {"a": 1}'))


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path):
    path = tmp_path / "t.json"
    with path.open("w") as file:
        file.write("[")
        for i in range(40_000):
            file.write(f'{", " if i else ""}{{"text": "{"word " * 100}{i}", "label": "{i % 3}"}}')
        file.write("]")
    size = path.stat().st_size
    tracemalloc.start()
    count = sum(1 for _ in READERS[".json"](str(path)).rows())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert most < size / 2


def test_in_a_folder_they_are_data_only_by_their_split_and_alone(tmp_path):
    write(tmp_path / "a", {"train.json": json.dumps(OBJECTS[:6]), "test.json": json.dumps(OBJECTS[6:])})
    data = sources.read(tmp_path / "a")
    assert (len(data.rows_of("train")), len(data.rows_of("test"))) == (6, 2)
    assert not data.skipped
    write(tmp_path / "b", {"train.csv": "text,label\nI like it,a\nI do not,b\n", "info.json": "{}", "train.json": "{}"})
    data = sources.read(tmp_path / "b")
    assert len(data) == 2
    assert {s.item for s in data.skipped} == {"info.json", "train.json"}
    write(tmp_path / "c", {"info.json": json.dumps(OBJECTS)})
    with pytest.raises(BadData, match=r"among 1 other files, e.g. info.json"):
        sources.read(tmp_path / "c")


def test_images_by_their_paths(tmp_path, photos):
    rows = [{"path": str(path), "label": path.parent.name} for path in sorted(photos.rglob("*.png"))]
    data = sources.read(one(tmp_path, json.dumps(rows), "t.json"))
    assert data.modality == "image"
    assert len(data) == 60
    assert data.labels == ("amber", "moss", "slate")


@pytest.mark.slow
def test_from_door_to_door(tmp_path):
    rows = [{"text": f"{text}, number {i}", "label": label} for i in range(8) for text, label in ROWS]
    path = one(tmp_path, json.dumps(rows), "reviews.json")
    runner = CliRunner()
    done = runner.invoke(app, ["fit", path, "--steps", "majority,ngrams", "--out", str(tmp_path / "m"), "--quiet"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["predict", str(tmp_path / "m"), path, "--csv"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 65
    write(tmp_path, {"cut.json": json.dumps(rows)[:2000]})
    done = runner.invoke(app, ["fit", str(tmp_path / "cut.json"), "--out", str(tmp_path / "n")])
    assert done.exit_code != 0
    assert len(done.output.strip().splitlines()) <= 2
