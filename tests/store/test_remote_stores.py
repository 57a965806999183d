"""What all object stores do alike: S3, Google's and Azure's, each as a real server of this machine speaks it.

Google's needs gcsfs and gcp-storage-emulator, Azure's adlfs and azurite-blob on the PATH; those that are not here skip.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import topwork
from topwork import sources
from topwork.errors import BadData, StoreError
from topwork.store import remote
from topwork.store.remote import fetch, files, patience

from ..remote_servers import AzureBuckets, Buckets, GoogleBuckets

STORES = {"s3": Buckets, "gs": GoogleBuckets, "az": AzureBuckets}


@pytest.fixture(scope="module", params=[pytest.param("s3", marks=pytest.mark.slow), "gs", "az"])
def store(request):
    with pytest.MonkeyPatch.context() as patch:
        server = STORES[request.param](patch)
        server.scheme = request.param
        yield server
        server.close()
        remote.forget()


@pytest.fixture
def bucket(store, request):
    name = store.make(f"b{abs(hash(request.node.name)) % 10**12}")
    remote.forget()
    store.forget()
    yield name
    store.behave = store.spoil = None
    store.latency = 0.0
    remote.forget()


@pytest.fixture
def filled(store, bucket, photos):
    store.upload(bucket, photos, "photos/")
    store.forget()
    return bucket


def test_features_are_those_of_the_folder_and_each_file_comes_once(store, filled, photos, tmp_path, monkeypatch):
    uri = store.uri(filled, "photos")
    data, here = sources.read(uri), sources.read(photos)
    assert data.root == uri
    assert data.table.equals(here.table)
    assert not store.gets(filled)  # listed alone
    there = topwork.extract(uri, engine="onnxruntime")
    assert len(store.gets(filled)) == 60
    assert set(store.gets(filled).values()) == {1}
    assert not [path for kind, path in store.asked if kind == "HEAD"]  # the listing has told all
    store.forget()
    remote.forget()
    assert len(topwork.inspect(uri).dataset) == 60
    assert not store.gets(filled)  # the copies are here
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "another"))
    here = topwork.extract(photos, engine="onnxruntime")
    assert there.computed == here.computed == 60
    assert np.array_equal(there.x, here.x)


def test_pages_of_a_long_listing_with_a_failure_between(store, filled, monkeypatch):
    for name in ("amazon_s3", "google_storage", "azure_blobs"):
        monkeypatch.setattr(f"topwork.store.remote.{name}.PAGE_KEYS", 7)
    lists = lambda: sum(n for (_, path), n in store.asked.items() if path.endswith("?list"))  # noqa: E731
    left = [503]
    store.behave = lambda *_: left.pop() if left and lists() == 3 else None
    assert len(sources.read(store.uri(filled, "photos"))) == 60
    assert lists() == 10  # one of nine failed, and was asked for again


def test_a_table_beside_a_folder_is_listed_alone(store, filled, photos):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    rows = [f"photos/{name},{name.split('/')[0]}" for name in [*names, "amber/no.png"]]
    store.put(filled, "reviews.csv", "\n".join(["path,label", *rows]).encode())
    data = sources.read(store.uri(filled, "reviews.csv"))
    assert [s.reason for s in data.skipped] == ["photos/amber/no.png does not exist"]
    assert set(store.gets(filled)) == {f"/{filled}/reviews.csv"}
    assert len(topwork.inspect(data).dataset) == 60


def test_names_with_signs_and_folders_that_are_marks(store, bucket, photos):
    picture = next(photos.rglob("*.png")).read_bytes()
    names = ["a b.png", "ä#1.png", "q?x=1.png", "100%.png", "a+b&c.png"]
    for label in ("one", "two"):
        store.put(bucket, f"p/{label}/", b"")
        for name in names:
            store.put(bucket, f"p/{label}/{name}", picture)
    data = sources.read(store.uri(bucket, "p"))
    assert sorted(data.path(i).rsplit("/", 1)[1] for i in range(5)) == sorted(names)
    assert all(remote.read(path) == picture for path in data.paths())
    assert {entry.name for entry in remote._fetcher().places.entries(store.uri(bucket, "p"))} == {"one", "two"}
    assert len(list(remote._fetcher().places.endpoint(store.uri(bucket))[0].client.page(bucket, deep=False)[1])) == 1


def test_what_has_changed_comes_as_it_is(store, filled):
    data = sources.read(store.uri(filled, "photos"))
    before = remote.read(data.path(1))
    store.put(filled, "photos/amber/00.png", b"another")
    store.put(filled, "photos/amber/02.png", b"x" * len(remote.read(data.path(2))))
    assert remote.read(data.path(0)) == b"another"  # changed after it was listed
    store.forget()
    remote.forget()
    sources.read(store.uri(filled, "photos"))
    assert remote.read(data.path(1)) == before
    assert set(remote.read(data.path(2))) == {ord("x")}
    assert set(store.gets(filled)) == {f"/{filled}/photos/amber/02.png"}


def test_damage_on_the_way_is_noticed_by_the_md5(store, filled):
    data = sources.read(store.uri(filled, "photos"))
    right = remote.read(data.path(0))
    remote.copies().clear()
    spoiled = []

    def once(path, body):
        if len(spoiled) < 2:
            spoiled.append(path)
            return bytes([body[0] ^ (1 + len(spoiled))]) + body[1:]
        return body

    store.spoil = once
    assert remote.read(data.path(0)) == right
    assert len(spoiled) == 2


def test_files_are_fetched_ahead_a_few_at_a_time(store, filled):
    data = sources.read(store.uri(filled, "photos"))
    now, most = [0], []

    def behave(*_):
        now[0] += 1
        most.append(now[0])
        time.sleep(0.05)
        now[0] -= 1

    store.behave = behave
    with remote.ahead(data.paths()):
        for path in data.paths():
            remote.read(path)
    assert 4 < max(most) <= 16
    assert set(store.gets(filled).values()) == {1}


def test_a_dataset_larger_than_the_limit(store, filled, photos, monkeypatch):
    limit = sum(path.stat().st_size for path in photos.rglob("*.png")) // 4
    monkeypatch.setenv("TOPWORK_REMOTE_GB", str(limit / 1e9))
    remote.forget()
    assert topwork.extract(store.uri(filled, "photos")).x.shape[0] == 60
    assert remote.copies().info()["bytes"] <= limit
    assert sum(store.gets(filled).values()) > 60  # evicted ones came again
    monkeypatch.setenv("TOPWORK_REMOTE_GB", "0.000001")
    remote.forget()
    with pytest.raises(StoreError, match=r"does not fit: local copies may take 0.00 MB \(TOPWORK_REMOTE_GB\)"):
        topwork.inspect(store.uri(filled, "photos"))


def test_not_there(store, bucket):
    nowhere = store.uri("there-is-no-such-bucket", "x/")
    for uri in (store.uri(bucket, "no/"), store.uri(bucket, "no.csv"), store.uri(bucket), nowhere):
        with pytest.raises(BadData, match="does not exist") as caught:
            sources.read(uri)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadData, match="does not exist"):
        sources.items(store.uri(bucket, "no.jpg"))


def test_a_wrong_key_is_one_line(store, filled, monkeypatch, tmp_path, capfd):
    store.wrong_key(monkeypatch, tmp_path)
    remote.forget()
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"not allowed|credentials are refused") as caught:
        sources.read(store.uri(filled, "photos"))
    told = str(caught.value)
    assert told.startswith(store.uri(filled, "photos"))
    assert "\n" not in told
    assert "secret-word" not in told
    assert capfd.readouterr().err == ""
    assert time.monotonic() - began < 10


def test_what_is_forbidden_is_one_line(store, filled, capfd):
    data = sources.read(store.uri(filled, "photos"))
    store.behave = lambda *_: 403
    remote.forget()
    name = {"s3": "AWS_ACCESS_KEY_ID", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_CONNECTION_STRING"}
    with pytest.raises(StoreError, match=f"not allowed, or not there .* {name[store.scheme]}"):
        sources.read(store.uri(filled, "photos"))
    with pytest.raises(BadData, match="not allowed, or not there"):
        remote.read(data.path(0))
    assert capfd.readouterr().err == ""


def test_throttling_is_waited_out_and_a_server_that_fails_ends_the_run(store, filled, monkeypatch, capfd):
    data = sources.read(store.uri(filled, "photos"))
    left = [503, 429, 502]
    store.behave = lambda *_: left.pop() if left else None
    began = time.monotonic()
    remote.read(data.path(0))
    assert time.monotonic() - began < 5  # our patience, not that of a library around it
    monkeypatch.setattr(patience, "PATIENCE", 1.0)
    store.behave = lambda _, path: 503 if path.endswith("7.png") else None
    with pytest.raises(StoreError, match=r"does not answer .* run again: what was fetched is kept"):
        topwork.inspect(data)
    assert capfd.readouterr().err == ""


def test_a_large_file_goes_on_behind_what_is_here(store, bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "BLOCK", 50_000)
    monkeypatch.setattr(fetch, "BLOCK", 50_000)
    monkeypatch.setattr(fetch, "LARGE_BYTES", 100_000)
    monkeypatch.setattr(patience, "PATIENCE", 0.5)
    content = np.random.default_rng(0).bytes(420_000)
    store.put(bucket, "large.bin", content)
    sources_of = store.uri(bucket, "large.bin")
    assert remote.getsize(sources_of) == len(content)
    store.forget()
    store.behave = lambda kind, _: 503 if kind == "GET" and sum(store.gets(bucket).values()) > 4 else None
    with pytest.raises(StoreError, match="does not answer"):
        remote.read(sources_of)
    (part,) = (remote.copies().folder / "new").iterdir()
    assert part.stat().st_size == 200_000
    store.behave = None
    store.forget()
    remote.forget()
    assert remote.read(sources_of) == content
    assert sum(store.gets(bucket).values()) == 5  # of nine


CHILD = """
import sys, topwork, json, hashlib
f = topwork.extract(sys.argv[1], engine="onnxruntime")
print(json.dumps([f.computed, hashlib.sha256(f.x.tobytes()).hexdigest()]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_fetches_only_what_is_missing(store, filled, photos, tmp_path):
    command = [sys.executable, "-c", CHILD, store.uri(filled, "photos")]
    environment = {**os.environ, "TOPWORK_THREADS": "1", "OMP_NUM_THREADS": "1"}
    store.latency = 0.15
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while sum(store.gets(filled).values()) < 20 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    store.latency = 0.0
    time.sleep(0.4)
    here = remote.copies().info()["files"]
    assert 0 < here < 60
    store.forget()
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert sum(store.gets(filled).values()) == 60 - here
    done_here = subprocess.run(
        [*command[:-1], str(photos)], env={**environment, "TOPWORK_CACHE": str(tmp_path / "another")},
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads(done_here.stdout)


@pytest.mark.slow
def test_a_fit_gives_the_bits_of_the_folder_also_from_an_archive(store, filled, photos, tmp_path, monkeypatch):
    import zipfile

    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, path.relative_to(photos))
    store.put(filled, "photos.zip", (tmp_path / "photos.zip").read_bytes())
    made = {}
    for name, uri in {
        "here": photos,
        "there": store.uri(filled, "photos"),
        "zip": store.uri(filled, "photos.zip"),
    }.items():
        monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "caches" / name))
        remote.forget()
        store.forget()
        topwork.fit(uri, steps="majority,probe", engine="onnxruntime", out=tmp_path / name / "photos")
        made[name] = [(tmp_path / name / "photos" / one).read_bytes() for one in ("model.onnx", "model.safetensors")]
        assert set(store.gets(filled).values()) <= {1}  # the proof, in a process of its own, finds the copies
    assert made["here"] == made["there"] == made["zip"]


def test_a_dead_server_is_one_line(store, bucket, monkeypatch, capfd):
    monkeypatch.setattr(patience, "FIRST_PATIENCE", 1.0)
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING"):
        if os.environ.get(name):
            monkeypatch.setenv(name, os.environ[name].replace(store.url, "http://127.0.0.1:9"))
    remote.forget()
    with pytest.raises(StoreError, match=r"does not answer \(no connection") as caught:
        sources.read(store.uri(bucket, "photos"))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_google_serves_gzip_encoded_objects_decoded(store, bucket):
    if store.scheme != "gs":
        pytest.skip("Google alone decodes on the way")
    rows = "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(40))
    store.put(bucket, "rows.csv.gz-coded", gzip.compress(f"text,label\n{rows}".encode()))
    assert remote.read(store.uri(bucket, "rows.csv.gz-coded")) == f"text,label\n{rows}".encode()


def test_a_google_key_that_is_not_there_is_said(store, bucket, monkeypatch, tmp_path):
    if store.scheme != "gs":
        pytest.skip("of Google")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no.json"))
    remote.forget()
    with pytest.raises(StoreError, match=r"cannot be opened: .*no\.json"):
        sources.read(store.uri(bucket, "photos"))
