"""Archives are folders: the same dataset as unpacked; names that lead out, links, bombs and damage do no harm."""

import io
import stat
import tarfile
import warnings
import zipfile

import pytest

import topwork
from topwork import sources
from topwork.errors import BadData, BadSetting
from topwork.modalities.image import read_bytes
from topwork.store import remote
from topwork.store.remote import archives


@pytest.fixture(autouse=True)
def anew():
    yield
    remote.forget()


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def tarred(folder, target, mode):
    with tarfile.open(target, mode) as file:
        file.add(folder, arcname=folder.name)
    return target


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_the_same_dataset_as_unpacked(photos, tmp_path, kind):
    target = tmp_path / f"photos.{kind}"
    if kind == "zip":
        zipped(photos, target)
    else:
        tarred(photos, target, {"tar": "w", "tgz": "w:gz"}.get(kind) or f"w:{kind.split('.')[1]}")
    found, here = sources.read(target), sources.read(photos)
    assert found.name == "photos"
    assert found.labels == here.labels
    assert found.table["target"].equals(here.table["target"])
    assert [read_bytes(path) for path in found.paths()] == [read_bytes(path) for path in here.paths()]
    assert sources.items(f"{target}/moss" if kind == "zip" else f"{target}/photos/moss") == found.paths()[20:40]
    kept = remote.copies().info()["files"]
    assert kept == (
        1 if kind not in ("zip", "tar") else 0
    )  # nothing is unpacked; what is compressed as a whole is, once
    remote.forget()
    sources.read(target)
    assert remote.copies().info()["files"] == kept


def test_features_are_those_of_the_folder(photos, tmp_path, monkeypatch):
    import numpy as np

    there = topwork.extract(zipped(photos, tmp_path / "photos.zip"), engine="onnxruntime")
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "another"))
    assert np.array_equal(there.x, topwork.extract(photos, engine="onnxruntime").x)


def test_texts_and_tables_in_an_archive(tmp_path, photos):
    (tmp_path / "t/pos").mkdir(parents=True)
    (tmp_path / "t/neg").mkdir()
    for i in range(10):
        for label in ("pos", "neg"):
            (tmp_path / "t" / label / f"{i}.txt").write_text(f"{label} {i} text")
    here = sources.read(tmp_path / "t")
    assert sources.read(zipped(tmp_path / "t", tmp_path / "t.zip")).table.equals(here.table)
    (tmp_path / "u").mkdir()
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "u/t.csv").write_text("path,label\n" + "".join(f"p/{n},{n[:2]}\n" for n in names) + "../../x.png,am\n")
    target = zipped(tmp_path / "u", tmp_path / "u.zip")
    with zipfile.ZipFile(target, "a") as file:
        for name in names:
            file.write(photos / name, f"p/{name}")
    found = sources.read(f"zip://t.csv::{target}")
    assert len(found) == 60
    assert found.path(0) == f"{target}/p/amber/00.png"
    assert [s.reason for s in found.skipped] == [f"../../x.png leads out of {target}"]


def test_fsspecs_words(photos, tmp_path):
    target = zipped(photos, tmp_path / "p.zip", "deep/")
    for word in (f"zip://deep::{target}", f"zip://deep/::file://{target}", f"simplecache::zip://deep::{target}"):
        assert remote.welcome(word) == f"{target}/deep"
        assert len(sources.read(word)) == 60
    assert remote.welcome(f"zip://{target}") == str(target)
    for word in (
        f"zip://../x::{target}",
        "zip://a::zip://b::c.zip",
        f"zip://a::{tmp_path}/no.zip",
        "zip://a::s3://b/c.rar",
    ):
        with pytest.raises(BadSetting):
            remote.welcome(word)


