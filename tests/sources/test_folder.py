import os
from pathlib import Path

import pytest

from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.sources import split_of
from topwork.sources.folder import Folder


def plant(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def rows(dataset):
    table = dataset.table.to_pydict()
    names = [dataset.labels[t] for t in table["target"]]
    return list(zip(table["item"], names, table["split"], strict=True))


def test_a_folder_per_class(tmp_path):
    data = sources.read(plant(tmp_path, "dog/2.jpg", "dog/10.PNG", "cat/a/b/1.webp", "cat/3.tiff"))
    assert rows(data) == [
        ("cat/3.tiff", "cat", None),
        ("cat/a/b/1.webp", "cat", None),
        ("dog/10.PNG", "dog", None),
        ("dog/2.jpg", "dog", None),
    ]
    assert data.paths() == [str(tmp_path / item) for item in data.table["item"].to_pylist()]
    assert data.targets().tolist() == [0, 0, 1, 1]
    assert not data.skipped
    assert "first folder level" in data.notes[0]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training_Set", "valid", "test-images"), ("training", "Validation", "Testing")],
)
def test_split_folders(tmp_path, train, val, test):
    files = [f"{folder}/{label}/1.jpg" for folder in (train, val, test) for label in ("a", "b")]
    data = sources.read(plant(tmp_path, *files, "spare/a/9.jpg", "README.md"))
    assert sorted(rows(data)) == sorted(
        (f"{folder}/{label}/1.jpg", label, split)
        for folder, split in ((train, "train"), (val, "val"), (test, "test"))
        for label in ("a", "b")
    )
    assert {s.item for s in data.skipped} == {"spare/", "README.md"}
    assert data.rows_of("test").tolist() == [i for i, row in enumerate(rows(data)) if row[2] == "test"]


def test_names_of_splits():
    known = {"TRAIN": "train", "dev": "val", "test_set": "test", "Test Images": "test", "validation_split": "val"}
    assert {name: split_of(name) for name in known} == known
    assert all(split_of(name) is None for name in ("trainer", "testament", "latest", "trains", "", "cat"))


def test_a_wrapper_is_looked_through_and_said(tmp_path):
    data = sources.read(plant(tmp_path, "SOURCE.md", "deep/flowers/rose/1.jpg", "deep/flowers/tulip/1.jpg", "src/a.py"))
    assert data.labels == ("rose", "tulip")
    assert sum("looked inside" in note for note in data.notes) == 2
    assert [s.item for s in data.skipped] == ["SOURCE.md"]
    split = sources.read(plant(tmp_path / "split", "train/train/a/1.jpg", "train/train/b/1.jpg", "test/a/2.jpg"))
    assert split.labels == ("a", "b")


def test_one_class_can_be_read(tmp_path):
    assert sources.read(plant(tmp_path, "cat/1.jpg", "cat/2.jpg")).labels == ("cat",)


def test_hidden_and_system_files_are_ignored_and_counted(tmp_path):
    junk = ("a/.DS_Store", "a/Thumbs.db", "__MACOSX/a/._1.jpg", ".git/x.jpg", "a/._1.jpg", "b/thumbnails/1.jpg")
    data = sources.read(plant(tmp_path, "a/1.jpg", "b/1.jpg", *junk))
    assert [row[0] for row in rows(data)] == ["a/1.jpg", "b/1.jpg"]
    assert not data.skipped
    assert "6 hidden or system" in data.notes[0]


def test_what_is_not_used_is_named(tmp_path):
    plant(tmp_path, "a/1.jpg", "a/notes.txt", "b/1.jpg", "b/movie", "loose.jpg", "empty/readme.md")
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    data = sources.read(tmp_path)
    assert {s.item: s.reason for s in data.skipped} == {
        "a/notes.txt": "not an image (.txt)",
        "a/gone.jpg": "a broken link",
        "b/movie": "not an image (no suffix)",
        "b/pipe.jpg": "not an ordinary file",
        "loose.jpg": "not in a class folder",
        "empty/readme.md": "not an image (.md)",
    }
    assert data.labels == ("a", "b")
    assert any("'empty' holds no image" in note for note in data.notes)


def test_names_that_are_no_text(tmp_path):
    plant(tmp_path, "a/1.jpg", "b/two words.jpg", "b/中文 😀.jpg")
    with open(os.fsencode(tmp_path) + b"/a/\xff.jpg", "wb"):
        pass
    data = sources.read(tmp_path)
    assert len(data) == 3
    assert [(s.item, s.reason) for s in data.skipped] == [("a/\\xff.jpg", "its name is not valid UTF-8: rename it")]


def test_links_in_a_circle_end(tmp_path):
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert len(sources.items(tmp_path)) == 2
    (tmp_path / "c").symlink_to(tmp_path / "b", target_is_directory=True)
    assert sources.read(tmp_path).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "is empty"),
        (("a/readme.txt",), "no image .* among 1 other files, e.g. a/readme.txt"),
        (("1.jpg", "2.jpg"), "2 images but no class folders"),
        (("train/1.jpg", "test/2.jpg"), "2 images but no class folders"),
        ((".hidden/1.jpg",), "is empty"),
    ],
)
def test_nothing_to_learn_from(tmp_path, files, message):
    with pytest.raises(BadData, match=message) as caught:
        sources.read(plant(tmp_path, *files))
    assert "\n" not in str(caught.value)


def test_the_door(tmp_path):
    with pytest.raises(BadData, match="does not exist"):
        sources.read(tmp_path / "nowhere")
    with pytest.raises(BadData, match=r"a file of another kind \(\.docx\)"):
        sources.read(plant(tmp_path, "x.docx") / "x.docx")
    with pytest.raises(BadData, match="an archive; unpack it"):
        sources.read(plant(tmp_path, "x.7z") / "x.7z")
    with pytest.raises(BadData, match=r"x\.zip: damaged or no archive"):
        sources.read(plant(tmp_path, "x.zip") / "x.zip")
    with pytest.raises(BadSetting, match=r"label_column cannot be used .* read as a folder"):
        sources.read(plant(tmp_path, "a/1.jpg"), label_column="x", item_column=None)


def test_items_of_unlabelled_input(tmp_path):
    plant(tmp_path, "z.jpg", "a/2.png", "a/b/1.gif", "a/x.txt", ".h/1.jpg")
    assert sources.items(tmp_path) == [str(tmp_path / name) for name in ("z.jpg", "a/2.png", "a/b/1.gif")]
    assert sources.items(tmp_path / "a/x.txt") == [str(tmp_path / "a/x.txt")]
    with pytest.raises(BadData, match="does not exist"):
        sources.items(tmp_path / "no.jpg")
    (tmp_path / "void").mkdir()
    with pytest.raises(BadData, match="no image"):
        sources.items(tmp_path / "void")


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "b/locked/2.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    data = Folder().read(str(tmp_path))
    assert [(s.item, s.reason) for s in data.skipped] == [
        ("b/locked/", "this folder cannot be read: Permission denied")
    ]
