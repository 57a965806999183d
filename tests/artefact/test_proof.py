"""A new process must give the trained model's answers; what differs is told, what a kill leaves is nothing."""

import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser
from PIL import Image

from topwork.artefact import bundle, proof
from topwork.artefact.model import load
from topwork.artefact.proof import NOISE, disagreement, prove
from topwork.errors import ProofFailed
from topwork.types import Card, Head, Preprocess

CARD = Card("tiny", "tiny", "none", Preprocess(8, 8, (0, 0, 0), (1, 1, 1)), "00" * 32)
MEAN_COLOUR = """
<ir_version: 9, opset_import: ["" : 19]>
tiny (uint8[N, H, W, 3] pixels) => (float[N, 3] probabilities)
{
    levels = Cast <to = 1> (pixels)
    mean = ReduceMean <keepdims = 0> (levels, sides)
    probabilities = Softmax <axis = 1> (mean)
}"""


class Memory:
    """A store for a test."""

    def __init__(self):
        self.kept = {}

    def get_many(self, namespace, keys):
        return [self.kept.get((namespace, key)) for key in keys]

    def put_many(self, namespace, pairs):
        self.kept |= {(namespace, key): value for key, value in pairs}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = parser.parse_model(MEAN_COLOUR)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "sides"))
    onnx.checker.check_model(model)
    head = Head("linear", {})
    bundle.write(
        folder, onnx=model.SerializeToString(), weights=b"", card=CARD, head=head, labels=("r", "g", "b"), task="t"
    )
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bilder 图")
    draw = np.random.default_rng(0)
    paths = []
    for i in range(12):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((9, 9, 3), draw.permutation([98, 100, 101]), np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def expected(folder, images):
    return load(folder).probabilities(images)


def test_same_answers_are_proven(folder, images, expected):
    seen = []
    found = prove(folder, images, expected + np.float32(1e-5), progress=lambda *step: seen.append(step))
    assert (found.items, found.ties, found.agreement, found.reused) == (12, 0, 1.0, False)
    assert found.max_difference == pytest.approx(1e-5, rel=0.1)
    assert seen == [("proof", i, 12) for i in range(1, 13)]
    assert "same label for 12 of 12 images" in found.text
    assert "a new process" in found.text


def test_another_model_is_refused(folder, images, expected):
    with pytest.raises(ProofFailed, match=r"12 of 12 labels differ.*0\.png: saved r 0.7054, trained g 0.7054"):
        prove(folder, images, np.roll(expected, 1, axis=1))
    z = np.log(expected) / 2
    cooler = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    with pytest.raises(ProofFailed, match=r"0 of 12 labels differ, the largest probability difference is [1-9].*e-01"):
        prove(folder, images, cooler)
    with pytest.raises(ProofFailed, match="nan"):
        prove(folder, images, expected * np.float32(np.nan))
    with pytest.raises(ProofFailed, match="Nothing to compare"):
        prove(folder, images[:3], expected)
    with pytest.raises(ProofFailed, match="Nothing to compare"):
        prove(folder, [], expected[:0])


def test_ties_are_counted_and_not_excuses():
    half = NOISE / 2
    expected = np.float32([[0.5, 0.5 - half, 0], [0.5, 0.499, 0], [0.5, 0.4, 0.1], [0.9, 0.1, 0]])
    answers = np.float32([[0.5 - half, 0.5, 0], [0.499, 0.5, 0], [0.5, 0.4, 0.1], [0.1, 0.9, 0]])
    other, tied = disagreement(answers, expected)
    assert other.tolist() == [False, True, False, True]
    assert tied.tolist() == [True, False, False, False]
    expected, answers = np.float32([[0.5 + half, 0.9], [0.501, 0.9]]), np.float32([[0.5 - half, 0.9], [0.499, 0.9]])
    other, tied = disagreement(answers, expected, multilabel=True)
    assert (other.tolist(), tied.tolist()) == ([False, True], [True, False])


def test_a_tie_is_said(folder, images, expected):
    nudged = expected.copy()
    best, second = np.argsort(-nudged[0])[:2]
    answers = nudged.copy()
    nudged[0, [best, second]] = 0.5, 0.5 - NOISE / 2
    answers[0, [best, second]] = 0.5 - NOISE / 2, 0.5
    store = Memory()
    contents = [bytes([i] * 16) for i in range(12)]
    prove(folder, images, expected, contents=contents, store=store)
    store.kept = dict.fromkeys(store.kept, answers.tobytes())
    found = prove(folder, images, nudged, contents=contents, store=store)
    assert (found.ties, found.agreement) == (1, 11 / 12)
    assert "11 of 12 images (1 more are ties" in found.fact


def test_answers_are_remembered_and_compared_again(folder, images, expected, monkeypatch):
    store, contents = Memory(), [bytes([i] * 16) for i in range(12)]
    first = prove(folder, images, expected, contents=contents, store=store)
    kept = dict(store.kept)
    asked = []
    monkeypatch.setattr(proof, "_ask", lambda *_: asked.append(1) or expected)
    again = prove(folder, images, expected, contents=contents, store=store)
    assert (first.reused, again.reused, asked) == (False, True, [])
    assert again.fact == first.fact
    with pytest.raises(ProofFailed, match="12 of 12 labels differ"):
        prove(folder, images, np.roll(expected, 1, axis=1), contents=contents, store=store)
    prove(folder, images, expected, contents=contents[::-1], store=store)
    assert len(asked) == 2
    for damage in (b"short", bytes(12 * 3 * 4), b"\xff" * (12 * 3 * 4)):  # what is remembered wrongly is asked again
        store.kept = dict.fromkeys(kept, damage)
        assert not prove(folder, images, expected, contents=contents, store=store).reused
        assert store.kept == kept


def test_what_the_new_process_says_is_passed_on(folder, images, expected, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"text")
    with pytest.raises(ProofFailed, match=r"image 4.*bad\.png: not an image"):
        prove(folder, [*images[:3], str(bad), *images[4:]], expected)


def test_broken_graph_is_a_failed_proof(folder, images, expected, tmp_path):
    empty = helper.make_model(helper.make_graph([], "empty", [], [])).SerializeToString()
    bundle.write(
        tmp_path, onnx=empty, weights=b"", card=CARD, head=Head("linear", {}), labels=("r", "g", "b"), task="t"
    )
    with pytest.raises(ProofFailed, match="could not be asked"):
        prove(tmp_path, images, expected)


PARENT = """
import signal, sys
import numpy as np
from pathlib import Path
from topwork.artefact.proof import prove
signal.signal(signal.SIGINT, signal.default_int_handler)
prove(Path(sys.argv[1]), sys.argv[2:], np.zeros((len(sys.argv) - 2, 3), np.float32))
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("blow", ["SIGKILL", "SIGINT"])
def test_nothing_outlives_a_killed_parent(folder, images, tmp_path, blow):
    pipe = tmp_path / "never_ends.png"  # a file that keeps the new process reading for as long as we like
    os.mkfifo(pipe)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, folder, *images, pipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    writer = _open_when_read(pipe)
    began = time.monotonic()
    parent.send_signal(getattr(signal, blow))
    try:
        closed = select.poll()
        closed.register(writer, select.POLLERR)
        assert closed.poll(3000), "the new process is still reading"
        parent.communicate(timeout=3)
        assert time.monotonic() - began < 1
        assert parent.returncode != 0
    finally:
        os.close(writer)
        parent.kill()
        parent.communicate()


def _open_when_read(pipe):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.02)
    raise AssertionError("the new process never came to the last image")
