import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from topwork.backbones import find
from topwork.errors import BadSetting
from topwork.features import extract as module
from topwork.features import remembering
from topwork.features.contents import content_key
from topwork.features.extract import choose_batch, extract
from topwork.modalities.image import decode
from topwork.modalities.image_graph import geometry
from topwork.nn.session import session
from topwork.sources import read
from topwork.store.cache import open_cache
from topwork.types import Preprocess


@pytest.fixture(scope="module")
def backbone():
    return find("bundled")


@pytest.fixture
def own_photos(photos, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(photos, tmp_path / "photos")


def one_by_one(dataset, backbone):
    """The plainest way: every image alone, normalised by numpy, through the backbone's own graph."""
    p = backbone.card.preprocess
    crop, trunk = session(geometry(p).SerializeToString()), session(backbone.graph())
    x = []
    for path in dataset.paths():
        pixels = crop.run(None, {"pixels": decode(path)[None]})[0]  # (1, S, S, 3)
        images = (pixels / 255.0 - np.array(p.mean)) / np.array(p.std)
        x.append(trunk.run(None, {"images": images.transpose(0, 3, 1, 2).astype(np.float32)})[0][0])
    return np.array(x)


def test_features_are_those_of_the_backbone(photos, backbone):
    dataset = read(str(photos))
    features = extract(dataset, backbone, open_cache())
    expected = one_by_one(dataset, backbone)
    np.testing.assert_allclose(features.x, expected, atol=1e-4 * np.abs(expected).max())
    assert features.x.dtype == np.float32
    assert features.rows.tolist() == list(range(60))
    assert (features.computed, features.cached, features.skipped) == (60, 0, ())
    assert features.key == f"{backbone.card.key}/{open_cache().info()['namespaces'].popitem()[0].split('/')[-1]}"
    assert "onnxruntime" in features.engine
    assert [choice.name for choice in features.choices] == ["engine", "batch size"]


def test_a_second_run_runs_nothing(photos, backbone, monkeypatch):
    dataset = read(str(photos))
    first = extract(dataset, backbone, open_cache())
    monkeypatch.setattr(module, "Loader", None)
    monkeypatch.setattr(module.engines, "start", None)
    again = extract(dataset, backbone, open_cache())
    assert again.x.tobytes() == first.x.tobytes()
    assert (again.computed, again.cached) == (0, 60)
    shuffled = extract(dataset.take([59, 3, 3]), backbone, open_cache())
    assert shuffled.x.tobytes() == first.x[[59, 3, 3]].tobytes()
    assert shuffled.rows.tolist() == [0, 1, 2]


def test_equal_contents_are_computed_once(own_photos, backbone):
    for i in range(5):
        shutil.copy(own_photos / "amber" / "00.png", own_photos / "moss" / f"copy{i}.png")
    dataset = read(str(own_photos))
    features = extract(dataset, backbone, open_cache())
    items = dataset.table["item"].to_pylist()
    same = [i for i, item in enumerate(items) if "copy" in item or item.endswith("amber/00.png")]
    assert (features.computed, len(features.x), len(same)) == (60, 65, 6)
    assert (features.x[same] == features.x[same[0]]).all()
    assert len(np.unique(features.x, axis=0)) == 60


def test_the_bits_do_not_depend_on_company_threads_or_interruptions(photos, backbone):
    dataset = read(str(photos))
    whole = extract(dataset, backbone, None).x.tobytes()
    draw = np.random.default_rng(1)
    for threads in (1, 3):
        open_cache().clear()
        for _ in range(3):
            extract(dataset.take(draw.permutation(60)[:17]), backbone, open_cache(), threads=threads)
        assert extract(dataset, backbone, open_cache(), threads=threads).x.tobytes() == whole


def test_other_batch_sizes_agree_closely(photos, backbone):
    dataset = read(str(photos))
    usual = extract(dataset, backbone, None).x
    for size in (1, 7, 100):
        other = extract(dataset, backbone, None, batch_size=size)
        np.testing.assert_allclose(other.x, usual, atol=1e-4 * np.abs(usual).max())
        assert str(other.choices[1]) == f"batch size {size}: as asked"


def test_progress_counts_distinct_contents(photos, backbone):
    said = []
    dataset = read(str(photos))
    extract(dataset.take(range(10)), backbone, open_cache())
    extract(dataset, backbone, open_cache(), progress=lambda *what: said.append(what))
    assert said[0] == ("extract", 10, 60)
    assert said[-1] == ("extract", 60, 60)
    assert said == sorted(said)


# files that go wrong


def with_contents(dataset):
    keys = [content_key(Path(path).read_bytes()) for path in dataset.paths()]
    return dataset.with_column("content", pa.array(keys, pa.binary(16)))


def test_files_that_vanish_or_change_meanwhile_are_skipped(own_photos, backbone):
    shutil.copy(own_photos / "amber" / "00.png", own_photos / "moss" / "copy.png")
    dataset = with_contents(read(str(own_photos)))
    whole = extract(dataset, backbone, None)
    (own_photos / "amber" / "00.png").unlink()  # its copy is still there
    (own_photos / "moss" / "03.png").unlink()
    (own_photos / "slate" / "04.png").write_bytes((own_photos / "slate" / "05.png").read_bytes())
    features = extract(dataset, backbone, open_cache())
    assert {one.item.split("/")[-2:][-1]: one.reason for one in features.skipped} == {
        "03.png": "cannot be read: No such file or directory",
        "04.png": "changed while it was being worked on; run again",
    }
    assert len(features.rows) == 59
    assert (features.computed, features.cached) == (58, 0)
    assert features.x.tobytes() == whole.x[features.rows].tobytes()
    assert extract(dataset, backbone, open_cache()).x.tobytes() == features.x.tobytes()


def test_files_are_hashed_where_nobody_did_it(own_photos, backbone):
    dataset = read(str(own_photos))
    assert "content" not in dataset.columns
    (own_photos / "moss" / "03.png").unlink()
    features = extract(dataset, backbone, open_cache())
    assert [one.reason for one in features.skipped] == ["cannot be read: No such file or directory"]
    hole = with_contents(dataset.take(features.rows))
    keys = hole.table["content"].to_pylist()
    keys[5] = None
    hole = hole.with_column("content", pa.array(keys, pa.binary(16)))
    again = extract(hole, backbone, open_cache())
    assert again.computed == 0
    assert again.x.tobytes() == features.x.tobytes()


def test_what_is_no_image_is_skipped_with_its_reason(own_photos, backbone):
    (own_photos / "moss" / "03.png").write_text("not an image")
    (own_photos / "moss" / "04.png").write_bytes((own_photos / "moss" / "05.png").read_bytes()[:200])
    features = extract(read(str(own_photos)), backbone, open_cache())
    reasons = {one.item[-6:]: one.reason for one in features.skipped}
    assert reasons["03.png"].startswith("not an image in a known format")
    assert reasons["04.png"].startswith(("truncated", "damaged"))
    assert len(features.x) == 58


def test_nothing_can_be_read(own_photos, backbone):
    dataset = read(str(own_photos))
    shutil.rmtree(own_photos)
    features = extract(dataset, backbone, open_cache())
    assert features.x.shape == (0, backbone.card.features)
    assert len(features.skipped) == 60
    assert extract(dataset.take([]), backbone, open_cache()).x.shape == (0, backbone.card.features)


def test_a_remembered_value_of_the_wrong_size_is_computed_again(photos, backbone):
    dataset = read(str(photos)).take(range(3))
    first = extract(dataset, backbone, open_cache())
    (namespace,) = open_cache().info()["namespaces"]
    key = content_key(Path(dataset.path(1)).read_bytes())
    open_cache().put_many(namespace, [(key, b"short")])
    again = extract(dataset, backbone, open_cache())
    assert again.computed == 1
    assert again.x.tobytes() == first.x.tobytes()


def test_a_cache_that_refuses_costs_nothing_but_time(photos, backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "file"))
    dataset = read(str(photos))
    # by one engine: which one is faster is measured anew where nothing can be remembered
    kept, free = (extract(dataset, backbone, store, engine="onnxruntime") for store in (open_cache(), None))
    assert kept.x.tobytes() == free.x.tobytes()
    assert len(open_cache().notes) == 1


