"""`topwork predict` on a model of texts: an argument is a text, a file, a folder, a table or lines of input."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from topwork.cli import app, texts
from topwork.errors import BadData

from ..artefact._texts import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "films")


def predict(folder, *arguments, given=None):
    done = CliRunner().invoke(app, ["predict", str(folder), *map(str, arguments)], input=given)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def answers(done):
    return [(one["input"], one["label"]) for one in json.loads(done.stdout)]


def test_a_text_is_a_text(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = predict(folder, "A good film!", "awful", "", "--json")
    assert answers(done)[:2] == [("A good film!", "positive"), ("awful", "negative")]
    assert [one["input"] for one in json.loads(done.stdout)][2] == "input 3"
    assert predict(folder, "A good film!").stdout.startswith("A good film!\tpositive 0.")
    csv = predict(folder, 'say "good", now', "--csv").stdout.splitlines()
    assert csv[0] == "input,label,probability"
    assert csv[1].startswith('"say ""good"", now",positive,0.')


def test_a_file_that_is_there_is_one_text(folder, tmp_path):
    path = tmp_path / "review.txt"
    path.write_bytes("A good film!\nReally, 好.".encode("utf-16"))
    (other := tmp_path / "NOTES").write_text("awful")
    assert answers(predict(folder, path, other, "--json")) == [(str(path), "positive"), (str(other), "negative")]
    path.write_text("good\n" * 30)
    done = predict(folder, path)
    assert f"topwork predict MODEL - < {path}" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_folder_is_its_text_files(folder, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name, text in {"b.txt": "bad", "a.TXT": "good", "deep/c.txt": "great", "d.md": "x"}.items():
        (tmp_path / "in" / name).write_text(text)
    found = answers(predict(folder, tmp_path / "in", "--json"))
    assert [(path.rpartition("in/")[2], label) for path, label in found] == [
        ("a.TXT", "positive"),
        ("b.txt", "negative"),
        ("deep/c.txt", "positive"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match=r"no \.txt file"):
        predict(folder, tmp_path / "empty")


def test_a_table_is_a_text_a_row(folder, tmp_path):
    table = tmp_path / "reviews.csv"
    table.write_text('id,review,stars\n1,"A good, good film",5\n2,What an awful film,\n3,Not bad at all,2\n')
    done = predict(folder, table, "--json")
    assert [text for text, _ in answers(done)] == ["A good, good film", "What an awful film", "Not bad at all"]
    assert done.stderr == ""
    table.write_text("one,two\nA good film,an awful film\nA great film,a bad film\n")
    first, second = (predict(folder, table, "--item-column", name, "--json") for name in ("one", "two"))
    assert [label for _, label in answers(first)] == ["positive"] * 2
    assert [label for _, label in answers(second)] == ["negative"] * 2


def test_input_is_a_text_a_line(folder):
    given = b"\xef\xbb\xbfA good film!\r\n\nawful\ncaf\xe9\nlast one is good"
    done = predict(folder, "-", "--json", given=given)
    found = answers(done)
    assert [label for _, label in found] == ["positive", found[1][1], "negative", "positive"]
    assert found[0][0] == "A good film!"
    assert found[1][0] == "input 2"  # an empty line is an empty text: answers stay beside their lines
    assert "topwork: skipped input 4: not UTF-8: byte 4 is 0xe9" in done.stderr


def test_a_file_that_is_not_there_is_no_text(folder, tmp_path):
    done = predict(folder, tmp_path / "nowhere.txt", "good", "--json")
    assert "nowhere.txt: cannot be read: No such file" in done.stderr
    assert len(answers(done)) == 1
    with pytest.raises(BadData, match="None of the 1 inputs"):
        predict(folder, "nowhere.csv")
    with pytest.raises(BadData, match="None of the 0 inputs"):
        predict(folder, "-", given=b"")
    assert len(answers(predict(folder, "I read it in notes.txt", "--json"))) == 1


def test_bytes_that_are_no_text_are_skipped(folder, tmp_path):
    (tmp_path / "bad.txt").write_bytes("добрый фильм ".encode("cp1251") * 9)
    (tmp_path / "empty.txt").write_bytes(b"")
    done = predict(folder, tmp_path, "--json")
    assert f"skipped {tmp_path / 'bad.txt'}: " in done.stderr
    assert [path for path, _ in answers(done)] == [str(tmp_path / "empty.txt")]


def test_help_says_what_an_argument_means():
    done = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "200"})
    for words in ("a text in quotation marks", "a file that is one text", "folder of .txt files", "a text a line"):
        assert words in " ".join(done.output.replace("│", " ").split())


def test_predicting_a_text_loads_nothing_heavy(folder):
    code = "import sys; from topwork.cli import app\ntry: app()\nexcept SystemExit: print(*sys.modules)"
    words = [sys.executable, "-c", code, "predict", str(folder), "A good film!"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("A good film!\tpositive")
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "tokenizers", "pyarrow", "sklearn", "scipy", "onnx", "lmdb"}


def test_lines_are_text_or_the_bytes_that_are_none():
    assert list(texts.lines([b"\xef\xbb\xbfone\n", b"\xef\xbb\xbftwo\r\n", b"\xff\n", b""])) == [
        "one",
        "\ufefftwo",
        b"\xff",
        "",
    ]
