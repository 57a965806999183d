"""Tables, lines and folders of texts, in miniature."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.modalities.text import PAIR

SHARED = Path(__file__).parents[3] / "shared/data"
BROKEN = SHARED / "broken"
needs_broken = pytest.mark.skipif(not BROKEN.is_dir(), reason=f"{BROKEN} is not here")

GOOD = ["what a fine film", "I liked it a lot", "the best of the year", "a joy from start to end"]
BAD = ["what a dull film", "I left after an hour", "the worst of the year", "a pain from start to end"]
ROWS = [(text, label) for pair in zip(GOOD, BAD, strict=True) for text, label in zip(pair, ("pos", "neg"), strict=True)]
TABLE = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def one(folder, content, name="t.csv"):
    return write(folder, {name: content}) + "/" + name


def labelled(data):
    targets = data.table["target"].to_pylist()
    words = [[data.labels[c] for c in t] if data.multilabel else t if t is None else data.labels[t] for t in targets]
    return dict(zip(data.inputs(), words, strict=True))


def splits(data):
    return dict(zip(data.inputs(), data.table["split"].to_pylist(), strict=True))


def said(data):
    return " | ".join(data.notes)


def test_a_table_of_texts(tmp_path):
    data = sources.read(one(tmp_path, TABLE))
    assert data.modality == sources.modality(tmp_path / "t.csv") == "text"
    assert labelled(data) == dict(ROWS)
    assert data.table.column_names == ["item", "text", "target", "split"]
    assert data.table["item"].to_pylist()[:2] == ["t.csv line 2", "t.csv line 3"]
    assert data.root == str(tmp_path)
    assert "text column 'text'" in said(data)
    assert "label column 'label'" in said(data)


@pytest.mark.parametrize("name", ["t.tsv", "t.jsonl", "t.parquet", "t.csv"])
def test_the_same_texts_in_every_kind(tmp_path, name):
    rows = [{"review": f"{text}, really", "stars": label, "id": i} for i, (text, label) in enumerate(ROWS)]
    if name == "t.parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        tsv = "review\tstars\tid\n" + "".join(f"{r['review']}\t{r['stars']}\t{r['id']}\n" for r in rows)
        lines = "\n".join(map(json.dumps, rows))
        one(tmp_path, {"t.tsv": tsv, "t.jsonl": lines, "t.csv": tsv.replace("\t", ";")}[name], name)
    assert labelled(sources.read(tmp_path / name)) == {f"{text}, really": label for text, label in ROWS}


def test_columns_without_telling_names_and_named_ones(tmp_path):
    text = "a,b,c,part\n" + "".join(
        f"{i},{t},{label},{('train', 'test')[i % 2]}\n" for i, (t, label) in enumerate(ROWS)
    )
    data = sources.read(one(tmp_path, text))
    assert labelled(data) == dict(ROWS)
    assert "text column 'b': the only one with text" in said(data)
    named = sources.read(tmp_path / "t.csv", item_column="c", label_column="a", split_column="part", separator="")
    assert named.inputs()[:2] == ["pos", "neg"]
    assert named.table["split"].to_pylist()[:2] == ["train", "test"]
    with pytest.raises(BadSetting, match=r"no column 'x'\. Its columns: a, b, c, part"):
        sources.read(tmp_path / "t.csv", item_column="x")


def test_pairs(tmp_path):
    text = "premise,hypothesis,label\nit rains,it is wet,yes\nit rains,it is dry,no\nthe sun is up,,yes\n"
    data = sources.read(one(tmp_path, text))
    assert labelled(data) == {f"it rains{PAIR}it is wet": "yes", f"it rains{PAIR}it is dry": "no"}
    assert [(s.item, s.reason) for s in data.skipped] == [("t.csv line 4", "no text")]
    assert "a pair" in said(data)
    other = sources.read(one(tmp_path, "x,y,z\n" + text.split("\n", 1)[1]), item_column="y, x", label_column="z")
    assert other.inputs()[0] == f"it is wet{PAIR}it rains"
    alone = sources.read(one(tmp_path, text), item_column="premise", label_column="label")
    assert alone.inputs() == ["it rains", "it rains", "the sun is up"]
    with pytest.raises(BadSetting, match="no column 'w'"):
        sources.read(tmp_path / "t.csv", item_column="premise,w")
    with pytest.raises(BadSetting, match="names 3 columns"):
        sources.read(tmp_path / "t.csv", item_column="premise,hypothesis,label")
    marked = sources.read(one(tmp_path, json.dumps({"text": f"one{PAIR}two", "label": "x"}), "m.jsonl"))
    assert marked.inputs() == ["one two"]


def test_several_labels(tmp_path):
    text = "text,label\n" + "".join(f"film number {i} of many,{('a|b', 'b', 'a|c')[i % 3]}\n" for i in range(9))
    data = sources.read(one(tmp_path, text))
    assert data.multilabel
    assert data.labels == ("a", "b", "c")
    assert data.targets()[:3].tolist() == [[True, True, False], [False, True, False], [True, False, True]]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv"])
def test_tables_without_a_header(tmp_path, name):
    mark = "\t" if name == "t.tsv" else ","
    rows = "".join(f"{text}{mark}{int(label == 'pos')}\n" for text, label in ROWS)
    data = sources.read(one(tmp_path, rows, name))
    assert labelled(data) == {text: str(int(label == "pos")) for text, label in ROWS}
    assert "no header" in said(data)
    words = sources.read(one(tmp_path, "".join(f"{label}{mark}{text}\n" for text, label in ROWS), name))
    assert labelled(words) == dict(ROWS)
    assert words.table["item"][0].as_py() == f"{name} line 1"
    named = sources.read(one(tmp_path, "text\tlabel\n" + rows.replace(",", "\t"), "n.tsv"))
    assert len(named) == len(ROWS)


def test_quotation_marks_of_tsv_belong_to_the_text(tmp_path):
    rows = 'text\tlabel\n"Great\tpos\nso "so"\tneg\n"no" way\tneg\n'
    assert list(labelled(sources.read(one(tmp_path, rows, "t.tsv")))) == ['"Great', 'so "so"', '"no" way']
    quoted = 'text\tlabel\n"a ""good"" one\nin two lines"\tpos\n"a bad one"\tneg\n'
    assert list(labelled(sources.read(one(tmp_path, quoted, "q.tsv")))) == ['a "good" one\nin two lines', "a bad one"]


def test_a_table_for_every_split(tmp_path):
    files = {
        "train.csv": TABLE,
        "dev.csv": "text,label\nso so,pos\n",
        "test.csv": "label,id,text\nneg,1,not good\nneg,2,\n",
        "README.md": "about",
        "notes.csv": "text,label\nx,y\n",
    }
    data = sources.read(write(tmp_path / "set", files))
    assert splits(data) == {**{text: "train" for text, _ in ROWS}, "so so": "val", "not good": "test"}
    assert data.table["item"].to_pylist()[-1] == "test.csv line 2"
    assert {s.item for s in data.skipped} == {"README.md", "notes.csv", "test.csv line 3"}
    write(tmp_path / "set", {"test.csv": "text\nno labels here\n"})
    assert "no label column" in {s.item: s.reason for s in sources.read(tmp_path / "set").skipped}["test.csv"]
    write(tmp_path / "set", {"test.csv": "words,label\nno labels here,x\n"})
    with pytest.raises(BadData, match="no column 'text' as the training file has"):
        sources.read(tmp_path / "set")


def test_parts_of_a_split_and_other_kinds(tmp_path):
    half = [{"text": text, "label": label} for text, label in ROWS]
    (tmp_path / "data").mkdir()
    for name, rows in {"train-00000-of-00002": half[:4], "train-00001-of-00002": half[4:], "test-0": half[:1]}.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{name}.parquet")
    one(tmp_path / "data", TABLE, "train.csv")
    data = sources.read(tmp_path)
    assert data.table["split"].to_pylist() == ["train"] * 8 + ["test"]
    assert data.skipped[0].item == "data/train.csv"
    assert "looked inside" in said(data)


def test_one_table_in_a_folder_and_several(tmp_path):
    write(tmp_path / "one", {"all.csv": TABLE, "SOURCE.md": "x"})
    data = sources.read(tmp_path / "one")
    assert labelled(data) == dict(ROWS)
    assert set(splits(data).values()) == {None}
    assert data.name == "one"
    write(tmp_path / "two", {"films.csv": TABLE, "books.csv": TABLE})
    with pytest.raises(
        BadData, match=r"several tables and none is called train \(books.csv, films.csv\). Name one, e.g."
    ):
        sources.read(tmp_path / "two")


def test_lines_with_labels_in_front(tmp_path):
    trec = {
        "train_55.label": "".join(f"{label.upper()}:fine{i % 3} {text} ?\n" for i, (text, label) in enumerate(ROWS)),
        "TEST_1.label": b"POS:fine0 caf\xe9 au lait ?\n" + b"NEG:fine1 nothing\n" * 99 + b"wrong\n",
    }
    data = sources.read(write(tmp_path / "trec", {**trec, "SOURCE.md": "x"}))
    assert labelled(data)["what a fine film ?"] == "POS"
    assert splits(data)["café au lait ?"] == "test"
    assert "Western" in said(data)
    assert data.skipped[-1].reason == "no COARSE:fine in front of the text"
    fine = sources.read(tmp_path / "trec", label_column="fine")
    assert fine.labels == tuple(sorted({f"{r[1].upper()}:fine{i % 3}" for i, r in enumerate(ROWS)}))
    write(tmp_path / "trec2", {"train_55.label": trec["train_55.label"], "TREC_10.label": trec["TEST_1.label"]})
    assert "'TREC_10.label' is taken for the test set" in said(sources.read(tmp_path / "trec2"))

    fast = "".join(f"__label__{label} {text}\n" for text, label in ROWS)
    assert labelled(sources.read(one(tmp_path, fast, "f.txt"))) == dict(ROWS)
    several = fast + "__label__pos __label__new it is new\n"
    assert labelled(sources.read(one(tmp_path, several, "f.txt")))["it is new"] == ["pos", "new"]
    number = "".join(f"{int(label == 'pos')} {text}\n" for text, label in ROWS)
    assert labelled(sources.read(one(tmp_path, number, "n.txt")))["what a dull film"] == "0"
    tabs = "".join(f"{label}\t{text}\n" for text, label in ROWS)
    assert labelled(sources.read(one(tmp_path, tabs, "t.train.txt"))) == dict(ROWS)


@pytest.mark.parametrize(
    ("good", "bad"), [("rt.pos", "rt.neg"), ("pos.txt", "neg.txt"), ("film_pos_all.txt", "film_neg_all.txt")]
)
def test_a_file_for_every_class(tmp_path, good, bad):
    data = sources.read(write(tmp_path, {good: "\n".join(GOOD) + "\n\n", bad: "\n".join(BAD), "SOURCE.md": "x"}))
    assert labelled(data) == dict(ROWS)
    assert data.table["item"].to_pylist()[0].endswith("line 1")
    assert "the file is the label" in said(data)


def test_a_file_for_every_class_and_split(tmp_path):
    files = {
        f"{split}.{label}": "\n".join(f"{split} {t}" for t in texts)
        for split in ("train", "test")
        for label, texts in (("pos", GOOD), ("neg", BAD))
    }
    data = sources.read(write(tmp_path, files))
    assert data.labels == ("neg", "pos")
    assert splits(data)[f"test {BAD[0]}"] == "test"
    assert labelled(data)[f"test {BAD[0]}"] == "neg"


def test_review_blocks_that_look_like_xml(tmp_path):
    def block(text):
        return f"<review>\n<title>\nA title\n</title>\n<review_text>\n{text}\n\nmore <b>\n</review_text>\n</review>\n"

    files = {f"{name}.review": "".join(map(block, texts)) for name, texts in (("positive", GOOD), ("negative", BAD))}
    data = sources.read(write(tmp_path, files))
    assert labelled(data)[f"{GOOD[1]}\n\nmore <b>"] == "positive"
    assert data.table["item"].to_pylist()[:2] == ["negative.review line 1", "negative.review line 11"]


def test_several_sets_beside_each_other(tmp_path):
    for name in ("MR", "CR"):
        write(tmp_path / "sets" / name, {"x.pos": "\n".join(GOOD), "x.neg": "\n".join(BAD)})
    with pytest.raises(BadData, match=r"holds several sets of texts \(CR, MR\). Name one, e.g. .*sets/CR"):
        sources.read(tmp_path / "sets")


def test_a_folder_of_files_for_every_class(tmp_path):
    files = {f"{label}/{i}.txt": text for i, (text, label) in enumerate(ROWS)}
    data = sources.read(write(tmp_path / "plain", files | {"readme.txt": "about", "pos/x.pdf": "x", "neg/e.txt": ""}))
    assert labelled(data) == dict(ROWS)
    assert data.table["item"].to_pylist()[0] == "neg/1.txt"
    assert {s.item: s.reason for s in data.skipped} == {
        "readme.txt": "about the data, not one of its texts",
        "pos/x.pdf": "not a text (.pdf)",
        "neg/e.txt": "empty file (0 bytes)",
    }
    both = {f"{side}/{name}": f"{side} {text}" for side in ("train", "test") for name, text in files.items()}
    data = sources.read(write(tmp_path / "split", both | {"train/unsup/1.txt": "whatever", "train/urls_pos.txt": "x"}))
    assert data.labels == ("neg", "pos")
    assert splits(data)[f"test {GOOD[0]}"] == "test"
    assert labelled(data)["whatever"] is None
    assert sources.modality(tmp_path / "split") == "text"
    news = {
        f"news-by-{side}/{label}.x/{i}00": f"{side} {i}" for side in ("train", "test") for label in "ab" for i in "12"
    }
    data = sources.read(write(tmp_path / "news", news))
    assert (data.labels, splits(data)["test 1"]) == (("a.x", "b.x"), "test")


def test_images_win(tmp_path):
    write(tmp_path, {"cat/1.txt": "a", "cat/2.txt": "b", "dog/1.txt": "c", "dog/1.jpg": "x", "train.csv": TABLE})
    assert sources.modality(tmp_path) == "image"
    assert sources.read(tmp_path).labels == ("dog",)
    table = one(tmp_path, "path,text\ndog/1.jpg,a dog in the sun\ndog/1.jpg,again a dog\n", "captions.csv")
    assert sources.modality(table) == "image"
    assert sources.modality(table, item_column="text") == "text"
    assert [sources.modality(uri) for uri in ("fractals:", "/nowhere", one(tmp_path, "", "e.csv"))] == ["image"] * 3


def test_texts_without_labels(tmp_path):
    path = one(tmp_path, "one text\n\nanother one\n", "texts.txt")
    data = sources.read(path)
    assert data.inputs() == ["one text", "another one"]
    assert data.table["item"].to_pylist() == ["texts.txt line 1", "texts.txt line 3"]
    assert data.table["target"].to_pylist() == [None, None]
    assert sources.read(tmp_path).inputs() == data.inputs()
    assert list(sources.texts(path)) == list(sources.texts(tmp_path)) == data.inputs()


def test_a_stream_of_texts(tmp_path):
    write(tmp_path / "t", {"train.csv": TABLE, "test.csv": TABLE})
    assert list(sources.texts(tmp_path / "t")) == [text for text, _ in ROWS] * 2
    write(tmp_path / "d", {"a/1.txt": "one\ntwo", "b/2.txt": b"\0\0\1", "b/3.txt": "three"})
    skipped = []
    assert list(sources.texts(tmp_path / "d", skipped)) == ["one\ntwo", "three"]
    assert [s.item for s in skipped] == ["b/2.txt"]
    write(tmp_path / "deep", {"x/y/1.txt": "one\ntwo", "x/2.txt": "three", "x/v/w/z.csv": "text,label\nfour,1\n"})
    assert sorted(sources.texts(tmp_path / "deep")) == ["four", "one", "three", "two"]
    write(tmp_path / "deep", {"x/z.csv": "width\n5\n", "README.md": "about"})
    skipped.clear()
    assert len(list(sources.texts(tmp_path / "deep", skipped))) == 4
    assert [s.item for s in skipped] == ["z.csv"]
    endless = sources.texts(one(tmp_path, "line\n" * 100_000, "long.txt"))
    assert next(endless) == "line"
    with pytest.raises(BadData, match="does not exist"):
        next(sources.texts(tmp_path / "nowhere"))
    (tmp_path / "void").mkdir()
    with pytest.raises(BadData, match="no text in this folder"):
        next(sources.texts(tmp_path / "void"))


def test_long_rows_are_read(tmp_path):
    long = "word " * 40_000
    data = sources.read(one(tmp_path, f"text,label\n{long},a\nshort one,b\n"))
    assert [len(text) for text in data.inputs()] == [len(long) - 1, 9]
    endless = sources.read(one(tmp_path, f'text,label\nshort one,b\n"{"word " * 900_000}\nshort two,a\n'))
    assert endless.inputs() == ["short one", "short two"]  # it goes on below
    assert "a cell of over 4,194,304 characters (line 3)" in endless.skipped[0].reason
    assert len(sources.read(one(tmp_path, f"{long}\nshort\n", "l.txt")).inputs()[0]) == len(long) - 1


def test_damaged_lines_are_left_out_and_named(tmp_path):
    lines = ["text,label", "café,a", "thé,b", "na\xefve,a", "plain,b"]
    data = b"\n".join(line.encode("latin-1" if "\xef" in line else "utf-8") for line in lines)
    read = sources.read(one(tmp_path, data))
    assert labelled(read) == {"café": "a", "thé": "b", "plain": "b"}
    assert [(s.item, s.reason) for s in read.skipped] == [("t.csv line 4", "not valid UTF-8")]
    assert "1 line is not valid UTF-8" in said(read)
    lone = '{"text": "half \\ud83d", "label": "a"}\n{"text": "whole", "label": "b"}\n'
    read = sources.read(one(tmp_path, lone, "t.jsonl"))
    assert [(s.item, s.reason) for s in read.skipped] == [
        ("t.jsonl line 1", "holds half a surrogate pair, which is no text")
    ]
    assert sources.read(one(tmp_path, b"fine\nbro\0ken\n", "t.txt")).skipped[0].reason == "holds a NUL byte"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", "wer weiß"),
        ("utf-8-sig", "wer weiß"),
        ("gb18030", "你好，世界，这是一个测试"),
        ("cp1252", "wer weiß das schon"),
    ],
)
def test_encodings(tmp_path, encoding, text):
    table = f"text,label\n{text},a\n{text}!,b\n"
    assert sources.read(one(tmp_path, table.encode(encoding))).inputs() == [text, f"{text}!"]
    files = {f"{label}/{i}.txt": f"{text} {label}".encode(encoding) for i, label in enumerate("ab")}
    assert sources.read(write(tmp_path / "files", files)).inputs() == [f"{text} a", f"{text} b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nПривет как дела,a\nхорошо,b\n".encode("cp1251"), "neither UTF-8"),
        ("text,label\nthé,a\n".encode() + "café,a\ncrème,b\n".encode("latin-1"), "mixes encodings, 1 lines are UTF-8"),
        (b"text,label\nfine,a\nbro\0ken,b\n", "line 3: holds NUL bytes"),
        (b"width,height\n1,2\n1,2\n", r"no column holds image files, texts or numbers \(columns: width, height\)"),
        (b"path,label\na/1.wav,x\na/2.wav,y\n", "no column holds image files, texts or numbers"),
        ("text,label\n" + "".join(f"text {i},a whole sentence {i}\n" for i in range(40)), "looks like free text"),
        (b'text,label\nfine,"=HYPERLINK(1)"\n', "line 2: the label .* is a spreadsheet formula"),
    ],
)
def test_hopeless_tables_get_one_line(tmp_path, content, message):
    with pytest.raises(BadData, match=message) as caught:
        sources.read(one(tmp_path, content))
    assert "\n" not in str(caught.value)


@needs_broken
def test_fates_of_broken_texts():
    tables = BROKEN / "tables"
    assert len(sources.read(tables / "bom.csv")) == 6
    chinese = sources.read(tables / "gb18030.csv")
    assert (len(chinese), chinese.labels) == (41, ("问句", "陈述"))
    assert any("㛃" in text for text in chinese.inputs())
    for name, reason in {"ragged_long": "3 fields, expected 2", "ragged_short": "1 fields, expected 2"}.items():
        data = sources.read(tables / f"{name}.csv")
        assert [(s.item, s.reason) for s in data.skipped] == [(f"{name}.csv line 4", reason)]
    cut = sources.read(BROKEN / "text/one_invalid_line.jsonl")
    assert len(cut) == 5
    assert cut.skipped[0].item == "one_invalid_line.jsonl line 3"


REAL = {  # rows by split, labels
    "sst2": ({"train": 6920, "val": 872, "test": 1821}, 2),
    "trec": ({"train": 5452, "test": 500}, 6),
    "banking77": ({"train": 10003, "test": 3080}, 77),
    "sentpol/CR": ({None: 3771}, 2),
    "sentpol/SUBJ": ({None: 10000}, 2),
    "chnsenticorp_htl": ({None: 7765}, 2),
    "waimai_10k": ({None: 11987}, 2),
    "text_en_imdb_unsup": ({None: 8000}, 0),
    "amazon_multidomain_sentiment/sorted_data_acl/books": ({None: 2000}, 2),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, tmp_path):
    import tarfile
    from collections import Counter

    archive = SHARED / f"{name.split('/')[0]}.tar.gz"
    if not archive.exists():
        pytest.skip(f"{archive} is not here")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    data = sources.read(tmp_path / name)
    assert data.modality == sources.modality(tmp_path / name) == "text"
    assert (dict(Counter(data.table["split"].to_pylist())), len(data.labels)) == REAL[name]


def test_numbers_that_are_asked_for_as_classes(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"text {i},{i / 7}\n" for i in range(40)))
    assert sources.read(tmp_path / "t.csv").numeric
    with pytest.raises(BadData, match=r"holds numbers, not classes: 40 different .*--task text-regression"):
        sources.read(tmp_path / "t.csv", numeric=False)
