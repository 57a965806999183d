"""Buckets, on a real S3-speaking server of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

import topwork
from topwork import sources
from topwork.errors import BadData, StoreError
from topwork.store import remote
from topwork.store.remote import amazon_s3, fetch, patience

from ..remote_servers import Buckets


@pytest.fixture(scope="module")
def s3():
    with pytest.MonkeyPatch.context() as patch:
        server = Buckets(patch)
        yield server
        server.close()
        remote.forget()


@pytest.fixture
def bucket(s3, request):
    name = s3.make(f"b{abs(hash(request.node.name)) % 10**12}")
    remote.forget()
    s3.forget()
    yield name
    s3.behave = s3.spoil = None
    s3.latency = 0.0
    remote.forget()


@pytest.fixture
def filled(s3, bucket, photos):
    """Sixty photos below photos/, and 2,000 keys of something else beside them."""
    s3.upload(bucket, photos, "photos/")
    s3.forget()
    return bucket


def small_limit(monkeypatch, size):
    monkeypatch.setenv("TOPWORK_REMOTE_GB", str(size / 1e9))


def test_a_bucket_is_listed_and_no_image_is_fetched(s3, filled, photos):
    data, here = sources.read(f"s3://{filled}/photos/"), sources.read(photos)
    assert data.root == f"s3://{filled}/photos"
    assert data.name == here.name
    assert data.table.equals(here.table)
    assert (data.labels, data.notes, data.history) == (here.labels, here.notes, here.history)
    assert not s3.gets(filled)
    assert s3.asked["GET", f"/{filled}/?list"] == 1  # once for all: accepts, modality, read


def test_pages_of_a_long_listing(s3, filled, monkeypatch):
    monkeypatch.setattr(amazon_s3, "PAGE_KEYS", 7)
    left = [503]
    s3.behave = lambda *_: left.pop() if left and s3.asked["GET", f"/{filled}/?list"] == 3 else None
    assert len(sources.read(f"s3://{filled}/photos")) == 60
    assert s3.asked["GET", f"/{filled}/?list"] == 10  # one of nine failed, and was asked for again


def test_features_and_inspection_are_those_of_the_folder(s3, filled, photos, tmp_path, monkeypatch):
    there = topwork.extract(f"s3://{filled}/photos", engine="onnxruntime")
    assert set(s3.gets(filled).values()) == {1}
    assert len(s3.gets(filled)) == 60
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "another"))
    here = topwork.extract(photos, engine="onnxruntime")
    assert there.computed == here.computed == 60
    assert not [path for method, path in s3.asked if method == "HEAD"]  # the listing has told all
    assert np.array_equal(there.x, here.x)


def test_a_second_run_fetches_nothing(s3, filled):
    first = topwork.inspect(f"s3://{filled}/photos/")
    s3.forget()
    remote.forget()
    again = topwork.inspect(f"s3://{filled}/photos/")
    assert first.facts == again.facts
    assert not s3.gets(filled)


def test_what_has_changed_is_fetched_anew(s3, filled):
    path = f"s3://{filled}/photos/amber/00.png"
    topwork.inspect(f"s3://{filled}/photos/")
    s3.put(filled, "photos/amber/00.png", b"another")
    s3.forget()
    remote.forget()
    topwork.inspect(f"s3://{filled}/photos/")
    assert s3.gets(filled) == {f"/{filled}/photos/amber/00.png": 1}
    assert remote.read(path) == b"another"


def test_what_changes_after_it_was_listed_comes_as_it_is(s3, filled):
    data = sources.read(f"s3://{filled}/photos/")
    s3.put(filled, "photos/amber/00.png", b"another")
    s3.put(filled, "photos/amber/01.png", b"x" * len(remote.read(data.path(1))))
    assert remote.read(data.path(0)) == b"another"
    remote.copies().clear()
    assert set(remote.read(data.path(1))) == {ord("x")}


def test_damage_on_the_way_is_noticed_by_the_etag(s3, filled):
    data = sources.read(f"s3://{filled}/photos/")
    right = remote.read(data.path(0))
    remote.copies().clear()
    spoiled = []

    def once(path, body):
        if len(spoiled) < 2:
            spoiled.append(path)
            return bytes([body[0] ^ len(spoiled)]) + body[1:]
        return body

    s3.spoil = once
    assert remote.read(data.path(0)) == right
    assert len(spoiled) == 2


def test_an_etag_that_is_no_md5_is_believed_after_two_equal_answers(s3, bucket, monkeypatch):
    for i in range(4):
        s3.put(bucket, f"{i}.bin", bytes([i]) * 100)
    plain = remote._fetcher()
    plain.places._list(f"s3://{bucket}", deep=True)
    for entry in plain.places._folders[f"s3://{bucket}"].files.values():
        entry.facts = fetch.Facts(entry.facts.size, entry.facts.version, "0" * 32)
    monkeypatch.setattr(
        plain.places._endpoints["s3", bucket].client, "facts", lambda a: fetch.Facts(100, '"0"', "0" * 32)
    )
    s3.forget()
    assert [remote.read(f"s3://{bucket}/{i}.bin")[0] for i in range(4)] == [0, 1, 2, 3]
    assert sorted(s3.gets(bucket).values()) == [1, 1, 1, 2]  # doubted once


def test_files_are_fetched_ahead_a_few_at_a_time(s3, filled):
    data = sources.read(f"s3://{filled}/photos/")
    together, most = Counter(), []

    def behave(method, path):
        together["now"] += 1
        most.append(together["now"])
        time.sleep(0.05)
        together["now"] -= 1

    s3.behave = behave
    with remote.ahead(data.paths()):
        for path in data.paths():
            remote.read(path)
    assert 4 < max(most) <= 16
    assert set(s3.gets(filled).values()) == {1}


def test_no_further_ahead_than_the_limit_allows(s3, filled, monkeypatch):
    data = sources.read(f"s3://{filled}/photos/")
    sizes = [entry.facts.size for path in data.paths() if (entry := remote._fetcher().places.known(path))]
    small_limit(monkeypatch, 8 * max(sizes))
    remote.forget()
    data = sources.read(f"s3://{filled}/photos/")
    with remote.ahead(data.paths()):
        time.sleep(0.5)
        assert 1 <= len(s3.gets(filled)) <= 4


def test_a_dataset_larger_than_the_limit(s3, filled, photos, monkeypatch):
    whole = sum(path.stat().st_size for path in photos.rglob("*.png"))
    small_limit(monkeypatch, whole // 4)
    remote.forget()
    over = []
    keep = remote.copies().folder

    def watch(_method, _path):
        over.append(sum(f.stat().st_size for f in keep.rglob("*") if f.is_file()))

    s3.behave = watch
    features = topwork.extract(f"s3://{filled}/photos", engine="onnxruntime")
    assert features.x.shape[0] == 60
    assert max(over) <= whole // 4
    assert remote.copies().info()["bytes"] <= whole // 4
    assert sum(s3.gets(filled).values()) > 60  # evicted ones came again


def test_a_file_larger_than_the_limit_ends_it_in_a_line(s3, filled, monkeypatch):
    small_limit(monkeypatch, 1000)
    remote.forget()
    with pytest.raises(StoreError, match=r"does not fit: local copies may take 0.00 MB \(TOPWORK_REMOTE_GB\)"):
        topwork.inspect(f"s3://{filled}/photos")


def test_a_table_in_a_bucket(s3, filled, photos):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    rows = [f"photos/{name},{name.split('/')[0]}" for name in names]
    away = [
        "../../etc/passwd,amber",
        "/etc/passwd,amber",
        "photos/no.png,amber",
        f"s3://{filled}/photos/moss/00.png,moss",
    ]
    s3.put(filled, "reviews.csv", "\n".join(["path,label", *rows, *away]).encode())
    data = sources.read(f"s3://{filled}/reviews.csv")
    assert data.root == f"s3://{filled}"
    assert [s.reason for s in data.skipped] == [
        f"../../etc/passwd leads out of s3://{filled}", "/etc/passwd is a path of another machine",
        "photos/no.png does not exist",
    ]  # fmt: skip
    assert len(data) == 61
    assert data.path(60) == f"s3://{filled}/photos/moss/00.png"
    assert set(s3.gets(filled)) == {f"/{filled}/reviews.csv"}
    assert len(topwork.inspect(data).dataset) == 61


def test_the_files_of_a_table_may_lie_in_a_folder_beside_it(s3, filled, photos):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    s3.put(filled, "t.csv", "\n".join(["path,label", *(f"{n},{n.split('/')[0]}" for n in names)]).encode())
    data = sources.read(f"s3://{filled}/t.csv")
    assert data.root == f"s3://{filled}/photos"
    assert data.notes[-1] == "the files lie in 'photos' beside the table"


def test_texts_in_a_bucket(s3, bucket, tmp_path):
    here = tmp_path / "texts"
    for label in ("pos", "neg"):
        for i in range(12):
            (here / label).mkdir(parents=True, exist_ok=True)
            (here / label / f"{i}.txt").write_text(f"a {label} text with number {i}")
    (here / "README.md").write_text("about")
    s3.upload(bucket, here, "texts/")
    there = sources.read(f"s3://{bucket}/texts")
    assert there.table.equals(sources.read(here).table)
    assert there.skipped == sources.read(here).skipped
    assert sorted(sources.texts(f"s3://{bucket}/texts")) == sorted(sources.texts(here))
    s3.put(
        bucket, "lines/train.tsv", b"text\tlabel\n" + b"".join(b"some text %d\t%d\n" % (i, i % 2) for i in range(30))
    )
    s3.put(bucket, "lines/test.tsv", b"text\tlabel\n" + b"".join(b"a text %d\t%d\n" % (i, i % 2) for i in range(10)))
    data = sources.read(f"s3://{bucket}/lines/")
    assert (len(data.rows_of("train")), len(data.rows_of("test"))) == (30, 10)
    assert data.modality == "text"


def test_parquet_in_a_bucket(s3, bucket):
    import io

    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"text": [f"text {i}" for i in range(20)], "label": ["a", "b"] * 10}), file)
    s3.put(bucket, "t.parquet", file.getvalue())
    assert len(sources.read(f"s3://{bucket}/t.parquet")) == 20


def test_keys_that_lead_out_are_left_out_and_said(s3, bucket, photos):
    s3.upload(bucket, photos, "p/")
    picture = next(photos.rglob("*.png")).read_bytes()
    for key in ("p/amber/../../../../etc/x.png", "p//y.png", "p/amber/./z.png"):
        s3.put(bucket, key, picture)
    s3.put(bucket, "p/amber", b"a file that is called like a folder")
    s3.put(bucket, "p/empty/", b"")
    data = sources.read(f"s3://{bucket}/p")
    assert len(data) == 60
    assert {s.reason for s in data.skipped} >= {
        "its name leads out of the folder: left out", "its name has an empty part: left out"
    }  # fmt: skip


def test_not_there(s3, bucket):
    for uri in (f"s3://{bucket}/no/", f"s3://{bucket}/no.csv", "s3://there-is-no-such-bucket/x/"):
        with pytest.raises(BadData, match="does not exist"):
            sources.read(uri)
    with pytest.raises(BadData, match="does not exist"):
        sources.items(f"s3://{bucket}/no.jpg")


@pytest.mark.parametrize("uri", ["s3://", "s3://Not_A Bucket/x", "s3:///x/y.csv"])
def test_what_is_no_bucket(s3, uri):
    with pytest.raises((BadData, StoreError)) as caught:
        sources.read(uri)
    assert "\n" not in str(caught.value)


def test_refused_credentials_end_it_in_a_line(s3, filled):
    s3.behave = lambda *_: 403
    with pytest.raises(StoreError, match=r"not allowed, or not there .* AWS_ACCESS_KEY_ID") as caught:
        sources.read(f"s3://{filled}/photos")
    assert "secret-word" not in str(caught.value)


def test_without_credentials_requests_are_not_signed(s3, filled, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert len(sources.read(f"s3://{filled}/photos")) == 60
    assert remote._fetcher().places._endpoints["s3", filled].client.files.anon


def test_throttling_is_waited_out_and_a_server_that_fails_ends_the_run(s3, filled, monkeypatch):
    data = sources.read(f"s3://{filled}/photos")
    left = [503, 503, 500]
    s3.behave = lambda *_: left.pop() if left else None
    remote.read(data.path(0))
    monkeypatch.setattr(patience, "PATIENCE", 1.0)
    s3.behave = lambda _, path: 503 if path.endswith("7.png") else None
    with pytest.raises(StoreError, match="does not answer") as caught:
        topwork.inspect(data)
    assert "run again: what was fetched is kept" in str(caught.value)


CHILD = """
import sys, topwork
f = topwork.extract(sys.argv[1], engine="onnxruntime")
import json, hashlib
print(json.dumps([f.computed, hashlib.sha256(f.x.tobytes()).hexdigest()]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_fetches_only_what_is_missing(s3, filled, photos, tmp_path, monkeypatch):
    command = [sys.executable, "-c", CHILD, f"s3://{filled}/photos"]
    environment = {**os.environ, "TOPWORK_THREADS": "1", "OMP_NUM_THREADS": "1"}
    s3.latency = 0.15
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while sum(s3.gets(filled).values()) < 20 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    s3.latency = 0.0
    time.sleep(0.4)
    copies = remote.copies()
    here = copies.info()["files"]
    assert 0 < here < 60
    assert list((copies.folder / "new").iterdir()) or here  # what was on its way does not count
    s3.forget()
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert sum(s3.gets(filled).values()) == 60 - here
    assert not list((copies.folder / "new").iterdir())  # swept
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "another"))
    done_here = subprocess.run(
        [*command[:-1], str(photos)], env={**environment, "TOPWORK_CACHE": str(tmp_path / "another")},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads(done_here.stdout)


def test_a_split_names_the_bucket_and_is_read_again(s3, filled, tmp_path):
    from topwork.data.write import write_table

    done = topwork.split(topwork.inspect(f"s3://{filled}/photos").dataset, "stratified(test=0.2)")
    write_table(done, tmp_path / "split.csv")
    again = sources.read(tmp_path / "split.csv")
    assert again.paths() == done.paths()
    assert again.path(0).startswith(f"s3://{filled}/photos/")
    assert len(topwork.inspect(again).dataset) == 60


BLOCKS = """
import sys, topwork
from topwork.store.remote import fetch, files
files.BLOCK = fetch.BLOCK = 50_000
fetch.LARGE_BYTES = 100_000
print(len(topwork.inspect(sys.argv[1]).dataset))
"""


@pytest.mark.slow
def test_a_killed_download_of_an_archive_goes_on_where_it_was(s3, bucket, photos, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, f"deep/{path.relative_to(photos)}")
    size = (tmp_path / "p.zip").stat().st_size
    s3.put(bucket, "p.zip", (tmp_path / "p.zip").read_bytes())
    s3.forget()
    command = [sys.executable, "-c", BLOCKS, f"zip://deep::s3://{bucket}/p.zip"]
    environment = {**os.environ, "TOPWORK_THREADS": "1", "OMP_NUM_THREADS": "1"}
    s3.latency = 0.2
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while s3.gets(bucket)[f"/{bucket}/p.zip"] < 4 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    s3.latency = 0.0
    time.sleep(0.4)
    (part,) = (remote.copies().folder / "new").iterdir()
    here = part.stat().st_size
    assert 100_000 <= here < size
    assert here % 50_000 == 0
    assert remote.copies().info()["files"] == 0  # what is on its way does not count
    s3.forget()
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "60"
    assert s3.gets(bucket)[f"/{bucket}/p.zip"] == -(-(size - here) // 50_000)
    assert remote.copies().info()["bytes"] == size