def test_names_that_lead_out_links_and_devices(photos, tmp_path):
    picture = next(photos.rglob("*.png")).read_bytes()
    target = zipped(photos, tmp_path / "p.zip")
    with zipfile.ZipFile(target, "a") as file:
        for name in ("../../evil.png", "/etc/evil.png", "C:/evil.png", "moss/../../evil.png"):
            file.writestr(name, picture)
        link = zipfile.ZipInfo("moss/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    found = sources.read(target)
    assert len(found) == 60
    why = {s.item: s.reason for s in found.skipped}
    assert why["../../evil.png"] == why["/etc/evil.png"] == why["C:/evil.png"] == why["moss/../../evil.png"]
    assert why["../../evil.png"] == "its name leads out of the folder: left out"
    assert why["moss/link.png"] == "not an ordinary file"
    assert not list(tmp_path.rglob("evil.png"))
    with pytest.raises(BadData, match="does not exist"):
        remote.read(f"{target}/../../evil.png")

    target = tarred(photos, tmp_path / "p.tar", "w")
    with tarfile.open(target, "a") as file:
        for name, kind in (("photos/moss/l.png", tarfile.SYMTYPE), ("photos/moss/h.png", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            file.addfile(entry)
        entry = tarfile.TarInfo("../evil.png")
        entry.size = len(picture)
        file.addfile(entry, io.BytesIO(picture))
    found = sources.read(target)
    assert len(found) == 60
    assert sorted(s.reason for s in found.skipped) == [
        "its name leads out of the folder: left out",
        *["not an ordinary file"] * 2,
    ]


def test_a_bomb_is_not_unpacked(photos, tmp_path, monkeypatch):
    target = zipped(photos, tmp_path / "p.zip")
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("moss/bomb.png", bytes(50_000_000))
    found = sources.read(target)
    with pytest.raises(BadData, match="too large: 50,000,000 bytes, the limit is 1,000,000"):
        remote.read(f"{found.root}/moss/bomb.png", 1_000_000)
    monkeypatch.setenv("TOPWORK_REMOTE_GB", "0.001")
    (tmp_path / "big").mkdir()
    (tmp_path / "big/bomb.png").write_bytes(bytes(50_000_000))
    with pytest.raises(BadData, match=r"big.tar.gz: does not fit when it is decompressed.* \(TOPWORK_REMOTE_GB\)"):
        sources.read(tarred(tmp_path / "big", tmp_path / "big.tar.gz", "w:gz"))
    assert not [path for path in remote.copies().folder.rglob("*") if path.is_file()]


def test_a_size_that_is_a_lie(photos, tmp_path):
    target = zipped(photos, tmp_path / "p.zip")
    data = bytearray(target.read_bytes())
    at = data.find(b"PK\x01\x02")  # the first entry of the directory: its size, 24 bytes on
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    target.write_bytes(data)
    found = sources.read(target)
    with pytest.raises(BadData, match="damaged in the archive"):
        remote.read(found.path(0))
    assert len(topwork.inspect(found).dataset) == 59


def test_damage_and_passwords(photos, tmp_path):
    target = zipped(photos, tmp_path / "p.zip")
    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"p\.zip: damaged or no archive"):
        sources.read(target)
    target.write_bytes(whole[:200] + bytes(50) + whole[250:])
    remote.forget()
    found = topwork.inspect(target)
    assert len(found.dataset) == 59
    assert "damaged in the archive" in found.dataset.skipped[0].reason
    data = bytearray(whole)
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1  # encrypted
        at += 4
    target.write_bytes(data)
    remote.forget()
    with pytest.raises(BadData, match=r"cannot be read from the archive: .*password"):
        remote.read(sources.read(target).path(0))
    packed = tarred(photos, tmp_path / "q.tar.gz", "w:gz")
    packed.write_bytes(packed.read_bytes()[:-1000])
    with pytest.raises(BadData, match=r"q\.tar\.gz: damaged"):
        sources.read(packed)


def test_an_archive_that_has_changed_is_opened_anew(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("topwork.store.remote.places.FRESH_SECONDS", 0.0)
    target = zipped(photos, tmp_path / "p.zip")
    assert len(sources.read(target)) == 60
    with zipfile.ZipFile(target, "a") as file:
        file.write(next(photos.rglob("*.png")), "moss/more.png")
    assert len(sources.read(target)) == 61


def test_twice_and_backslashes(photos, tmp_path):
    pictures = sorted(photos.rglob("*.png"))
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        warnings.simplefilter("ignore")
        for name, picture in (("a\\1.png", 0), ("b\\2.png", 1), ("b\\2.png", 2)):
            file.writestr(zipfile.ZipInfo(name), pictures[picture].read_bytes())
    found = sources.read(tmp_path / "p.zip")
    assert found.labels == ("a", "b")
    assert remote.read(found.path(1)) == pictures[2].read_bytes()
    assert [s.reason for s in found.skipped] == ["is in the archive twice: the last one is read"]


def test_a_folder_that_is_called_like_an_archive(photos, tmp_path):
    import shutil

    shutil.copytree(photos, tmp_path / "photos.zip")
    assert not remote.is_remote(tmp_path / "photos.zip")
    assert len(sources.read(tmp_path / "photos.zip")) == 60


def test_many_files_at_once(photos, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    for target in (zipped(photos, tmp_path / "p.zip"), tarred(photos, tmp_path / "p.tar", "w")):
        paths = sources.read(target).paths()
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(remote.read, paths * 4))
        assert many == [remote.read(path) for path in paths] * 4


@pytest.mark.parametrize(
    "name", ["", "../a", "a/../b", "/a", "a//b", "a/./b", "\\a", "C:/a", "a\0b", "/".join("a" * 200)]
)
def test_unsafe_names(name):
    assert archives.unsafe(name)


def test_safe_names():
    assert not any(map(archives.unsafe, ("a", "a/b.png", "..a/b..", "a b/c:d", "x.zip/y")))