# batch sizes


def test_batches_follow_the_image_size():
    def size(side, device="cpu", asked=None):
        return choose_batch(Preprocess(side, side, (0, 0, 0), (1, 1, 1)), device, asked).value

    assert [size(side) for side in (16, 64, 112, 224, 384, 1024)] == [64, 24, 8, 2, 1, 1]
    assert [size(side, "cuda") for side in (16, 224)] == [1024, 128]
    assert size(224, asked=3) == 3
    with pytest.raises(BadSetting, match=r"--batch-size 0\. Expected 1 or more"):
        size(224, asked=0)


# death and interruption

RUN = """
import sys, time
from topwork.backbones import find
from topwork.features.extract import extract
from topwork.sources import read
from topwork.store.cache import open_cache
import topwork.features.remembering as module
module.WRITE_EVERY_SECONDS = 0.02
began = False
def progress(*what):
    global began
    began or print("began", flush=True)
    began = True
    time.sleep(0.01)
try:
    f = extract(read(sys.argv[1]), find("bundled"), open_cache(), batch_size=int(sys.argv[2]), progress=progress)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
print(f.computed, f.cached, flush=True)
"""


def start(*arguments):
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "began\n"
    return process


def test_a_killed_run_goes_on_and_gives_the_same_bits(photos, backbone):
    dataset = read(str(photos))
    undisturbed = extract(dataset, backbone, None, batch_size=4).x.tobytes()
    draw = random.Random(3)
    known = []
    for _ in range(4):
        process = start(photos, 4)
        time.sleep(draw.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        known.append(sum(part["entries"] for part in open_cache().info()["namespaces"].values()))
        open_cache().close()
    assert known == sorted(known)
    features = extract(dataset, backbone, open_cache(), batch_size=4)
    assert features.cached == known[-1]
    assert features.x.tobytes() == undisturbed
    assert open_cache().notes == []


def test_ctrl_c_stops_within_a_second_inside_a_long_batch(photos, tmp_path):
    process = start(photos, 4000)  # seconds per batch, one batch in all
    time.sleep(0.5)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 1.0
    assert (process.returncode, out) == (130, "interrupted\n"), err


def test_what_was_finished_before_ctrl_c_is_kept(photos, backbone, monkeypatch):
    monkeypatch.setattr(remembering, "WRITE_EVERY_SECONDS", 1e9)

    def progress(stage, done, total):
        if done >= 20:
            raise KeyboardInterrupt

    dataset = read(str(photos))
    with pytest.raises(KeyboardInterrupt):
        extract(dataset, backbone, open_cache(), batch_size=4, progress=progress)
    assert extract(dataset, backbone, open_cache(), batch_size=4).cached == 20


# memory


def test_the_result_is_allocated_once(tmp_path):
    """20,000 x 768 features are 61 MB: a second copy anywhere would show."""
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    draw = np.random.default_rng(0)
    for i in range(300):
        (tiny / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(tiny / "ab"[i % 2] / f"{i}.bmp")
    dataset = with_contents(read(str(tiny)))
    many = dataset.take(np.resize(np.arange(300), 20_000))
    backbone = find("bundled:pixels")
    extract(dataset, backbone, open_cache())
    tracemalloc.start()
    features = extract(many, backbone, open_cache())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert features.x.nbytes == 20_000 * 768 * 4
    assert peak < 1.3 * features.x.nbytes
    assert os.path.getsize(tmp_path / "cache" / "items-v1" / "data.mdb") < 5e6
