"""Features of texts: those of the backbone, the same bits in any company, once per content."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from topwork.backbones import find
from topwork.errors import BadSetting
from topwork.features import texts as module
from topwork.features.contents import content_key, distinct
from topwork.features.extract import extract
from topwork.modalities.text import Tokens
from topwork.nn.session import session
from topwork.store.cache import open_cache
from topwork.types import Card, Dataset, Preprocess

GRAPH = """
<ir_version: 9, opset_import: ["" : 19]>
trunk (int64[W, L] ids, float[W, L] weights) => (float[W, 24] features) {
    tokens = Constant <value = int64[1] {1}> ()
    rows = Gather <axis = 0> (table, ids)
    mixed = MatMul (rows, square)
    bent = Tanh (mixed)
    weights3 = Unsqueeze (weights, tokens)
    sum3 = MatMul (weights3, bent)
    sum = Squeeze (sum3, tokens)
    size = ReduceSum <keepdims = 1> (weights, tokens)
    features = Div (sum, size)
}"""


@dataclass(frozen=True)
class Letters:
    """A reader of letters: windows of ten, at most four of them."""

    kind = "tokens"
    longest = 10
    most = 4

    def read(self, texts):
        ids, ends, owner, cut = [], [0], [], []
        for row, text in enumerate(texts):
            numbers = [ord(char) % 64 for char in text] or [1]
            parts = [numbers[i : i + 10] for i in range(0, len(numbers), 10)]
            cut.append(len(parts) > 4)
            for part in parts[:4]:
                ids += part
                ends.append(len(ids))
                owner.append(row)
        return Tokens(np.array(ids, np.int32), None, np.array(ends), np.array(owner, np.int64), np.array(cut, bool))


class Small:
    """A backbone of letters; counts what is asked of it."""

    reader = Letters()

    def __init__(self):
        self.asked = 0

    @property
    def card(self):
        return Card("local:small", "small", "test", Preprocess(0, 0, (0, 0, 0), (1, 1, 1)), "x", 24, modality="text")

    def graph(self):
        from onnx import numpy_helper, parser

        self.asked += 1
        draw = np.random.default_rng(0)
        model = parser.parse_model(GRAPH)
        tensors = {"table": draw.normal(size=(64, 48)), "square": draw.normal(size=(48, 24)) / 7}
        model.graph.initializer.extend(numpy_helper.from_array(t.astype(np.float32), n) for n, t in tensors.items())
        return model.SerializeToString()

    def module(self):
        raise BadSetting("no torch here")


def dataset(texts):
    columns = {
        "item": [f"text {i}" for i in range(len(texts))],
        "text": texts,
        "target": [i % 2 for i in range(len(texts))],
    }
    return Dataset(pa.table(columns), "", ("a", "b"), modality="text")


def some_texts(many=300, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, 60, many)
    return ["".join(chr(97 + c) for c in draw.integers(0, 26, size)) for size in sizes]


def one_by_one(texts, backbone):
    """The plainest way: every window alone, without padding; the mean of a text's windows."""
    running, read = session(backbone.graph(), 1), backbone.reader.read(texts)
    x = []
    for row in range(len(texts)):
        parts = []
        for window in np.flatnonzero(read.owner == row):
            ids, weights = read.padded(np.array([window]))
            parts.append(running.run(None, {"ids": ids, "weights": weights})[0][0])
        x.append(np.mean(parts, axis=0))
    return np.array(x)


def test_features_are_those_of_the_backbone():
    texts, backbone = [*some_texts(), "", "again", "again", "x" * 200], Small()
    features = extract(dataset(texts), backbone, open_cache(), threads=2)
    assert np.allclose(features.x, one_by_one(texts, backbone), atol=1e-5)
    assert features.x.dtype == np.float32
    assert features.rows.tolist() == list(range(len(texts)))
    assert features.computed == len(set(texts))
    assert features.skipped == ()
    assert features.key.startswith(f"{backbone.card.key}/onnxruntime")


def test_the_second_time_nothing_runs_and_long_texts_are_still_told():
    texts, backbone = [*some_texts(), "x" * 200, "x" * 200, "y" * 41], Small()
    first = extract(dataset(texts), backbone, open_cache())
    asked = backbone.asked
    second = extract(dataset(texts), backbone, open_cache())
    assert backbone.asked == asked
    assert (second.computed, second.cached) == (0, len(set(texts)))
    assert second.x.tobytes() == first.x.tobytes()
    assert second.choices == first.choices
    told = {choice.name: choice for choice in first.choices}
    assert told["texts in windows"].value == sum(len(text) > 10 for text in texts)
    assert told["texts cut"].value == sum(len(text) > 40 for text in texts)
    assert "more than 10 tokens" in told["texts in windows"].reason
    assert "only the first 4 windows are read" in told["texts cut"].reason
    assert {choice.name for choice in extract(dataset(["a"]), backbone, None).choices} == {"engine", "batch size"}


def test_the_bits_do_not_depend_on_the_company():
    texts, backbone = list(dict.fromkeys(some_texts(400))), Small()
    together = extract(dataset(texts), backbone, None, threads=2).x
    store = open_cache()
    for part in (texts[:7], texts[50:300:3], texts):  # as after two kills
        resumed = extract(dataset(part), backbone, store)
    assert resumed.x.tobytes() == together.tobytes()
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = extract(dataset([texts[i] for i in order]), backbone, None)
    assert shuffled.x.tobytes() == together[order].tobytes()


