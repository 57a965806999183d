"""After an encrypted fit nothing of the data can be read in the cache or the model, and everything still works."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import topwork as tw
from topwork import settings, verbs
from topwork.artefact import bundle
from topwork.backbones import find
from topwork.errors import BadSetting
from topwork.features.extract import extract
from topwork.sources import read
from topwork.store import blobs, keys

WORD = "zyxomancy"  # stands in every text of one class, so that it is worth a place in a vocabulary
LABEL = "clandestine"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a key in it; cache and models come beside."""
    folder = tmp_path_factory.mktemp("encrypted")
    keys.new_file(folder / "key")
    return folder


def fit(place, name, data, encrypt, **options):
    """A fit with a cache of its own; what it left on the disk, and what it said."""
    heard = []
    with settings.using(place / f"{name}.cache", encrypt, place / "key" if encrypt else None):
        model = tw.fit(data, out=place / name, watch=verbs.Watch(say=heard.append), **options)
    assert (heard[0].startswith("encrypted: cache, model, report and checkpoints")) is encrypt
    return model, files_of(place / name, place / f"{name}.cache")


def files_of(*folders):
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def where(files, secret):
    return [path.name for path, data in files.items() if secret in data]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path, draw = tmp_path_factory.mktemp("data") / "notes.csv", np.random.default_rng(0)
    words = ["river", "stone", "cloud", "lamp", "bread", "glass", "wheel", "paper"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(60):
            text = " ".join(draw.choice(words, 8))
            writer.writerow([f"{text} {WORD} indeed" if i % 2 else text, LABEL if i % 2 else "plain"])
    return path


def topwork(*words, **env):
    return subprocess.run(
        [sys.executable, "-m", "topwork", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
    )


def test_texts_from_the_command_line(place, texts, tmp_path):
    key, out = tmp_path / "key", tmp_path / "model"
    made = topwork("key", "new", key)
    assert made.returncode == 0
    assert key.read_text().strip() not in made.stdout
    refused = topwork("fit", texts, "--encrypt", "--out", out)
    assert refused.returncode == 2
    assert "Encryption needs a key" in refused.stderr
    options = ("--steps", "majority,ngrams", "--encrypt", "--key-file", key, "--out", out)
    fitted = topwork("fit", texts, *options, TOPWORK_CACHE=tmp_path / "cache")
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stderr.startswith("encrypted: cache, model, report and checkpoints")
    assert f"report  topwork decrypt {out} --out FOLDER" in fitted.stdout
    files = files_of(out, tmp_path / "cache")
    assert topwork("decrypt", out, "--out", tmp_path / "plain", TOPWORK_KEY_FILE=key).returncode == 0
    for secret in (WORD.encode(), LABEL.encode(), b'"river"'):
        assert where(files_of(tmp_path / "plain"), secret)
        assert where(files, secret) == []
    asked = topwork("predict", out, f"the {WORD}", "--json", "--key-file", key)
    assert json.loads(asked.stdout)[0]["label"] == LABEL
    asked = topwork("predict", out, "text")
    assert asked.returncode == 2
    assert "is encrypted. Encryption needs a key" in asked.stderr
    assert asked.stderr.count("\n") == 1
    assert LABEL in (tmp_path / "plain" / "report.html").read_text()
    with settings.using(key_file=key):
        assert verbs.evaluate(tw.load(out), texts)["metrics"]["accuracy"]["value"] == 1


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory):
    """The photos, of which one holds known noise."""
    folder, draw = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(5)
    for path in photos.rglob("*.png"):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    noise = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "moss" / f"{LABEL}.png")
    return folder


def test_images(place, pictures):
    options = {"steps": "majority,probe", "split": "stratified(test=0.3)", "engine": "onnxruntime"}
    secret_file = (pictures / "moss" / f"{LABEL}.png").read_bytes()
    dataset = read(str(pictures))
    x = extract(dataset, find("bundled"), None, engine="onnxruntime").x
    rows = [row.tobytes() for row in x]
    model, files = fit(place, "closed", pictures, True, **options)
    with settings.using(place / "open.cache"):
        tw.extract(pictures, engine="onnxruntime")
    with settings.using(key_file=place / "key"):
        bundle.decrypt(place / "closed", place / "open")
    open_files = files_of(place / "open", place / "open.cache")  # what would be found otherwise
    assert sum(bool(where(open_files, row)) for row in rows) == 61
    assert not any(where(files, row) for row in rows)
    for secret in (b"data:image", b'"moss"'):
        assert where(open_files, secret)
        assert where(files, secret) == []
    pixels = np.asarray(Image.open(pictures / "moss" / f"{LABEL}.png"))
    for secret in (secret_file[60:160], pixels[20].tobytes(), pixels.tobytes()[:64], LABEL.encode()):
        assert where(files, secret) == []
    plain, paths = tw.load(place / "open"), dataset.paths()[:5]
    assert [p.probability for p in model.predict(paths)] == [p.probability for p in plain.predict(paths)]
    more = pictures.with_name("more") / "basalt"
    more.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.full((48, 64, 3), 10 * i, np.uint8)).save(more / f"{i}.png")
    with settings.using(place / "closed.cache", key_file=place / "key"):  # --encrypt need not be said again
        grown = tw.extend(place / "closed", more.parent, out=place / "grown")
    assert "basalt" in grown.labels
    assert grown.seal is not None
    assert where(files_of(place / "grown"), b"basalt") == []


def test_a_second_run_finds_what_the_first_one_kept(place, pictures):
    with settings.using(place / "again.cache", True, place / "key"):
        assert tw.extract(pictures, engine="onnxruntime").computed == 61
        assert tw.extract(pictures, engine="onnxruntime").computed == 0
    keys.new_file(place / "another")
    with settings.using(place / "again.cache", True, place / "another"):
        assert tw.extract(pictures, engine="onnxruntime").computed == 61
    with settings.using(place / "again.cache"):
        assert tw.extract(pictures, engine="onnxruntime").computed == 61


def test_what_could_only_be_written_in_the_clear_ends_before_work_begins(place, tmp_path):
    with settings.using(tmp_path / "cache", True, place / "key"):
        with pytest.raises(BadSetting, match=r"Pretraining keeps .* in the clear, and --encrypt forbids that"):
            tw.pretrain("fractals:", method="simclr", out=tmp_path / "out", steps=1)
        with pytest.raises(BadSetting, match="--encrypt forbids"):
            blobs.keep(b"\x89PNG secret", ".png")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_tuned_step_leaves_no_frames(place, stripes, backbone, one_thread):
    options = {"steps": "majority,probe,last_stages(1)", "backbone": backbone, "budget": "none", "seed": 1}
    plain, open_files = fit(place, "open3", stripes, False, **options)
    model, files = fit(place, "closed3", stripes, True, **options)
    folders = {path.relative_to(place).parts[1] for path in files if path.parts[-2] != "closed3"}
    assert not folders & {"frames", "boundary", "graphs"}
    assert {"frames", "boundary"} <= {path.relative_to(place).parts[1] for path in open_files}
    assert model.report["metrics"] == plain.report["metrics"]
    frames = next(data for path, data in open_files.items() if "frames" in path.parts and path.suffix == ".npy")
    secret = frames[5000:5200]
    assert where(open_files, secret)
    assert where(files, secret) == []
