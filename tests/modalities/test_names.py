"""Names by a token classification model: an ONNX graph and a transformers model that the tests build."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from topwork.errors import BadWeights, WeightsNotHere
from topwork.modalities.recognisers.names import Names, opened
from topwork.modalities.redaction import Redaction

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "anna",
    "miller",
    "bob",
    "mill",
    "##ard",
    "meets",
    "in",
    "berlin",
    "-",
    "and",
    "'",
    "s",
    "j",
    ".",
    "王",
    "伟",
]
PERSONS = {"anna", "miller", "bob", "mill", "j", "王", "伟"}
LABELS = {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC"}


def tokenizer():
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    made = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def scores():
    """(V, C): what each word is, whatever stands around it."""
    table = np.zeros((len(WORDS), 4), np.float32)
    for i, word in enumerate(WORDS):
        table[i, 2 if word == "miller" else 1 if word in PERSONS else 3 if word == "berlin" else 0] = 5
    return table


def folder(path, labels=LABELS, longest=64, weights="onnx"):
    path.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(path / "tokenizer.json"))
    config = {"model_type": "bert", "id2label": labels, "max_position_embeddings": longest}
    if weights == "onnx":
        (path / "config.json").write_text(json.dumps(config))
        inputs = [
            helper.make_tensor_value_info(n, TensorProto.INT64, ["B", "L"]) for n in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "L", 4])
        nodes = [
            helper.make_node("Mul", ["input_ids", "attention_mask"], ["seen"]),
            helper.make_node("Gather", ["table", "seen"], ["logits"]),
        ]
        graph = helper.make_graph(nodes, "names", inputs, [output], [numpy_helper.from_array(scores(), "table")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        (path / "onnx").mkdir(exist_ok=True)
        onnx.save(model, path / "onnx" / "model.onnx")
    return path


CASES = [
    ("Anna Miller meets Bob", ["Anna Miller", "Bob"]),
    ("J. Miller, and Anna-Miller in Berlin", ["J. Miller", "Anna-Miller"]),
    ("Millard meets anna's bob", ["Millard", "anna", "bob"]),
    ("王伟 meets 王", ["王伟", "王"]),
    ("ＡＮＮＡ meets an\u200bna", ["ＡＮＮＡ", "an\u200bna"]),
    ("[CLS] in Berlin", []),
    ("12 34", []),
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_onnx(tmp_path_factory, text, wanted):
    place = folder(tmp_path_factory.getbasetemp() / "names")
    spans = Redaction.of([f"names(folder={str(place)!r})"]).spans(text)
    found = [text[s.start : s.end] for s in spans]
    if text.startswith("王伟"):
        assert "".join(found).replace(" ", "") == "王伟王"
    else:
        assert found == wanted


def test_every_window_of_a_long_text_is_read(tmp_path):
    place = folder(tmp_path / "short", longest=12)
    text = "Anna " + "meets in and " * 40 + "Bob " + "in " * 31 + "Miller"
    done = Redaction.of([f"names(folder={str(place)!r})"]).text(text)
    assert done.count("[NAMES]") == 3
    assert not any(name in done for name in ("Anna", "Bob", "Miller"))


def test_transformers(tmp_path, one_thread):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    place = folder(tmp_path / "bert", weights="none")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={int(k): v for k, v in LABELS.items()},
        label2id={v: int(k) for k, v in LABELS.items()},
    )
    torch.manual_seed(0)
    model = transformers.BertForTokenClassification(config)
    best = torch.from_numpy(scores()).argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        ids = torch.randint(0, len(WORDS), (16, 12))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), best[ids].flatten()).backward()
        optimizer.step()
    model.save_pretrained(place)
    found = [slice(a, b) for a, b in Names(str(place)).find("Anna Miller meets Bob in Berlin")]
    assert found == [slice(0, 11), slice(18, 21)]


def test_pseudonyms_of_names(tmp_path):
    place = folder(tmp_path / "names")
    done = Redaction.of([f"names(folder={str(place)!r})"], "pseudonym", b"0123456789abcdef").text(
        "Anna  Miller meets anna miller"
    )
    one, other = done.split(" meets ")
    assert one == other
    assert one.startswith("[NAMES_")


def test_what_is_no_model_is_said(tmp_path):
    with pytest.raises(WeightsNotHere, match=r"has no config.json"):
        opened(str(tmp_path))
    with pytest.raises(BadWeights, match="none of its labels is a person: O, B-LOC"):
        opened(str(folder(tmp_path / "places", {"0": "O", "1": "B-LOC"})))
    place = folder(tmp_path / "bare")
    (place / "onnx" / "model.onnx").unlink()
    with pytest.raises(WeightsNotHere, match=r"neither model.onnx nor model.safetensors"):
        list(Names(str(place)).find("Anna"))
