"""Words of users and paths of the house."""

import pytest

from topwork.errors import BadData, MissingExtra
from topwork.store import remote
from topwork.store.remote import paths


@pytest.fixture
def kept():
    return {}


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("s3://bucket/photos/", "s3://bucket/photos"),
        ("s3://bucket", "s3://bucket"),
        ("S3A://bucket/a/./b/../c", "s3://bucket/a/c"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("s3://bucket/../../etc/passwd", "s3://bucket/etc/passwd"),
        ("https://host:8080/a%20b/c.csv?download=1#part", "https://host:8080/a%20b/c.csv"),
        ("https://host/image?id=7", "https://host/image?id=7"),
        ("https://me:word@host/a.zip", "https://host/a.zip"),
        ("s3://KEY:se%2Fcret@bucket/a", "s3://bucket/a"),
        ("zip://cats::s3://bucket/p.zip", "s3://bucket/p.zip/cats"),
        ("zip://::s3://bucket/p.zip", "s3://bucket/p.zip"),
        ("tar://a/b::https://me:word@host/p.tar.gz?sig=1", "https://host/p.tar.gz/a/b"),
        ("filecache::s3://bucket/a", "s3://bucket/a"),
        ("file:///tmp/a", "/tmp/a"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
    ],
)
def test_unfold(word, path, kept):
    assert paths.unfold(word, kept.__setitem__) == path
    secrets = {login for login, _ in kept.values()} - {None}
    assert secrets == ({("me", "word")} if "me:" in word else {("KEY", "se/cret")} if "KEY" in word else set())


def test_split_at_an_archive(tmp_path):
    (tmp_path / "a.zip").touch()
    assert paths.split("s3://b/x/p.zip/cats/1.jpg") == ("s3://b/x/p.zip", "cats/1.jpg")
    assert paths.split("s3://b/x/p.TAR.GZ") == ("s3://b/x/p.TAR.GZ", "")
    assert paths.split("s3://b.zip/x") == ("s3://b.zip/x", None)
    assert paths.split(f"{tmp_path}/a.zip/x") == (f"{tmp_path}/a.zip", "x")
    assert paths.split(f"{tmp_path}/b.zip/x") == (f"{tmp_path}/b.zip/x", None)
    assert paths.split("s3://b/not.zipped/x") == ("s3://b/not.zipped/x", None)


@pytest.mark.parametrize(
    ("folder", "item", "path"),
    [
        ("/here", "../a.jpg", "../a.jpg"),
        ("/here", "https://host/a.jpg", "https://host/a.jpg"),
        ("s3://b/t", "x\\a.jpg", "x/a.jpg"),
        ("s3://b/t", "./a.jpg", "a.jpg"),
        ("s3://b/t", "../u/a.jpg", "s3://b/u/a.jpg"),
        ("s3://b/p.zip/t", "../u/a.jpg", "s3://b/p.zip/u/a.jpg"),
    ],
)
def test_items_of_a_table(folder, item, path, kept):
    assert paths.beside(folder, item, kept.__setitem__) == path


@pytest.mark.parametrize(
    "item", ["/etc/passwd", "C:\\a.jpg", "../../a.jpg", "file:///etc/passwd", "ftp://h/a.jpg", "t/../../../a"]
)
def test_items_that_lead_out_of_a_remote_place(item, kept):
    for folder in ("s3://b/t", "https://h/t", "s3://b/p.zip/t"):
        with pytest.raises(BadData):
            paths.beside(folder, item, kept.__setitem__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:word@host/a", "https://***@host/a"),
        ("fit https://host/a.csv?X-Amz-Signature=abc&x=1 --out m", "fit https://host/a.csv?***&x=1 --out m"),
        ("zip://a::s3://KEY:SECRET@b/p.zip", "zip://a::s3://***@b/p.zip"),
        ("see https://host/img?id=7", "see https://host/img?id=7"),
    ],
)
def test_shown_without_secrets(text, shown):
    assert remote.shown(text) == shown


def test_what_is_remote(tmp_path):
    assert remote.is_remote("s3://b")
    assert remote.is_remote("memory://x/y")
    assert not any(
        map(remote.is_remote, ("photos", "/a/b.zip", "postgresql://x", "fractals:classes=3", "What is s3://b?", "a::b"))
    )
    assert remote.welcome(tmp_path) == str(tmp_path)


def test_a_path_object_has_lost_a_slash():
    from pathlib import Path

    assert remote.welcome(Path("s3://bucket/a")) == "s3://bucket/a"


@pytest.mark.parametrize("uri", ["s3://b/x", "https://host/a.csv", "gs://b/x"])
def test_without_the_extra_there_is_one_line(uri, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] in ("fsspec", "s3fs", "gcsfs", "aiohttp"):
            raise ImportError(name)
        return real(name, *rest, **more)

    from topwork import sources

    monkeypatch.setattr(builtins, "__import__", without)
    remote.forget()
    with pytest.raises(
        MissingExtra, match=r"Reading \w+:// needs the 'remote' extra. Install it with: pip install 'topwork\[remote\]'"
    ):
        sources.read(uri)
    remote.forget()


def test_a_package_that_fsspec_needs():
    pytest.importorskip("fsspec")
    from topwork import sources

    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="gs:// needs the package gcsfs: pip install gcsfs"):
            sources.read("gs://bucket/x")
    remote.forget()


def test_memory(photos):
    fsspec = pytest.importorskip("fsspec")
    from topwork import inspect, sources

    files = fsspec.filesystem("memory")
    for path in photos.rglob("*.png"):
        files.pipe_file(f"/shelf/photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    found = sources.read("memory://shelf/photos")
    assert found.table.equals(sources.read(photos).table)
    assert len(inspect(found).dataset) == 60
    remote.forget()
    files.rm("/shelf", recursive=True)
