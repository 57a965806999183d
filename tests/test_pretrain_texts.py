"""Pretraining on texts from end to end: read, hide, name, write, open, go on."""

import hashlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import topwork as tw  # noqa: E402
from topwork.adaptation import Vocabulary  # noqa: E402
from topwork.adaptation.pretraining.masked_language import MaskedLanguage, Named  # noqa: E402
from topwork.backbones import find  # noqa: E402
from topwork.errors import BadData, BadSetting  # noqa: E402
from topwork.modalities.tokens import TokenReader  # noqa: E402
from topwork.pretraining import texts  # noqa: E402
from topwork.pretraining.encoder import counted  # noqa: E402
from topwork.types import Watch  # noqa: E402

from . import encoders  # noqa: E402
from .adaptation._tuned import batch, facts  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"method": "masked_language", "arch": "bert(layers=1, width=32, vocabulary=320)", "size": 24, "batch_size": 16}


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    monkeypatch.setenv("TOPWORK_DEVICE", "cpu")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A file of lines with a rule: "old" is followed by its noun, always the same after the same colour."""
    draw, found = np.random.default_rng(0), []
    for _ in range(600):
        at = draw.integers(4)
        found.append(f"the {['red', 'blue', 'green', 'black'][at]} old {['rose', 'sea', 'moss', 'night'][at]} is here")
    file = tmp_path_factory.mktemp("data") / "lines.txt"
    file.write_text("\n".join(found) + "\n")
    return file


def sha256(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_from_lines_to_an_encoder_that_is_opened_and_goes_on(lines, tmp_path):
    said, out = [], tmp_path / "mine"
    facts = tw.pretrain(lines, out=out, steps=250, rate=3e-3, watch=Watch(say=said.append), **TINY)
    assert not (tmp_path / "mine.run").exists()
    assert json.loads((out / "pretraining.json").read_text())["scores"] == facts["scores"]
    assert facts["data"]["items"] == 600
    scores = facts["scores"]
    assert scores["trained"]["low"] > scores["commonest token"]["high"]  # it has learnt the rule: a real effect
    assert scores["trained"]["accuracy"] > 0.7
    assert any("windows" in line for line in said)
    assert len((out / "log.jsonl").read_text().splitlines()) == 250
    assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json"} <= {p.name for p in out.iterdir()}
    backbone = find(f"local:{out}", "text")
    assert backbone.card.features == 32
    assert backbone.reader.longest == 512
    more = tw.pretrain(lines, method="masked_language", start=f"local:{out}", out=tmp_path / "more", steps=2, size=24)
    assert more["start"]["weights"] == backbone.card.weights
    before, after = backbone.module().state_dict(), find(f"local:{tmp_path / 'more'}").module().state_dict()
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 10


def test_killed_and_resumed_gives_the_same_bits(lines, tmp_path):
    class Killed(BaseException):
        pass

    def kill(stage, done, _total):
        if stage == "pretrain" and done == 7:
            raise Killed

    tw.pretrain(lines, out=tmp_path / "whole", steps=12, **TINY)
    with pytest.raises(Killed):
        tw.pretrain(lines, out=tmp_path / "cut", steps=12, save_seconds=0, watch=Watch(progress=kill), **TINY)
    with pytest.raises(BadSetting, match="seed: was 0, is 1"):
        tw.pretrain(lines, out=tmp_path / "cut", steps=12, seed=1, **TINY)
    assert list((tmp_path / "cut.run").glob("state-*.safetensors"))
    tw.pretrain(lines, out=tmp_path / "cut", steps=12, **TINY)
    assert sha256(tmp_path / "cut") == sha256(tmp_path / "whole")


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens(tmp_path):
    trunk = find(encoders.write(tmp_path / "tiny")).module()
    method, known = MaskedLanguage(0.4), facts(modality="text", vocabulary=Vocabulary(400, 4, (0, 1, 2, 3, 4)))
    model = method.prepare(trunk, known).eval()
    assert isinstance(model, Named)
    ids = torch.randint(5, 100, (3, 7), generator=torch.Generator().manual_seed(0))
    weights = torch.ones(3, 7)
    weights[1, 4:] = 0

    def given():
        b = batch(targets=torch.zeros(3, dtype=torch.int64), x=ids)
        from dataclasses import replace

        return replace(b, views=(ids, weights))

    loss = method.loss(model, given())["hidden_tokens"]
    seen, hidden = model.hide(ids, weights, 0.4, given().generator)
    states = trunk.states(seen, weights)
    E, total = trunk.network.embeddings.word_embeddings.weight, []
    for row, place in hidden.nonzero().tolist():
        h = model.norm(torch.nn.functional.gelu(model.dense(states[row, place])))
        total.append(-torch.log_softmax(E @ h + model.bias, 0)[ids[row, place]])
    assert len(total) > 3
    assert loss.item() == pytest.approx(sum(t.item() for t in total) / len(total), rel=1e-4)
    loss.backward()
    assert E.grad is not None
    assert float(E.grad.abs().sum()) > 0


def test_tokens_are_read_once_and_lie_on_the_disk(lines, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the red old rose is here and the blue old sea is there")
    (folder / "b.txt").write_text("hi")
    material = texts.gather((str(folder), str(lines)))
    assert material.counts[0] == 2
    reader = TokenReader(counted(iter(material), 320, True), 8, 0, 10**9)
    tokens = material.tokens(reader)
    assert isinstance(tokens.ids, np.memmap)
    assert tokens.lengths.max() == 8
    assert tokens.lengths.min() >= texts.SHORTEST
    wanted = reader.read(list(material))
    lengths = wanted.lengths
    keep = lengths >= texts.SHORTEST
    assert np.array_equal(tokens.lengths, lengths[keep])
    assert np.array_equal(tokens.ids, wanted.ids[np.repeat(keep, lengths)])
    calls = []
    material.tokens(reader, lambda *told: calls.append(told))
    assert not calls  # nothing is read twice


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        ({"arch": "gpt(layers=2)"}, BadSetting, "expected bert"),
        ({"arch": "bert(layers=0)"}, BadSetting, "layers=0"),
        ({"arch": "bert(width=48, heads=5)"}, BadSetting, "heads"),
        ({"method": ["masked_language", "masked_language"]}, BadSetting, "one --method at a time"),
        ({"method": "masked_language(share=2)"}, BadSetting, "share"),
        ({"start": "bundled:text_small", "arch": None}, BadSetting, "only encoders of transformers"),
        ({"batch_size": 1000}, BadSetting, "--batch-size 1000 is more"),
    ],
)
def test_what_cannot_be_is_said(lines, tmp_path, wish, error, says):
    with pytest.raises(error, match=says):
        tw.pretrain(lines, out=tmp_path / "out", steps=2, **(TINY | wish))
    assert not (tmp_path / "out").exists()


def test_nothing_to_read_is_said(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(BadData, match="empty"):
        tw.pretrain(tmp_path / "empty.txt", out=tmp_path / "out", steps=2, **TINY)