def test_slabs_change_nothing(monkeypatch):
    texts, backbone = some_texts(100), Small()
    whole = extract(dataset(texts), backbone, None).x
    monkeypatch.setattr(module, "SLAB", 16)
    assert extract(dataset(texts), backbone, None).x.tobytes() == whole.tobytes()


def test_batches_have_a_shape_of_their_length_and_waste_little():
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(3.2, 0.6, 20_000).astype(np.int64), 2, 256)  # as sentences are
    batches = module.plan(lengths, module.CPU_TOKENS, None, 256)
    assert np.array_equal(np.sort(np.concatenate([windows for _, _, windows in batches])), np.arange(20_000))
    shapes = {}
    for length, size, windows in batches:
        assert shapes.setdefault(length, size) == size
        assert len(windows) <= size
        assert lengths[windows].max() <= length
        assert length * size <= module.CPU_TOKENS
    worked = sum(length * size for length, size, _ in batches)
    assert lengths.sum() / worked > 0.93
    assert [length for length, _, _ in batches] == sorted((length for length, _, _ in batches), reverse=True)


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 2), (31, 32), (33, 36), (65, 72), (129, 144), (250, 256), (256, 256)]
)
def test_padded_length(length, padded):
    assert module.padded_length(length, 256) == padded
    assert module.padded_length(9, 9) == 9


def test_progress_is_told_and_settings_are_checked():
    told = []
    extract(dataset(some_texts(50)), Small(), None, progress=lambda *said: told.append(said), batch_size=3)
    assert told[-1][1] == told[-1][2] == len(set(some_texts(50)))
    for options, message in (({"engine": "jax"}, "No engine 'jax'"), ({"batch_size": 0}, "--batch-size 0")):
        with pytest.raises(BadSetting, match=message):
            extract(dataset(["a"]), Small(), None, **options)


def test_torch_gives_the_same():
    torch = pytest.importorskip("torch", reason="needs the train extra")
    backbone = find("bundled:text_small", "text")
    data = dataset(["What a film!", "", "good " * 40, "What a film!"])
    by_numpy, by_onnx, by_torch = (extract(data, backbone, None, engine=e) for e in ("auto", "onnxruntime", "torch"))
    assert np.allclose(by_numpy.x, by_onnx.x, atol=1e-5)
    assert np.allclose(by_numpy.x, by_torch.x, atol=1e-5)
    assert by_numpy.x.tobytes() == backbone.encode(data.inputs()).tobytes()
    assert len({by_numpy.key, by_onnx.key, by_torch.key}) == 3
    assert torch is not None


def test_static_features_repeat_what_is_the_same():
    backbone, texts = find("bundled:text_small", "text"), ["a", "b c", "a", "b c", "d"]
    features = extract(dataset(texts), backbone, open_cache())
    assert np.array_equal(features.x, backbone.encode(texts))
    assert features.computed == 3


def test_ngrams_are_sparse():
    texts = ["a good film", "a bad film", "a good film", "so good", ""] * 6
    backbone = find("bundled:ngrams", "text").fitted(texts)
    features = extract(dataset(texts), backbone, None)
    assert features.x.format == "csr"
    assert features.x.shape == (30, backbone.card.features)
    read = backbone.reader.read(texts)
    assert np.allclose(
        features.x.sum(axis=1), np.add.reduceat(np.append(read.weights, 0), read.ends[:-1]) * (read.lengths > 0)
    )
    assert (features.x[[0]] != features.x[[2]]).nnz == 0
    with pytest.raises(BadSetting, match="not fitted"):
        extract(dataset(texts), find("bundled:ngrams"), None)


def test_contents_of_texts():
    found = distinct(dataset(["a", "b", "a", "\ud800" if False else "ü"]))
    assert found.index.tolist() == [0, 1, 0, 2]
    assert found.keys[2] == content_key("ü".encode())


def test_an_engine_that_fails_ends_everything_soon():
    class Failing(Small):
        def graph(self):
            return super().graph().replace(b"Tanh", b"Tanq")

    from topwork.errors import BadWeights

    with pytest.raises(BadWeights):
        extract(dataset(some_texts(500)), Failing(), None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("extract")]


RUN = """
    import sys, time
    sys.path.insert(0, {here!r})
    from test_texts import Small, dataset, some_texts
    from topwork.features import text_engines
    from topwork.features.extract import extract
    from topwork.store.cache import open_cache
    import numpy as np
    forward = text_engines.OnnxTexts.forward
    def slow(self, ids, weights):
        time.sleep({seconds})
        return forward(self, ids, weights)
    text_engines.OnnxTexts.forward = slow
    print("ready", flush=True)
    found = extract(dataset(some_texts(400)), Small(), open_cache(), batch_size=4)
    print(found.cached, flush=True)
    np.save({out!r}, found.x)
"""


def started(tmp_path, seconds):
    code = textwrap.dedent(RUN).format(here=os.path.dirname(__file__), seconds=seconds, out=str(tmp_path / "x.npy"))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_extraction_goes_on_with_the_same_bits(tmp_path, end):
    undisturbed = extract(dataset(some_texts(400)), Small(), None, batch_size=4)
    with started(tmp_path, 0.05) as one:
        assert one.stdout.readline().strip() == "ready"
        time.sleep(2)
        began = time.monotonic()
        one.send_signal(end)
        one.communicate()
        assert time.monotonic() - began < 5
    assert not (tmp_path / "x.npy").exists()
    with started(tmp_path, 0) as two:
        out = two.communicate()[0].split()
    assert 0 < int(out[1]) < undisturbed.computed
    assert np.load(tmp_path / "x.npy").tobytes() == undisturbed.x.tobytes()
