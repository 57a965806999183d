"""A folder is written and opened again: same labels, same answers, same bytes; damage is told."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image
from safetensors.numpy import load as read_tensors

from topwork.artefact import bundle, card
from topwork.artefact.model import load
from topwork.artefact.onnx import compose
from topwork.artefact.weights import tensors
from topwork.errors import BadData, BadSetting, BadWeights, StoreError
from topwork.modalities.image import decode
from topwork.modalities.image_graph import geometry
from topwork.nn import heads
from topwork.nn.session import session
from topwork.types import Card, Head, Metric, Preprocess, Skipped

LABELS = ("Kätzchen", "犬 | dog", "a\nb", "*bold*")
PREPROCESS = Preprocess(resize_px=36, crop_px=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TRUNK = """
<ir_version: 9, opset_import: ["" : 19]>
tiny (float[N, 3, 32, 32] images) => (float[N, 8] features)
{
    maps = Conv <strides = [4, 4]> (images, kernel)
    bent = Relu (maps)
    wide = Cast <to = 1> (scale)
    pooled = ReduceMean <keepdims = 0> (bent, axes)
    features = Mul (pooled, wide)
}"""


class Tiny:
    """A backbone small enough for a test, with one fp16 weight."""

    card = Card(spec="tiny", name="tiny", architecture="conv", preprocess=PREPROCESS, weights="ab" * 32, licence="MIT")

    def graph(self):
        model = parser.parse_model(TRUNK)
        draw = np.random.default_rng(3)
        arrays = {
            "kernel": draw.normal(0, 0.2, (8, 3, 4, 4)).astype(np.float32),
            "scale": draw.uniform(1, 2, 8).astype(np.float16),
            "axes": np.array([2, 3]),
        }
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        return model.SerializeToString()

    def module(self):
        raise NotImplementedError


def linear(activation="softmax", temperature=0.7):
    draw = np.random.default_rng(5)
    arrays = {"weight": draw.normal(0, 2, (8, 4)).astype(np.float32), "bias": draw.normal(0, 1, 4).astype(np.float32)}
    return Head("linear", arrays, activation, temperature, "logistic(l2=0.1)")


def knn():
    draw = np.random.default_rng(6)
    bank = heads.unit_rows(draw.uniform(0, 1, (12, 8)).astype(np.float32))
    votes = draw.dirichlet(np.ones(4), 12).astype(np.float32)
    return Head("knn", {"bank": bank, "votes": votes}, "softmax", 1.3, "knn(k=3)", {"k": 3})


def write(folder, head=None, multilabel=False):
    head = head or linear()
    folder.mkdir(parents=True)
    manifest = bundle.write(
        folder,
        onnx=compose(Tiny(), head, LABELS),
        weights=tensors(Tiny().graph(), head),
        card=Tiny.card,
        head=head,
        labels=LABELS,
        task="image-classification",
        multilabel=multilabel,
        name="pets",
        data={"name": "pets", "items": 40, "hash": "cd" * 16},
        history=("read", "split"),
    )
    recall = {label: Metric(v, v - 0.05, v + 0.05, 20) for label, v in zip(LABELS, (0.9, 0.9, 0.9, 0.3), strict=True)}
    metrics = {"accuracy": Metric(0.75, 0.6, 0.85, 40)}
    text = card.render(manifest, metrics, measured_on="the test split", recall=recall, proof="same label for 40 of 40")
    bundle.add(folder, {"README.md": text.encode(), "report.json": b'{"metrics": {}}', "report.html": b"<p>"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "pets")


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def photo():
    draw = np.random.default_rng(1)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((80, 60), Image.Resampling.BICUBIC))


@pytest.fixture
def jpeg(photo, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(photo).save(path, quality=95)
    return path


def by_hand(head, pixels):
    """The same answer without the joined graph: geometry alone, then numpy."""
    crop = session(geometry(PREPROCESS).SerializeToString(), 1).run(None, {"pixels": pixels[None]})[0][0]
    x = (crop / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)  # (32, 32, 3)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(Tiny().graph()).graph.initializer}
    patches = x.reshape(8, 4, 8, 4, 3)
    maps = np.einsum("aibjc,dcij->dab", patches, arrays["kernel"])
    features = np.maximum(maps, 0).mean((1, 2)) * arrays["scale"].astype(np.float32)
    return heads.probabilities(head, features[None].astype(np.float32))[0]


@pytest.mark.parametrize("head", [linear(), linear("sigmoid", 2.0), knn()], ids=["softmax", "sigmoid", "knn"])
def test_answers_are_those_of_the_parts(head, tmp_path, photo):
    model = load(write(tmp_path / "m", head))
    np.testing.assert_allclose(model.probabilities(photo)[0], by_hand(head, photo), atol=2e-6)
    p, logits = model.session.run(["probabilities", "logits"], {"pixels": photo[None]})
    np.testing.assert_allclose(heads.activate(logits, head.activation, head.temperature), p, atol=1e-6)


def test_labels_and_facts_survive(model):
    assert model.labels == LABELS
    assert json.loads(model.session.get_modelmeta().custom_metadata_map["labels"]) == list(LABELS)
    assert (model.task, model.multilabel, model.card) == ("image-classification", False, Tiny.card)
    assert model.report == {"metrics": {}}
    assert [o.name for o in model.session.get_outputs()] == ["probabilities", "logits", "features"]


def test_weights_hold_trunk_and_head(folder, photo, model):
    arrays = read_tensors((folder / "model.safetensors").read_bytes())
    assert arrays["trunk.scale"].dtype == np.float16
    features, logits = model.session.run(["features", "logits"], {"pixels": photo[None]})
    np.testing.assert_allclose(features @ arrays["head.weight"] + arrays["head.bias"], logits, rtol=1e-5)


def test_same_parts_same_bytes(folder, tmp_path):
    again = write(tmp_path / "elsewhere" / "pets")
    for file in ("model.json", "model.onnx", "model.safetensors", "README.md"):
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file
    assert not re.search(r"seconds|20\d\d-\d\d", (folder / "model.json").read_text(encoding="utf-8"))


def test_bytes_do_not_depend_on_the_process(folder):
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_artefact as t, hashlib\n"
    code += "print(hashlib.sha256(t.compose(t.Tiny(), t.linear(), t.LABELS)).hexdigest())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


def test_moved_folder_answers_the_same(folder, model, tmp_path, jpeg, monkeypatch):
    moved = tmp_path / "moved to" / "新"
    shutil.copytree(folder, moved)
    monkeypatch.chdir(moved.parent)
    assert load("新").predict(jpeg) == model.predict(jpeg)


@pytest.mark.parametrize("times", [1, 9])
def test_readme_snippet_runs_and_agrees(folder, model, tmp_path, photo, times):
    shutil.copytree(folder, tmp_path / "m")
    Image.fromarray(np.tile(photo, (times, times, 1))).save(tmp_path / "m" / "new.jpg", quality=95)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    (plain,) = [block for block in blocks if "onnxruntime" in block]
    done = subprocess.run([sys.executable, "-c", plain], cwd=tmp_path / "m", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = model.predict(tmp_path / "m" / "new.jpg")
    *label, p = done.stdout.split()
    assert label == answer.label.split()
    assert float(p) == pytest.approx(answer.probability, abs=1e-6)


def test_opened_jpeg_is_read_like_its_file_and_left_alone(model, tmp_path, photo):
    Image.fromarray(np.tile(photo, (9, 9, 1))).save(tmp_path / "large.jpg", quality=95)
    expected = model.probabilities(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as opened:
        np.testing.assert_array_equal(model.probabilities(opened), expected)
        assert opened.size == (720, 540)
        full = model.probabilities(np.asarray(opened))
        np.testing.assert_array_equal(model.probabilities(opened), full)  # loaded now: its own pixels count
    assert not np.array_equal(full, expected)


def test_readme_tells_what_matters(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("0.750", "0.600 to 0.850", "cd" * 16, "MIT", "same label for 40 of 40", "Kätzchen", r"犬 \| dog"):
        assert part in text
    assert re.findall(r"\* Weak: (\S+),", text) == [r"\*bold\*"]


def test_every_kind_of_input_gives_the_same_answer(model, jpeg, photo):
    pixels = decode(jpeg)
    with Image.open(jpeg) as opened:
        inputs = [jpeg, str(jpeg), jpeg.read_bytes(), bytearray(jpeg.read_bytes()), opened, Image.fromarray(pixels)]
        inputs += [
            pixels,
            pixels.astype(np.uint16) * 257,
            pixels / 255,
            np.dstack([pixels, np.full((60, 80), 255, "u1")]),
        ]
        expected = model.predict(pixels)
        for x in inputs:
            answer = model.predict(x)
            assert (answer.label, answer.top) == (expected.label, expected.top), type(x)
    assert model.predict(jpeg).input == str(jpeg)
    assert model.predict(pixels).input == "input 1"


def test_grey_alpha_and_deep_arrays_follow_files(model, photo, tmp_path):
    grey = photo[..., 0]
    alpha = np.dstack([photo, photo[..., 1]])
    deep = grey.astype(np.uint16) * 200 + 7
    for name, array in {"grey": grey, "alpha": alpha, "deep": deep}.items():
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        from_file = model.probabilities(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(model.probabilities(array), from_file, err_msg=name)
        np.testing.assert_array_equal(model.probabilities(Image.fromarray(array)), from_file, err_msg=name)
    np.testing.assert_array_equal(model.probabilities(grey[..., None]), model.probabilities(grey))
    np.testing.assert_array_equal(
        model.probabilities(Image.fromarray(grey / np.float32(255))), model.probabilities(grey)
    )


def test_pillow_image_is_turned_upright(model, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        np.testing.assert_array_equal(model.probabilities(opened), model.probabilities(tmp_path / "turned.png"))
    np.testing.assert_array_equal(
        model.probabilities(tmp_path / "turned.png"), model.probabilities(np.rot90(photo, -1))
    )


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((3, 9, 9), np.uint8), "transpose"),
        (np.zeros((9, 9, 5), np.uint8), r"\(9, 9, 5\)"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
        (np.zeros((9, 9, 3), np.int64), "int64"),
        (np.full((9, 9, 3), 200.0), "0..1"),
        (np.full((9, 9), np.nan), "0..1"),
        ("nowhere.jpg", "nowhere.jpg: cannot be read"),
        (b"text", "known format"),
        (7, "a int is not an image"),
        ([None], "a NoneType is not an image"),
    ],
)
def test_wrong_inputs_are_named(model, x, words):
    with pytest.raises(BadData, match=words):
        model.predict(x)
    with pytest.raises(BadSetting, match="at least 1"):
        model.predict("x.jpg", top=0)


def test_many_are_answered_as_one_by_one(model, photo):
    images = [np.roll(photo, i, 1)[: 60 - i] for i in range(30)]
    alone = [model.predict(image).top for image in images]
    assert [answer.top for answer in model.predict(images)] == alone
    assert [answer.top for answer in model.predict(iter(images))] == alone
    assert [answer.top for answer in load(model.folder, threads=1).predict(images)] == alone
    batch = np.stack([np.roll(photo, i, 1) for i in range(5)])
    together = model.session.run(["probabilities"], {"pixels": batch})[0]
    np.testing.assert_allclose(model.probabilities(batch), together, atol=1e-6)
    assert model.predict([]) == []
    assert model.probabilities([]).shape == (0, 4)


def test_stream_goes_on_where_an_input_is_bad(model, photo, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    answers = list(model.stream([photo, bad, photo], top=2))
    assert answers[1] == Skipped(str(bad), "empty file (0 bytes)")
    assert answers[0].top == answers[2].top
    assert answers[2].input == "input 3"
    assert answers[0].to_json() == {
        "input": "input 1",
        "label": answers[0].label,
        "probability": answers[0].probability,
        "top": [[label, p] for label, p in answers[0].top],
    }
    assert len(answers[0].top) == 2
    assert answers[0].top[0] == (answers[0].label, answers[0].probability)


def test_stream_reads_only_a_few_ahead(model, photo):
    asked = []
    stream = model.stream(asked.append(i) or photo for i in range(1000))
    next(stream)
    stream.close()
    assert len(asked) <= 2 * model.threads + 2


def test_multilabel_gives_every_sure_label(tmp_path, photo):
    model = load(write(tmp_path / "m", linear("sigmoid"), multilabel=True))
    answer = model.predict(photo)
    p = model.probabilities(photo)[0]
    assert set(answer.labels) == {label for label, value in zip(LABELS, p, strict=True) if value > 0.5}
    assert answer.to_json()["labels"] == list(answer.labels)


def test_broken_images_get_their_fate(model, broken):
    skipped = {"truncated.jpg", "zero_bytes.jpg", "text_named.png", "bomb_20000x20000.png"}
    paths = sorted((broken / "images").iterdir())
    answers = list(model.stream(paths))
    assert {os.path.basename(a.item) for a in answers if isinstance(a, Skipped)} == skipped
    assert sum(not isinstance(a, Skipped) for a in answers) == len(paths) - len(skipped)


def test_predicting_loads_nothing_heavy(folder, jpeg):
    code = "import sys; from topwork.artefact.model import load; load(sys.argv[1]).predict([sys.argv[2]] * 3)"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, folder, jpeg], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "timm", "pyarrow", "sklearn", "onnx", "scipy", "pandas", "pickle5", "safetensors"}
    assert {"onnxruntime", "numpy", "PIL"} <= loaded


def test_damage_is_told(folder, tmp_path):
    def copy(name):
        return shutil.copytree(folder, tmp_path / name)

    with pytest.raises(StoreError, match="not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no model\.json"):
        load(tmp_path)
    for i, text in enumerate(("{", "[]", "{}", '"x"')):
        damaged = copy(f"damaged{i}")
        (damaged / "model.json").write_text(text)
        with pytest.raises(StoreError, match="damaged"):
            load(damaged)
    for file in bundle.CHECKED:
        changed = copy(f"changed_{file}")
        content = bytearray((changed / file).read_bytes())
        content[len(content) // 2] ^= 1
        (changed / file).write_bytes(content)
        with pytest.raises(BadWeights, match=f"{file} was changed"):
            load(changed)
        (changed / file).unlink()
        with pytest.raises(BadWeights, match=f"{file} is missing"):
            load(changed)


def test_other_formats_are_told(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    manifest = json.loads((folder / "model.json").read_bytes())
    for change, words in (({"format": 2}, "Upgrade"), ({"format": 0}, "Fit again"), ({"backbone": {}}, "damaged")):
        (tmp_path / "m" / "model.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(StoreError, match=words):
            load(tmp_path / "m")


def test_model_lives_without_what_is_only_read(folder, tmp_path, photo):
    shutil.copytree(folder, tmp_path / "m")
    for file in ("README.md", "report.json", "report.html"):
        (tmp_path / "m" / file).unlink()
    model = load(tmp_path / "m")
    assert model.predict(photo).label in LABELS
    with pytest.raises(StoreError, match=r"report\.json is missing"):
        _ = model.report


def test_labels_must_fit_the_head(folder, tmp_path):
    with pytest.raises(BadWeights, match="4 classes apart, but there are 3"):
        compose(Tiny(), linear(), LABELS[:3])
    shutil.copytree(folder, tmp_path / "m")
    manifest = json.loads((folder / "model.json").read_bytes())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**manifest, "labels": ["one", "two"]}))
    with pytest.raises(BadWeights, match=r"4 classes, model\.json 2 labels"):
        load(tmp_path / "m").predict(np.zeros((4, 4, 3), np.uint8))


def test_checksums_are_sha256_of_the_files(folder):
    files = json.loads((folder / "model.json").read_bytes())["files"]
    for file, facts in files.items():
        content = (folder / file).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
