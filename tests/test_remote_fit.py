"""Verbs on buckets, addresses and archives: what they give is what the folder gives."""

import json
import os
import time
import zipfile

import pytest
from typer.testing import CliRunner

import topwork
from topwork.cli import app
from topwork.store import remote
from topwork.types import Watch

from .remote_servers import Buckets

STEPS = "majority,pixels,probe"
ENGINE = "onnxruntime"  # where torch is loaded by another test, it may be chosen for its pace, and has other last bits


@pytest.fixture(scope="module")
def s3(photos):
    with pytest.MonkeyPatch.context() as patch:
        server = Buckets(patch)
        server.make("data")
        server.upload("data", photos, "photos/")
        names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
        table = "\n".join(["path,label", *(f"photos/{name},{name.split('/')[0]}" for name in names)])
        server.put("data", "reviews.csv", table.encode())
        yield server
        server.close()
        remote.forget()


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """Fitted on the folder."""
    home = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(home / "cache"))
        topwork.fit(photos, steps=STEPS, engine=ENGINE, out=home / "photos")
    return home / "photos"


def same(one, other):
    """Weights, graph and all measured numbers alike."""
    for name in ("model.onnx", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    numbers = [json.loads((folder / "report.json").read_bytes()) for folder in (one, other)]
    for key in ("steps", "metrics", "hashes"):
        left, right = (_without_seconds(number.get(key)) for number in numbers)
        assert not list(_differences(left, right, key))


def _differences(one, other, where):
    """What is not alike, by its place."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{where}[{at}]")
    elif one != other:
        yield where, one, other


def _without_seconds(value):
    if isinstance(value, dict):
        return {key: _without_seconds(one) for key, one in value.items() if "seconds" not in key}
    return [_without_seconds(one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["s3://data/photos/", "s3://data/reviews.csv"])
def test_a_fit_on_a_bucket_gives_the_same_bits(s3, model, tmp_path, uri):
    remote.forget()
    s3.forget()
    said = []
    topwork.fit(uri, steps=STEPS, engine=ENGINE, out=tmp_path / "photos", watch=Watch(say=said.append))
    same(model, tmp_path / "photos")
    gets = s3.gets("data")
    gets.pop("/data/reviews.csv", None)
    assert len(gets) == 60
    assert set(gets.values()) == {1}  # the proof, in a process of its own, finds the copies, too
    kept = b"".join(path.read_bytes() for path in (tmp_path / "photos").rglob("*") if path.is_file())
    assert b"secret-word" not in kept
    assert json.loads((tmp_path / "photos/report.json").read_bytes())["data"]["source"] == uri


@pytest.mark.slow
def test_a_fit_on_an_archive_gives_the_same_bits(model, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, path.relative_to(photos))
    topwork.fit(tmp_path / "photos.zip", steps=STEPS, engine=ENGINE, out=tmp_path / "photos")
    same(model, tmp_path / "photos")


@pytest.mark.slow
def test_a_fit_whose_data_do_not_fit_among_the_copies(s3, model, photos, tmp_path, monkeypatch):
    whole = sum(path.stat().st_size for path in photos.rglob("*.png"))
    monkeypatch.setenv("TOPWORK_REMOTE_GB", str(whole / 3 / 1e9))
    topwork.fit("s3://data/photos", steps=STEPS, engine=ENGINE, out=tmp_path / "photos")
    same(model, tmp_path / "photos")
    assert remote.copies().info()["bytes"] <= whole / 3


@pytest.mark.slow
def test_the_doors(s3, model, tmp_path):
    runner = CliRunner()
    one = runner.invoke(app, ["predict", str(model), "s3://data/photos/moss/00.png", "--json"])
    assert one.exit_code == 0, one.output
    (told,) = json.loads(one.stdout)
    assert (told["input"], told["label"]) == ("s3://data/photos/moss/00.png", "moss")
    s3.forget()
    many = runner.invoke(app, ["predict", str(model), "s3://data/photos/", "--csv"])
    assert len(many.stdout.splitlines()) == 61
    assert set(s3.gets("data").values()) <= {1}
    done = runner.invoke(
        app, ["evaluate", str(model), "s3://data/reviews.csv", "--json", "--report", str(tmp_path / "r.html")]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["evaluated_on"]["n"] == 60
    done = runner.invoke(app, ["inspect", "s3://data/photos", "--json"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["split", "s3://data/photos", "--out", str(tmp_path / "split.csv")])
    assert "s3://data/photos/amber/00.png" in (tmp_path / "split.csv").read_text()
    done = runner.invoke(app, ["extract", "s3://data/photos", "--out", str(tmp_path / "x.npz")])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["rank", "s3://data/photos", "--backbones", "bundled", "--json"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["cache", "info", "--json"])
    assert json.loads(done.stdout)["remote"]["files"] == 60 + 1
    done = runner.invoke(app, ["cache", "clear", "remote"])
    assert done.exit_code == 0
    assert json.loads(runner.invoke(app, ["cache", "info", "--json"]).stdout)["remote"]["files"] == 0


def test_a_dead_endpoint_is_one_line_and_exit_code_2(tmp_path):
    import subprocess
    import sys

    pytest.importorskip("s3fs", reason="the remote extra is not installed")
    environment = {
        **os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "secret-word", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "topwork", "fit", "s3://data/photos/", "--out", str(tmp_path / "m")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert time.monotonic() - began < 60  # of which 6 s are patience; the rest is a busy machine's imports
    assert "s3://data/photos: http://127.0.0.1:9 (bucket data) does not answer (no connection" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "secret-word" not in done.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_texts_in_a_bucket_and_in_an_archive(s3, tmp_path):
    words = {"good": "a warm and lovely film", "bad": "a dull and awful film"}
    rows = "".join(f"{words[label]} number {i},{label}\n" for i in range(40) for label in words)
    s3.put("data", "words.csv", f"text,label\n{rows}".encode())
    s3.put("data", "texts/one.txt", b"what a lovely warm thing")
    s3.put("data", "texts/two.txt", b"so dull, so awful")
    topwork.fit("s3://data/words.csv", steps="majority,ngrams", out=tmp_path / "words")
    runner = CliRunner()
    done = runner.invoke(
        app, ["predict", str(tmp_path / "words"), "s3://data/texts/", "s3://data/texts/two.txt", "--csv"]
    )
    told = [line.rpartition(",")[0] for line in done.stdout.splitlines()[1:]]
    assert told == ["s3://data/texts/one.txt,good", "s3://data/texts/two.txt,bad", "s3://data/texts/two.txt,bad"]
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as file:
        file.writestr("a/one.txt", "a lovely film")
    done = runner.invoke(app, ["predict", str(tmp_path / "words"), str(tmp_path / "more.zip"), "--csv"])
    assert done.stdout.splitlines()[1].startswith(f"{tmp_path}/more.zip/a/one.txt,good")
    done = runner.invoke(app, ["evaluate", str(tmp_path / "words"), "s3://data/words.csv", "--json"])
    assert json.loads(done.stdout)["evaluated_on"]["n"] == 80
