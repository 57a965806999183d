"""Tiny encoders of texts in the hub's layout, and texts that they can learn to tell apart."""

import functools
import json

import numpy as np
import pyarrow as pa

from topwork.types import Dataset

CLASSES = {"garden": "rose tulip spade moss fern", "sea": "wave gull anchor reef tide"}
FILLERS = ["the", "a", "one", "some", "two", "then", "over", "under", "with", "near", "old", "new", "big", "small"]


def texts(per_class=30, seed=0, long=0):
    """(texts, targets): one or two words of a class among fillers; the last `long` ones are ten times as long."""
    draw, found, targets = np.random.default_rng(seed), [], []
    for row in range(2 * per_class):
        target = row % 2
        own = CLASSES[list(CLASSES)[target]].split()
        words = [*draw.choice(FILLERS, draw.integers(3, 12)), *draw.choice(own, draw.integers(1, 3))]
        if row >= 2 * per_class - long:
            words = words * 10
        found.append(" ".join(draw.permutation(words)))
        targets.append(target)
    return found, np.array(targets)


def dataset(per_class=30, seed=0, long=0):
    """The same as a dataset, as `read` gives it."""
    found, targets = texts(per_class, seed, long)
    table = pa.table({
        "item": pa.array([f"t.csv line {row + 2}" for row in range(len(found))]),
        "text": pa.array(found),
        "target": pa.array(targets, pa.int32()),
        "split": pa.nulls(len(found), pa.string()).dictionary_encode(),
    })  # fmt: skip
    return Dataset(table, "", tuple(CLASSES), name="t", modality="text")


@functools.cache
def tokenizer():
    """A vocabulary of these words."""
    from topwork.pretraining.encoder import counted

    return counted(texts(60)[0], 400, True)


def write(folder, kind="bert", layers=3, seed=3, pooling="mean", longest=24):
    """A folder with random weights; returns its spec."""
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    common = {"vocab_size": 400, "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2}
    config = transformers.AutoConfig.for_model(kind, **sizes, **common)
    network = transformers.AutoModel.from_config(config)
    folder.mkdir(exist_ok=True)
    config.to_json_file(folder / "config.json")
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer())
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}_tokens": True}))
    return f"local:{folder}"
