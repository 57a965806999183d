import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.sources.table import Table

BROKEN = Path(__file__).parents[3] / "shared/data/broken"
needs_broken = pytest.mark.skipif(not BROKEN.is_dir(), reason=f"{BROKEN} is not here")


@pytest.fixture
def home(tmp_path):
    (tmp_path / "pics").mkdir()
    for i in range(10):
        (tmp_path / "pics" / f"{i}.jpg").write_bytes(b"x")
    return tmp_path


def write(home, text, name="t.csv", encoding="utf-8"):
    (home / name).write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return str(home / name)


def labelled(data):
    targets = data.table["target"].to_pylist()
    words = [[data.labels[c] for c in t] if data.multilabel else t if t is None else data.labels[t] for t in targets]
    return dict(zip(data.table["item"].to_pylist(), words, strict=True))


LINES = "path,label\npics/0.jpg,cat\npics/1.jpg,dog\npics/2.jpg,cat\n"
PLAIN = {"pics/0.jpg": "cat", "pics/1.jpg": "dog", "pics/2.jpg": "cat"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_told_apart(home, encoding):
    data = sources.read(write(home, LINES, encoding=encoding))
    assert labelled(data) == PLAIN
    assert encoding == "utf-8" or "UTF" in data.notes[0]


def test_chinese_and_western_bytes(home):
    (home / "pics" / "猫.jpg").write_bytes(b"x")
    chinese = sources.read(write(home, "图片,标签\npics/猫.jpg,小猫㛃\npics/1.jpg,小狗\n", encoding="gb18030"))
    assert labelled(chinese) == {"pics/猫.jpg": "小猫㛃", "pics/1.jpg": "小狗"}
    assert "GB18030" in chinese.notes[0]
    with pytest.raises(BadData, match="neither UTF-8, UTF-16 nor GB18030"):
        sources.read(write(home, "path,label\npics/1.jpg,cafés\npics/2.jpg,thés\n", encoding="latin-1"))


@pytest.mark.parametrize(("name", "mark"), [("t.tsv", "\t"), ("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|")])
def test_delimiters(home, name, mark):
    assert labelled(sources.read(write(home, LINES.replace(",", mark), name))) == PLAIN


def test_the_same_rows_in_every_kind(home):
    rows = [{"file": item, "label": label, "n": i} for i, (item, label) in enumerate(PLAIN.items())]
    write(home, "\n".join(map(json.dumps, rows)), "t.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), home / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        data = sources.read(home / name)
        assert labelled(data) == PLAIN
        assert data.root == str(home)
        assert data.labels == ("cat", "dog")
        assert len(data.notes) == 2


def test_columns_are_guessed_and_said(home):
    text = "id,width,photo,what,subset,group\n"
    text += "".join(f"{i},640,pics/{i}.jpg,{'ab'[i % 2]},{['train', 'valid', 'TEST'][i % 3]},g{i}\n" for i in range(9))
    data = sources.read(write(home, text))
    assert data.table["item"].to_pylist() == [f"pics/{i}.jpg" for i in range(9)]
    assert [data.labels[t] for t in data.targets()] == list("ababababa")
    assert data.table["split"].to_pylist() == ["train", "val", "test"] * 3
    assert data.table["group"].to_pylist() == [f"g{i}" for i in range(9)]
    said = " ".join(data.notes)
    assert "item column 'photo': 100% of its values" in said
    assert all(f"column '{name}'" in said for name in ("what", "subset", "group"))


def test_named_columns_win(home):
    text = "a,b,label,part\npics/0.jpg,pics/5.jpg,x,1\npics/1.jpg,pics/6.jpg,y,2\n"
    data = sources.read(write(home, text), item_column="b", label_column="part", group_column="label")
    assert labelled(data) == {"pics/5.jpg": "1", "pics/6.jpg": "2"}
    assert data.table["group"].to_pylist() == ["x", "y"]
    with pytest.raises(BadSetting, match=r"no column 'lable'. Its columns: a, b, label, part"):
        sources.read(home / "t.csv", label_column="lable")


def test_line_numbers_are_an_editors(home):
    text = 'path,label,note\r\npics/0.jpg,cat,"two\r\nlines, ""quoted"""\r\n\r\npics/1.jpg\r\npics/9x.jpg,dog,\r\n'
    text += 'pics/2.jpg,  ,x\r\npics/3.jpg,dog,x,y\r\npics/4.jpg,"d"og,x\r\npics/5.jpg,dog,"never closed\r\n'
    data = sources.read(write(home, text))
    assert labelled(data) == {"pics/0.jpg": "cat"}
    reasons = {s.item: s.reason for s in data.skipped}
    assert reasons == {
        "t.csv line 5": "1 fields, expected 3",
        "t.csv line 6": "pics/9x.jpg does not exist",
        "t.csv line 7": "no label",
        "t.csv line 8": "4 fields, expected 3",
        "t.csv line 9": reasons["t.csv line 9"],
        "t.csv line 10": reasons["t.csv line 10"],
    }
    assert "broken quotes" in reasons["t.csv line 9"]
    assert "broken quotes" in reasons["t.csv line 10"]


def test_lists_mean_several_labels(home):
    rows = [{"path": "pics/0.jpg", "label": ["b", "a", "b"]}, {"path": "pics/1.jpg", "label": []}]
    rows += [{"path": "pics/2.jpg", "label": "c"}, {"path": "pics/3.jpg", "label": None}]
    data = sources.read(write(home, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert data.multilabel
    assert data.targets().tolist() == [[True, True, False], [False] * 3, [False, False, True]]
    assert [s.item for s in data.skipped] == ["t.jsonl line 4"]
    columns = {"path": ["pics/0.jpg", "pics/1.jpg"], "tags": pa.array([["x"], ["x", "y"]])}
    pq.write_table(pa.table(columns), home / "t.parquet")
    assert sources.read(home / "t.parquet").targets().tolist() == [[True, False], [True, True]]
    spelled = sources.read(write(home, "path,label\npics/0.jpg,\"['a', 'b']\"\npics/1.jpg,['b']\n"))
    assert labelled(spelled) == {"pics/0.jpg": ["a", "b"], "pics/1.jpg": ["b"]}


def test_separators_only_where_evident(home):
    several = sources.read(write(home, "path,label\npics/0.jpg,cat|dog\npics/1.jpg,dog\npics/2.jpg,cat|cow\n"))
    assert several.multilabel
    assert labelled(several)["pics/2.jpg"] == ["cat", "cow"]
    assert any("separated by '|'" in note for note in several.notes)
    one = "path,label\npics/0.jpg,A|B\npics/1.jpg,C;D\npics/2.jpg,E|F\n"
    assert sources.read(write(home, one)).labels == ("A|B", "C;D", "E|F")
    assert Table(separator="").read(write(home, "path,label\npics/0.jpg,a|b\npics/1.jpg,b|a\n")).labels == (
        "a|b",
        "b|a",
    )
    assert Table(separator="+").read(write(home, "path,label\npics/0.jpg,a+b\npics/1.jpg,b\n")).multilabel


def test_numbers_become_text(home):
    columns = {"path": [f"pics/{i}.jpg" for i in range(4)], "label": [1.0, 2.0, None, float("nan")]}
    pq.write_table(pa.table(columns), home / "t.parquet")
    data = sources.read(home / "t.parquet")
    assert labelled(data) == {"pics/0.jpg": "1", "pics/1.jpg": "2"}
    assert [s.item for s in data.skipped] == ["t.parquet row 3", "t.parquet row 4"]


def test_without_labels_and_without_header(home):
    data = sources.read(write(home, "path\npics/0.jpg\npics/1.jpg\n"))
    assert data.labels == ()
    assert data.targets().tolist() == [-1, -1]
    bare = sources.read(write(home, "pics/0.jpg,cat\npics/1.jpg,dog\n"))
    assert labelled(bare) == {"pics/0.jpg": "cat", "pics/1.jpg": "dog"}
    assert any("no header" in note for note in bare.notes)


def test_where_the_files_lie(home):
    data = sources.read(write(home, "path,label\n0.jpg,cat\n1.jpg,dog\n"))
    assert data.root == str(home / "pics")
    assert any("'pics' beside the table" in note for note in data.notes)
    windows = sources.read(write(home, "path,label\npics\\0.jpg,cat\npics\\1.jpg,dog\n"))
    assert labelled(windows) == {"pics/0.jpg": "cat", "pics/1.jpg": "dog"}
    absolute = sources.read(write(home, f"path,label\n{home}/pics/0.jpg,cat\npics/1.jpg,dog\n"))
    assert absolute.paths() == [str(home / "pics/0.jpg"), str(home / "pics/1.jpg")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "0 bytes"),
        ("t.csv", b"path,label\n", "a header and no rows"),
        ("t.csv", b"path,label\n\n\n", "a header and no rows"),
        ("t.csv", b"path,path\npics/0.jpg,x\n", "two columns are called 'path'"),
        ("t.csv", b"path,label\npics/0.jpg,cat\npics/1.jpg,d\0g\n", "line 3: holds NUL bytes"),
        ("t.csv", b"width,label\n3,cat\n", r"no column holds image files, texts or numbers \(columns: width, label\)"),
        ("t.csv", b"path,label\nno/0.jpg,cat\nno/1.jpg,dog\n", "no usable row of 2, e.g. t.csv line 2: no/0.jpg does"),
        ("t.csv", b"path,label\nftp://x.org/0.jpg,cat\n", "an address of a kind that cannot be read"),
        ("t.csv", b'path,label\npics/0.jpg,"=HYPERLINK(""x"")"\n', "line 2: the label .* is a spreadsheet formula"),
        ("t.csv", b"path,label\npics/0.jpg,+cmd|' /C calc'!A0\n", "spreadsheet formula"),
        ("t.csv", b"path,label\n\xff\xfe\x80\x80pics/0.jpg,cat\n", "neither UTF-8"),
        ("t.jsonl", b"nonsense\n", "no JSON object"),
        ("t.jsonl", b'{"path": 3, "label": "x"}\n', "no column holds image files"),
        ("t.parquet", b"PAR1 but no more", "not a Parquet file"),
    ],
)
def test_hopeless_tables_get_one_line(home, name, content, message):
    with pytest.raises(BadData, match=message) as caught:
        sources.read(write(home, content, name))
    assert "\n" not in str(caught.value)


def test_signs_are_labels(home):
    assert sources.read(write(home, "path,label\npics/0.jpg,-1\npics/1.jpg,+1\n")).labels == ("+1", "-1")


def test_images_inside_a_table_are_refused_with_the_reason(home):
    pq.write_table(pa.table({"image": [{"bytes": b"x", "path": "a"}], "label": [1]}), home / "t.parquet")
    with pytest.raises(BadData, match="written out as files"):
        sources.read(home / "t.parquet")


def test_bad_rows_of_jsonl(home):
    text = '{"path": "pics/0.jpg", "label": "a"}\n{"path": "pics/1\n[1]\n\n{"path": "pics/2.jpg", "label": {"x": 1}}\n'
    data = sources.read(
        write(home, text + '{"path": "pics/3.jpg", "label": "b"}\n{"path": 7, "label": "b"}', "t.jsonl")
    )
    assert labelled(data) == {"pics/0.jpg": "a", "pics/3.jpg": "b"}
    assert [s.item for s in data.skipped] == [f"t.jsonl line {n}" for n in (2, 3, 5, 7)]


def test_unknown_words_in_a_named_split_column(home):
    text = "path,label,part\npics/0.jpg,a,train\npics/1.jpg,b,later\npics/2.jpg,b,\n"
    data = sources.read(write(home, text), split_column="part")
    assert data.table["split"].to_pylist() == ["train", None]
    assert data.skipped[0].reason == "split 'later', expected train, val or test"


def test_many_rows_need_little(home):
    text = "path,label\n" + "".join(f"pics/{i % 10}.jpg,c{i % 7}\n" for i in range(70_000))
    data = sources.read(write(home, text))
    assert len(data) == 70_000
    assert data.table["item"].num_chunks == 2
    assert data.table.nbytes < 2_000_000


@needs_broken
def test_fates_of_the_broken_tables():
    tables = BROKEN / "tables"
    data = sources.read(tables / "empty_label_missing_file.csv")
    assert labelled(data) == {"pics/a.jpg": "card", "pics/c.jpg": "cell"}
    assert [(s.item, s.reason) for s in data.skipped] == [
        ("empty_label_missing_file.csv line 3", "no label"),
        ("empty_label_missing_file.csv line 4", "pics/does_not_exist.jpg does not exist"),
    ]
    assert len(sources.read(BROKEN / "names/names.csv")) == 3
    for name in ("ragged_long", "ragged_short"):  # the rows themselves, as an image table would meet them
        from topwork.sources._rows import READERS

        bad = [
            (line, cells)
            for line, cells in READERS[".csv"](str(tables / f"{name}.csv")).rows()
            if isinstance(cells, str)
        ]
        assert [line for line, _ in bad] == [4]
