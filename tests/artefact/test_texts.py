"""A model of texts is written and opened again: same answers from every kind of input, no torch, damage is told."""

import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from topwork.artefact import bundle, texts
from topwork.artefact.model import load
from topwork.artefact.onnx import compose, regraft
from topwork.artefact.proof import prove
from topwork.artefact.weights import tensors
from topwork.errors import BadData, BadWeights, ProofFailed, StoreError
from topwork.modalities.text import PAIR
from topwork.nn import heads
from topwork.types import Skipped

from ._texts import LABELS, WORDS, TinyText, head, write

TEXTS = ["A good film!", "awful", "the film was not great.", "", "bad bad bad", "好", "word unknown here", "a" * 3000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("models") / "films")


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def by_hand(text):
    """The same answer without a graph."""
    ids, _ = TinyText.reader.encode([text])
    mean = TinyText().table()[ids].mean(0) if len(ids) else np.zeros(6, np.float32)
    return heads.probabilities(head(), mean[None].astype(np.float32))[0]


def test_answers_are_those_of_the_parts(model):
    np.testing.assert_allclose(model.probabilities(TEXTS), np.stack([by_hand(text) for text in TEXTS]), atol=1e-6)
    assert model.predict("A great film!").label == "positive"
    assert (model.modality, model.task, model.card) == ("text", "text-classification", TinyText.card)
    (features,) = model.features(["good"])
    np.testing.assert_allclose(features, TinyText().table()[WORDS.index("good")], rtol=1e-6)


def test_windows_of_a_text_are_averaged(model):
    ids = np.array([[5, 6, 0], [7, 0, 0], [3, 4, 5]])
    weights = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.float32)
    features, p = model.session.run(["features", "probabilities"], {"ids": ids, "weights": weights})
    rows = TinyText().table()
    each = np.stack([rows[[5, 6]].mean(0), rows[7], rows[[3, 4, 5]].mean(0)])
    np.testing.assert_allclose(features, each.mean(0)[None], rtol=1e-5)
    np.testing.assert_allclose(p, heads.probabilities(head(), each.mean(0)[None]), atol=1e-6)


def test_every_kind_of_input_gives_the_same_answer(model, tmp_path):
    text = "A good film, 好!"
    path = tmp_path / "review.txt"
    path.write_text(text, encoding="utf-8")
    expected = model.predict(text)
    marked = [text.encode("utf-16"), text.encode("utf-8-sig")]
    inputs = [text.encode(), bytearray(text.encode()), *marked, path, io.StringIO(text), io.BytesIO(text.encode())]
    for x in (*inputs, np.str_(text)):
        assert model.predict(x).top == expected.top, type(x)
    with path.open(encoding="utf-8") as file:
        answer = model.predict(file)
    assert (answer.top, answer.input) == (expected.top, str(path))
    assert model.predict(path).input == str(path)
    assert model.predict(text.encode()).input == "input 1"
    assert expected.input == text
    (tmp_path / "good").write_text("awful")
    assert model.predict("good").label == "positive"  # a str is never a path


def test_a_pair_is_one_text_and_a_list_is_two(model):
    pair = model.predict(("good", "bad"))
    assert pair.top == model.predict(f"good{PAIR}bad").top
    assert pair.input == "good | bad"
    assert [answer.label for answer in model.predict(["good", "bad"])] == ["positive", "negative"]
    assert len(model.predict([("good", "bad"), ("bad", "bad")])) == 2


def test_names_are_short_and_on_one_line():
    assert texts.name_of("one\n  two\tthree", 3) == "one two three"
    assert texts.name_of(" \n", 3) == texts.name_of(b"x", 3) == "input 3"
    long = texts.name_of("word " * 100_000, 1)
    assert len(long) <= texts.SHOWN
    assert long.endswith("word…")
    assert len(texts.name_of("x" * 500_000, 1)) == texts.SHOWN
    assert texts.name_of(f"{'a' * 200}{PAIR}b", 1) == "a" * (texts.SHOWN - 1) + "…"


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (b"caf\xe9", "not UTF-8: byte 4 is 0xe9"),
        (b"\xff\xfea", "not UTF-16"),
        ("half \ud83d", "not UTF-8: character 6"),
        ([None], "a NoneType is not a text"),
        (7, "a int is not a text"),
        ([{"text": "x"}], "a dict is not a text"),
    ],
)
def test_wrong_inputs_are_named(model, x, words):
    with pytest.raises(BadData, match=words):
        model.predict(x)


