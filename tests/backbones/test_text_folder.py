"""Text encoders in the hub's layout: features are those of transformers itself, by torch and by the exported graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from topwork import backbones
from topwork.errors import BadSetting, BadWeights
from topwork.modalities.readers import open_reader
from topwork.modalities.text import PAIR
from topwork.nn.session import session

torch = pytest.importorskip("torch", reason="needs the train extra")
transformers = pytest.importorskip("transformers", reason="needs the transformers extra")
safetensors = pytest.importorskip("safetensors.torch", reason="needs torch")
tokenizers = pytest.importorskip("tokenizers", reason="needs the text extra")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(60)), "a"]
SMALL = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
KINDS = {
    "bert": ("BertModel", SMALL),
    "distilbert": (
        "DistilBertModel",
        {"vocab_size": len(WORDS), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32,
         "max_position_embeddings": 40},
    ),
    "roberta": ("RobertaModel", SMALL | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaModel", SMALL | {"type_vocab_size": 1}),
    "mpnet": ("MPNetModel", SMALL),
    "albert": ("AlbertModel", SMALL | {"embedding_size": 8}),
    "electra": ("ElectraModel", SMALL | {"embedding_size": 8}),
    "deberta-v2": ("DebertaV2Model", SMALL),
    "modernbert": ("ModernBertModel", SMALL | {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2,
                                               "eos_token_id": 3}),
    "qwen3": ("Qwen3Model", SMALL | {"num_key_value_heads": 2, "head_dim": 8}),
}  # fmt: skip
TEXTS = ["w1 w2 w3", "", "w4", f"w1 w2{PAIR}w3 w4 w5", "w7 " * 20]


def save(folder, kind="bert", longest=None, **more):
    """A tiny network with a tokenizer of words."""
    torch.manual_seed(0)
    name, options = KINDS[kind]
    maker = getattr(transformers, name)
    network = maker(maker.config_class(**{**options, **more})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases too
    network.save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.add_special_tokens(WORDS[:5])
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    words.save(str(folder / "tokenizer.json"))
    if longest:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    return network


def sentence_transformers(folder, pooling, unit=False, more=()):
    names = ["Transformer", "Pooling", *(["Normalize"] if unit else []), *more]
    paths = ["", "1_Pooling", "2_Normalize", "3_Other"]
    modules = [{"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{name}"}
               for i, name in enumerate(names)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))


def given(backbone, texts=TEXTS):
    read = backbone.reader.read(texts)
    assert read.owner.tolist() == list(range(len(texts)))
    return read.padded(np.arange(len(texts)))


def one_by_one(network, backbone, pool, texts=TEXTS):
    """Every text alone, without padding, through the network of transformers."""
    rows = []
    for text in texts:
        one, _, two = text.partition(PAIR)
        said = backbone.reader.tokenizer.encode(one, two) if PAIR in text else backbone.reader.tokenizer.encode(one)
        typed = (getattr(network.config, "type_vocab_size", 0) or 0) > 1
        more = {"token_type_ids": torch.tensor([said.type_ids])} if typed else {}
        with torch.no_grad():
            states = network(input_ids=torch.tensor([said.ids]), **more).last_hidden_state[0]
        rows.append(pool(states).numpy())
    return np.array(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_the_states_of_any_kind(tmp_path, kind):
    network = save(tmp_path / "m", kind)
    backbone = backbones.find(f"local:{tmp_path}/m", "text")
    expected = one_by_one(network, backbone, lambda states: states.mean(0))
    ids, weights = given(backbone)
    with torch.no_grad():
        found = backbone.module()(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
    assert np.allclose(found, expected, atol=1e-5)
    assert backbone.card.features == expected.shape[1]
    assert np.abs(expected[0] - expected[3]).max() > 1e-3


POOLINGS = {
    "cls_token": lambda s: s[0],
    "max_tokens": lambda s: s.amax(0),
    "mean_tokens": lambda s: s.mean(0),
    "mean_sqrt_len_tokens": lambda s: s.sum(0) / len(s) ** 0.5,
    "lasttoken": lambda s: s[-1],
}


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_as_the_card_says(tmp_path, name, unit):
    network = save(tmp_path / "m")
    sentence_transformers(tmp_path / "m", {f"pooling_mode_{n}": n == name for n in POOLINGS}, unit)
    backbone = backbones.find(f"local:{tmp_path}/m")
    expected = one_by_one(network, backbone, POOLINGS[name])
    if unit:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    ids, weights = given(backbone)
    with torch.no_grad():
        found = backbone.module()(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
    assert np.allclose(found, expected, atol=1e-5)


def test_poolings_side_by_side_and_in_the_newer_spelling(tmp_path):
    network = save(tmp_path / "m")
    sentence_transformers(tmp_path / "m", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True})
    one = backbones.find(f"local:{tmp_path}/m")
    expected = one_by_one(network, one, lambda s: torch.cat([s[0], s.mean(0)]))
    sentence_transformers(tmp_path / "m", {"embedding_dimension": 16, "pooling_mode": ["cls", "mean"]})
    two = backbones.find(f"local:{tmp_path}/m")
    ids, weights = given(one)
    for backbone in (one, two):
        assert backbone.card.features == 32
        with torch.no_grad():
            found = backbone.module()(torch.from_numpy(ids), torch.from_numpy(weights)).numpy()
        assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert"])
def test_the_graph_gives_the_same_and_is_kept(tmp_path, kind):
    check_graph(tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bert"])
def test_graphs_of_other_kinds(tmp_path, kind):
    check_graph(tmp_path, kind)


def check_graph(tmp_path, kind):
    network = save(tmp_path / "m", kind, longest=32)
    backbone = backbones.find(f"local:{tmp_path}/m")
    expected = one_by_one(network, backbone, lambda states: states.mean(0))
    ids, weights = given(backbone)
    assert not backbone.ready()
    running = session(backbone.graph(), 1)
    assert np.allclose(running.run(None, {"ids": ids, "weights": weights})[0], expected, atol=1e-4)
    for row in range(len(ids)):  # any W, any L
        long = int(weights[row].sum())
        fed = {"ids": ids[row : row + 1, :long], "weights": weights[row : row + 1, :long]}
        assert np.allclose(running.run(None, fed)[0][0], expected[row], atol=1e-4)
    assert backbones.find(f"local:{tmp_path}/m").ready()


def test_finding_loads_no_torch_and_predicting_no_transformers(tmp_path):
    save(tmp_path / "m")
    code = (
        f"import sys; from topwork import backbones; b = backbones.find('local:{tmp_path}/m', 'text'); b.card.key; "
        "assert not {'torch', 'transformers', 'onnx', 'tokenizers'} & sys.modules.keys(); b.reader.read(['w1']); "
        "assert not {'torch', 'transformers', 'onnx'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_windows_and_the_reader_of_the_artefact(tmp_path):
    save(tmp_path / "m", longest=16)
    backbone = backbones.find(f"local:{tmp_path}/m")
    read = backbone.reader.read(["w1 " * 40, "w2"])
    assert read.lengths.max() == 16
    assert read.owner.tolist() == [0, 0, 0, 0, 1]
    again = open_reader(backbone.reader.files()).read(["w1 " * 40, "w2"])
    assert np.array_equal(read.ids, again.ids)


def test_what_tells_cached_features_apart(tmp_path):
    save(tmp_path / "m")
    keys = [backbones.find(f"local:{tmp_path}/m").card.key]
    (tmp_path / "m/sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    keys.append(backbones.find(f"local:{tmp_path}/m").card.key)
    sentence_transformers(tmp_path / "m", {"pooling_mode_cls_token": True})
    keys.append(backbones.find(f"local:{tmp_path}/m").card.key)
    data = (tmp_path / "m/tokenizer.json").read_text()
    (tmp_path / "m/tokenizer.json").write_text(data + "\n")
    keys.append(backbones.find(f"local:{tmp_path}/m").card.key)
    assert len(set(keys)) == 4


def test_dense_layers_after_the_pooling(tmp_path):
    network, folder, spec = save(tmp_path / "m"), tmp_path / "m", f"local:{tmp_path}/m"
    sentence_transformers(folder, {"pooling_mode_mean_tokens": True}, more=("Dense", "Normalize"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["path"] = "2_Dense"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    H = network.config.hidden_size
    weight, bias = torch.randn(5, H), torch.randn(5)
    safetensors.save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense/model.safetensors")
    said = {
        "in_features": H,
        "out_features": 5,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense/config.json").write_text(json.dumps(said))
    backbone = backbones.find(spec)
    assert backbone.card.features == 5
    wanted = one_by_one(network, backbone, lambda s: torch.nn.functional.normalize(
        torch.tanh(s.mean(0) @ weight.T + bias), dim=0))  # fmt: skip
    ids, weights = given(backbone)
    running = session(backbone.graph())
    np.testing.assert_allclose(running.run(None, {"ids": ids, "weights": weights})[0], wanted, atol=1e-5)
    key = backbone.card.key
    safetensors.save_file({"linear.weight": weight}, folder / "2_Dense/model.safetensors")
    assert backbones.find(spec).card.key != key
    (folder / "2_Dense/config.json").write_text(json.dumps(said | {"out_features": 4}))
    with pytest.raises(BadWeights, match="do not fit"):
        backbones.find(spec)
    (folder / "2_Dense/config.json").write_text(json.dumps(said | {"activation_function": "os.system"}))
    with pytest.raises(BadWeights, match="activation 'system'"):
        backbones.find(spec)


def test_the_default_prompt_stands_before_every_text(tmp_path):
    save(tmp_path / "m")
    plain = backbones.find(f"local:{tmp_path}/m")
    said = {"prompts": {"q": "w1 w2 "}, "default_prompt_name": "q"}
    (tmp_path / "m/config_sentence_transformers.json").write_text(json.dumps(said))
    asked = backbones.find(f"local:{tmp_path}/m")
    assert asked.card.key != plain.card.key
    np.testing.assert_array_equal(asked.reader.read(["a w3"]).ids, plain.reader.read(["w1 w2 a w3"]).ids)
    again = open_reader(asked.reader.files())
    np.testing.assert_array_equal(again.read(["a w3"]).ids, asked.reader.read(["a w3"]).ids)


@pytest.mark.parametrize(("kind", "longest"), [("bert", 40), ("roberta", 39)])
def test_no_window_is_longer_than_the_network(tmp_path, kind, longest):
    save(tmp_path / "m", kind)
    assert backbones.find(f"local:{tmp_path}/m").reader.longest == longest


def test_folders_that_lie(tmp_path):
    save(tmp_path / "m")
    folder, spec = tmp_path / "m", f"local:{tmp_path}/m"
    sentence_transformers(folder, {"pooling_mode_mean_tokens": True}, more=("WeightedLayerPooling",))
    with pytest.raises(BadWeights, match="lists Transformer, Pooling, WeightedLayerPooling"):
        backbones.find(spec)
    sentence_transformers(folder, {"pooling_mode_weightedmean_tokens": True})
    with pytest.raises(BadWeights, match="Expected pooling by cls, max, mean"):
        backbones.find(spec)
    (folder / "modules.json").write_text("[1]")
    with pytest.raises(BadWeights, match="not readable"):
        backbones.find(spec)
    (folder / "modules.json").unlink()
    (folder / "1_Pooling/config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 30}))
    with pytest.raises(BadWeights, match=r"numbers its tokens up to 65, but the network knows 30"):
        _ = backbones.find(spec).reader
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(BadWeights, match="16 tensors missing"):
        backbones.find(spec).module()
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "x"}))
    with pytest.raises(BadWeights, match="hidden_size 'x'"):
        backbones.find(spec)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadSetting, match="reads text, expected one that reads image"):
        backbones.find(spec, "image")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadWeights):
        backbones.find(spec)


def test_code_that_a_folder_brings_along_is_not_run(tmp_path):
    save(tmp_path / "m")
    (tmp_path / "m/evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbones.find(f"local:{tmp_path}/m").module()
    assert not (tmp_path / "owned").exists()


def test_hub_layout(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home, commit = tmp_path / "hub/models--org--tiny", "0123456789" * 4
    save(tmp_path / "made", longest=24)
    sentence_transformers(tmp_path / "made", {"pooling_mode_cls_token": True}, unit=True)
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs/main").write_text(commit)
    for i, file in enumerate(sorted(f for f in (tmp_path / "made").rglob("*") if f.is_file())):
        place = home / "snapshots" / commit / file.relative_to(tmp_path / "made")
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(home / "blobs" / str(i))
        place.symlink_to(os.path.relpath(home / "blobs" / str(i), place.parent))
    backbone = backbones.find("hf:org/tiny", "text")
    assert (backbone.card.name, backbone.longest, str(backbone.head)) == ("org/tiny", 24, "cls unit")
    assert backbone.module()(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3)).shape == (1, 16)
    assert [card.spec for card in backbones.cards("text")].count("hf:org/tiny") == 1
