"""Tables with a column of zeros and ones for each label."""

import pytest

from topwork import verbs
from topwork.errors import BadSetting

ROWS = [("you are great", 0, 0), ("you fool", 1, 1), ("I will find you", "true", "no"), ("hm", "?", 0)]


def table(folder, ending=","):
    lines = [ending.join(map(str, row)) for row in [("comment", "toxic", "insult"), *ROWS]]
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_texts(tmp_path):
    data = verbs.read(table(tmp_path), label_column="toxic,insult")
    assert data.multilabel
    assert data.labels == ("insult", "toxic")
    assert data.targets().tolist() == [[False, False], [True, True], [False, True]]
    assert [(s.item, s.reason) for s in data.skipped] == [
        ("t.csv line 5", "'?' in column 'toxic', expected 0 or 1"),
    ]


def test_images(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(b"")
    (tmp_path / "t.csv").write_text("path,cat,dog\na.png,1,0\nb.png,0,1\nc.png,1,1\n")
    data = verbs.read(tmp_path / "t.csv", label_column="cat, dog")
    assert data.multilabel
    assert data.targets().tolist() == [[True, False], [False, True], [True, True]]


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(BadSetting, match="has no column 'threat'"):
        verbs.read(table(tmp_path), label_column="toxic,threat")


def test_a_comma_in_a_name_is_a_name(tmp_path):
    (tmp_path / "t.csv").write_text('text,"a,b"\nfine words,x\nother words,y\n')
    assert verbs.read(tmp_path / "t.csv", label_column="a,b").labels == ("x", "y")