def test_stream_goes_on_where_an_input_is_bad(model, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    given = ["good", b"\xff", tmp_path / "nowhere.txt", tmp_path / "latin.txt", tmp_path, "", "nul \0 good"]
    answers = list(model.stream(given))
    assert [isinstance(answer, Skipped) for answer in answers] == [False, True, True, True, True, False, False]
    assert answers[1].item == "input 2"
    assert answers[2] == Skipped(str(tmp_path / "nowhere.txt"), "cannot be read: No such file or directory")
    assert answers[5].input == "input 6"
    assert answers[6].label == "positive"


def test_many_are_answered_as_one_by_one(model, folder):
    many = [f"{'good ' * (i % 7)}{'awful ' * (i % 5)}film {i}" for i in range(60)]
    alone = [model.predict(text).top for text in many]
    assert [answer.top for answer in model.predict(many)] == alone
    for threads in (1, 4):
        assert [answer.top for answer in load(folder, threads=threads).stream(iter(many))] == alone
    assert model.predict([]) == []


def test_predicting_loads_nothing_heavy(folder):
    code = "import sys; from topwork.artefact.model import load; load(sys.argv[1]).predict(['good', 'bad'] * 3)"
    code += "; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {"torch", "transformers", "tokenizers", "pyarrow", "sklearn", "onnx", "scipy", "pandas", "safetensors"}
    assert not loaded & heavy


def test_same_parts_same_bytes(folder, tmp_path):
    again = write(tmp_path / "films")
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["README.md", "model.json", "model.onnx", "model.safetensors", "reader.json", "vocabulary.txt"]
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file
    manifest = json.loads((folder / "model.json").read_bytes())
    assert manifest["reader"] == ["reader.json", "vocabulary.txt"]
    assert manifest["modality"] == "text"
    assert set(manifest["files"]) == {*files} - {"README.md", "model.json"}


def test_readme_snippet_runs_and_agrees(folder, model):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "a text gets one of 2 labels" in readme
    assert "picture" not in readme
    assert "image" not in readme
    (plain,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "onnxruntime" in b]
    done = subprocess.run([sys.executable, "-c", plain], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = model.predict("some text")
    assert done.stdout.split()[0] == answer.label
    assert float(done.stdout.split()[1]) == pytest.approx(answer.probability, abs=1e-6)


def test_damage_is_told(folder, tmp_path):
    for file in ("reader.json", "vocabulary.txt"):
        changed = shutil.copytree(folder, tmp_path / f"changed {file}")
        (changed / file).write_bytes((changed / file).read_bytes() + b" ")
        with pytest.raises(BadWeights, match=f"{file} was changed"):
            load(changed)
        (changed / file).unlink()
        with pytest.raises(BadWeights, match=f"{file} is missing"):
            load(changed)
    for names in (["../reader.json"], ["reader.json", "/etc/passwd"], "reader.json", [3], ["unknown.txt"]):
        manifest = json.loads((folder / "model.json").read_bytes()) | {"reader": names}
        bad = shutil.copytree(folder, tmp_path / "bad", dirs_exist_ok=True)
        (bad / "model.json").write_text(json.dumps(manifest))
        with pytest.raises(StoreError, match="damaged"):
            load(bad)
    (bad / "model.json").write_text(json.dumps(manifest | {"reader": []}))
    with pytest.raises(BadWeights, match=r"reader\.json is missing"):
        load(bad).predict("good")


@pytest.mark.parametrize("name", ["../x", "a/b", "model.onnx", "model.json", ".hidden", "a\\b", "c:x"])
def test_a_readers_files_stay_in_their_place(name, tmp_path):
    backbone = TinyText()
    parts = {"onnx": b"", "weights": b"", "card": backbone.card, "head": head(), "labels": LABELS, "task": "t"}
    with pytest.raises(BadWeights, match="cannot be saved as"):
        bundle.write(tmp_path, **parts, reader={**backbone.reader.files(), name: b""})
    with pytest.raises(BadWeights, match="no pair"):
        bundle.write(tmp_path, **parts)
    assert not list(tmp_path.iterdir())


def test_trunks_that_read_something_else_are_refused():
    class Odd(TinyText):
        def graph(self):
            model = onnx.load_from_string(TinyText().graph())
            model.graph.input[0].name = model.graph.node[0].input[1] = "tokens"
            return model.SerializeToString()

    with pytest.raises(BadWeights, match=r"reads tokens, weights\. Expected ids and weights"):
        compose(Odd(), head(), LABELS)


def test_another_head_leaves_the_rest(folder):
    graph = (folder / "model.onnx").read_bytes()
    assert regraft(graph, head(), LABELS) == graph
    assert onnx.load_from_string(regraft(graph, head(), LABELS)).metadata_props[1].value == "text-classification"


class Remembering:
    """A store in memory."""

    def __init__(self):
        self.kept = {}

    def get_many(self, _, keys):
        return [self.kept.get(key) for key in keys]

    def put_many(self, _, pairs):
        self.kept |= dict(pairs)


def test_texts_are_proven_in_a_new_process(folder, tmp_path):
    expected = np.stack([by_hand(text) for text in TEXTS])
    contents, store = [bytes([i]) * 16 for i in range(len(TEXTS))], Remembering()
    proof = prove(folder, TEXTS, expected, contents=contents, store=store)
    assert (proof.agreement, proof.reused) == (1.0, False)
    assert proof.fact.startswith("same label for 8 of 8 texts, ")
    again = prove(folder, TEXTS, expected, contents=contents, store=store)
    assert "asked before for these bytes and texts" in again.text

    class Reordered(TinyText):
        reader = type(TinyText.reader).of([*WORDS[:5], "great", *WORDS[6:7], "good", *WORDS[8:]])

    other = write(tmp_path / "other", backbone=Reordered())  # the same graph, another vocabulary
    assert (other / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    with pytest.raises(ProofFailed, match=r"of 8 labels differ|probability difference.*A good film!"):
        prove(other, TEXTS, expected, contents=contents, store=store)
    assert len(store.kept) == 2


def test_what_cannot_be_proven_names_the_text(folder):
    expected = np.stack([by_hand(text) for text in TEXTS])
    with pytest.raises(ProofFailed, match=r"8 of 8 labels differ.*; awful: saved"):
        prove(folder, TEXTS, expected[:, ::-1].copy())
    with pytest.raises(ProofFailed, match=r"\(text 2\): \?: not UTF-8"):
        prove(folder, ["good", "\ud800"], expected[:2])


def test_a_model_of_the_bundled_embedding(tmp_path):
    from topwork.backbones import find

    backbone = find("bundled:text_small", "text")
    draw = np.random.default_rng(1)
    arrays = {"weight": draw.normal(0, 3, (backbone.card.features, 2)).astype(np.float32), "bias": np.zeros(2, "f4")}
    top = type(head())("linear", arrays, "softmax", 1.0, "logistic")
    model = load(write(tmp_path / "m", top, backbone))
    given = ["What a film!", "", "An awful, awful bore. " * 40, "一部好电影"]
    np.testing.assert_allclose(np.stack(list(model.features(given))), backbone.encode(given), atol=2e-6)
    np.testing.assert_allclose(model.probabilities(given), heads.probabilities(top, backbone.encode(given)), atol=1e-5)
    saved = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(backbone.graph()).graph.initializer}
    assert {f"trunk.{name}" for name in saved} <= set(_names(tensors(backbone.graph(), top)))


def _names(weights):
    from safetensors.numpy import load as read

    return read(weights)


def test_a_model_of_ngrams_adds_up_rows(tmp_path):
    from topwork.backbones import find

    given = [f"{'good ' * (i % 4)}film number {i} was {'not ' * (i % 3)}bad" for i in range(40)]
    backbone = find("bundled:ngrams", "text").fitted(given)
    D = backbone.card.features
    draw = np.random.default_rng(2)
    arrays = {"weight": draw.normal(0, 3, (D, 3)).astype(np.float32), "bias": draw.normal(0, 1, 3).astype(np.float32)}
    top = type(head())("linear", arrays, "softmax", 1.3, "sparse_logistic")
    model = load(write(tmp_path / "m", top, backbone, ("a", "b", "c")))
    asked = [*given, "", "nothing known: xyz"]
    features = np.stack(list(model.features(asked)))
    tokens = backbone.reader.read(asked)
    dense = np.zeros((len(asked), D), np.float32)
    for window, row in enumerate(tokens.owner):
        ids, weights = tokens.padded(np.array([window]))
        np.add.at(dense[row], ids[0], weights[0])
    np.testing.assert_allclose(features, dense, atol=1e-6)
    np.testing.assert_allclose(model.probabilities(asked), heads.probabilities(top, dense), atol=1e-5)
    assert "Gemm" not in {node.op_type for node in onnx.load(model.folder / "model.onnx").graph.node}
    twice = [np.tile(part, (2, 1)) for part in tokens.padded(np.array([3]))]  # the mean of two windows that are alike
    p = model.session.run(["probabilities"], dict(zip(("ids", "weights"), twice, strict=True)))[0]
    np.testing.assert_allclose(p[0], model.probabilities(asked[3])[0], atol=1e-6)
    assert "can be told" in (model.folder / "README.md").read_text()


def test_a_text_whose_end_is_not_read_says_so(model, monkeypatch):
    from topwork.modalities import wordpiece

    monkeypatch.setattr(wordpiece, "LONGEST", 4)
    long, short = model.predict(["good good good good bad bad bad bad", "good bad"])
    assert (long.cut, short.cut) == (True, False)
    assert long.to_json()["cut"] is True
    assert "cut" not in short.to_json()
    np.testing.assert_allclose(dict(long.top)["positive"], by_hand("good")[1], atol=1e-6)


def test_a_block_of_nothing_but_bad_inputs(model):
    assert all(isinstance(answer, Skipped) for answer in model.stream([None, b"\xff"] * 20))
