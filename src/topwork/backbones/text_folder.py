"""A folder of transformers with a text encoder: config.json, tokenizer.json, model.safetensors.

What sentence-transformers adds to it is read where it is there:

    modules.json                 Transformer, Pooling, Dense, Normalize: in this order, others are refused
    1_Pooling/config.json        mean, cls, last, max of the last states, or several side by side; without it: mean
    2_Dense/                     layers after the pooling: config.json and model.safetensors
    config_sentence_transformers.json   the prompt that is called the default one stands before every text
    sentence_bert_config.json    max_seq_length; else tokenizer_config.json's model_max_length, at most LONGEST

Its graph takes ids int64 (W, L) and weights float32 (W, L): 1 for a token, 0 for padding. It is exported once on a
machine and proven; code that a folder brings along is never run.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones.card_json import checked_hash, inside, read_json, weights_file
from topwork.backbones.static_text import NO_PIXELS
from topwork.backbones.text_head import ACTIVATIONS, Dense, Head
from topwork.backbones.torch_backbone import need_train
from topwork.errors import BadWeights, MissingExtra, StoreError
from topwork.modalities.tokens import FILE as TOKENIZER
from topwork.modalities.tokens import TokenReader
from topwork.store import weights
from topwork.types import Card, digest

if TYPE_CHECKING:
    from torch import nn

FILE = "model.safetensors"
PROMPTS = "config_sentence_transformers.json"
OPTIONAL = (
    "tokenizer_config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json", PROMPTS,
    "2_Dense/config.json", "2_Dense/model.safetensors", "3_Dense/config.json", "3_Dense/model.safetensors",
)  # fmt: skip
LONGEST = 512  # tokens of a window, at most: attention costs its square
OVERLAP = 8  # a window shares one part in so many with the next one
EXPORTER = 1  # raise it when export gives another graph for the same network
TEXT_TYPES = (
    "albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert",
    "mobilebert", "modernbert", "mpnet", "qwen2", "qwen3", "roberta", "roformer", "xlm-roberta",
)  # fmt: skip
POOLINGS = {  # in sentence-transformers' words and order: ours
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "root",
    "lasttoken": "last",
}


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A transformer of texts, with its reader."""

    card: Card
    folder: Path
    head: Head
    longest: int  # tokens of a window
    words: int  # rows of its embedding: token numbers lie below
    prompt: str = ""  # what stands before every text

    @cached_property
    def reader(self) -> TokenReader:
        """Texts to tokens, under the folder's tokenizer.json."""
        source, overlap = (self.folder / TOKENIZER).read_bytes(), self.longest // OVERLAP
        reader = TokenReader(source, self.longest, overlap, prompt=self.prompt)
        largest = max(reader.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if largest >= self.words:
            raise BadWeights(
                f"{self.folder / TOKENIZER} numbers its tokens up to {largest:,}, but the network knows "
                f"{self.words:,}. They belong to two models: copy both from one place"
            )
        return reader

    def graph(self) -> bytes:
        """The encoder as ONNX: from the cache, else exported, compared with torch and kept."""
        graph = weights.load_graph(self._key)
        if graph is None:
            need_train(f"Backbone '{self.card.spec}'")
            from topwork.backbones.text_trunk import export

            graph = export(self._build("eager"), self.longest, self.words)
            with contextlib.suppress(StoreError):  # a cache that cannot be written costs time, nothing else
                weights.save_graph(self._key, graph)
        return graph

    def module(self) -> nn.Module:
        """The encoder in torch, in eval mode: ids (W, L), weights (W, L) -> (W, D)."""
        return self._build("sdpa")

    def ready(self) -> bool:
        """Whether graph() comes from the cache, without torch."""
        return weights.load_graph(self._key) is not None

    @property
    def _key(self) -> str:
        return digest([self.card.architecture, self.card.weights, "text", EXPORTER])

    def _build(self, attention: str) -> nn.Module:
        need_train(f"Backbone '{self.card.spec}'")
        try:
            from topwork.backbones.text_trunk import build
        except ImportError as error:
            raise MissingExtra.of("transformers", f"Backbone '{self.card.spec}'") from error
        return build(self.folder, self.head, self.reader.separator, attention)


def reads_text(config: dict[str, Any], folder: Path | None = None) -> bool:
    """Whether a config.json is that of a text encoder."""
    return config.get("model_type") in TEXT_TYPES and (folder is None or (folder / TOKENIZER).exists())


def open_text(folder: Path, config: dict[str, Any], spec: str) -> TextEncoder:
    """The text encoder that the folder holds; neither torch nor the tokenizer is loaded."""
    where = folder / "config.json"
    if not (folder / TOKENIZER).exists():
        raise BadWeights(
            f"{folder} has no {TOKENIZER}, which says how texts become numbers. Save it where the model comes from: "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    file, tokenizer = weights_file(folder, (FILE,), where), inside(folder, TOKENIZER, where)
    found, tokens = checked_hash(file, {}, where), weights.sha256(tokenizer)
    shapes = weights.shapes(file)  # readable, and no pickle
    width = _width(config, where)
    head, longest, prompt = _head(folder, width), _longest(folder, config), _prompt(folder)
    passing = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "id2label", "label2id")
    architecture = digest({key: value for key, value in config.items() if key not in passing})
    reading = f"tokenizer {tokens[:16]}, {longest} tokens" + (f", prompt {prompt!r}" if prompt else "")
    card = Card(
        spec=spec,
        name=folder.name if spec.startswith("local:") else spec.partition(":")[2],
        architecture=f"transformers:{config['model_type']} {head} {architecture}, {reading}",
        preprocess=NO_PIXELS,
        weights=found,
        features=head.dense[-1].out if head.dense else width * len(head.pooling),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        origin=str(config.get("_name_or_path") or ""),
        modality="text",
    )
    return TextEncoder(card, folder, head, longest, int(config.get("vocab_size") or 0), prompt)


def _width(config: dict[str, Any], where: Path) -> int:
    """Size of a state."""
    width = config.get("hidden_size") or config.get("dim") or config.get("d_model")
    words = config.get("vocab_size")
    if not (type(width) is int and type(words) is int and width > 0 and words > 0):
        raise BadWeights(f"{where}: hidden_size {width!r}, vocab_size {words!r}. Expected whole numbers above 0")
    return width


def _longest(folder: Path, config: dict[str, Any]) -> int:
    """Tokens of a window: what the model was trained for."""
    said = [LONGEST]
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (folder / name).is_file():
            value = read_json(inside(folder, name, folder)).get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and 8 <= value < 1e6:
                said.append(int(value))
    places = config.get("max_position_embeddings")
    if type(places) is int:
        shifted = config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet")
        padding = config.get("pad_token_id")
        said.append(places - (1 + (padding if type(padding) is int else 1) if shifted else 0))
    return max(8, min(said))


def _prompt(folder: Path) -> str:
    """The prompt that is called the default one."""
    if not (folder / PROMPTS).is_file():
        return ""
    said = read_json(inside(folder, PROMPTS, folder))
    name, prompts = said.get("default_prompt_name"), said.get("prompts")
    prompt = prompts.get(name, "") if isinstance(prompts, dict) and isinstance(name, str) else ""
    if not isinstance(prompt, str) or len(prompt) > LONGEST:
        raise BadWeights(f"{folder / PROMPTS}: the prompt {name!r} is no short text")
    return prompt


def _head(folder: Path, width: int) -> Head:
    """What stands after the transformer; a mean where nothing is said."""
    if not (folder / "modules.json").is_file():
        pooling = folder / "1_Pooling" / "config.json"
        return (
            Head(_pooling(read_json(inside(folder, "1_Pooling/config.json", folder)), pooling))
            if pooling.is_file()
            else Head()
        )
    where = folder / "modules.json"
    import json

    try:
        modules = json.loads(where.read_bytes())
        kinds = [(str(module["type"]).rpartition(".")[2], str(module.get("path") or "")) for module in modules]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(f"{where} is not readable: {error}. Expected a list of modules with type and path") from error
    names = [kind for kind, _ in kinds]
    unit = names[-1:] == ["Normalize"]
    layers = kinds[2 : len(kinds) - unit]
    if names[:2] != ["Transformer", "Pooling"] or any(name != "Dense" for name, _ in layers) or kinds[0][1]:
        raise BadWeights(
            f"{where} lists {', '.join(names)}. Expected Transformer (in the folder itself), Pooling and perhaps Dense "
            "and Normalize: others cannot be used"
        )
    place = f"{kinds[1][1]}/config.json"
    pooling = _pooling(read_json(inside(folder, place, where)), folder / place)
    width, dense = width * len(pooling), []
    for _, path in layers:
        dense.append(_dense(folder, path, width))
        width = dense[-1].out
    return Head(pooling, tuple(dense), unit)


def _dense(folder: Path, path: str, width: int) -> Dense:
    """A layer after the pooling, whose file fits what its config says."""
    where = folder / path / "config.json"
    said = read_json(inside(folder, f"{path}/config.json", folder))
    file = weights_file(folder, (f"{path}/{FILE}",), where)
    activation = str(said.get("activation_function", "Identity")).rpartition(".")[2].lower()
    goes_in, out = said.get("in_features"), said.get("out_features")
    if type(out) is not int:
        raise BadWeights(f"{where}: out_features {out!r}. Expected a whole number above 0")
    if activation not in ACTIVATIONS:
        raise BadWeights(f"{where}: activation {activation!r}. Expected one of: {', '.join(ACTIVATIONS)}")
    known = weights.shapes(file)
    biased = {"linear.bias": (out,)} if "linear.bias" in known else {}
    if goes_in != width or {name: tuple(shape) for name, shape in known.items()} != {
        "linear.weight": (out, goes_in), **biased
    }:  # fmt: skip
        raise BadWeights(
            f"{where}: {goes_in} numbers to {out}, after {width} and with weights {known}. They do not fit"
        )
    return Dense(file, checked_hash(file, {}, where), width, out, activation)


def _pooling(said: dict[str, Any], where: Path) -> tuple[str, ...]:
    """Ways to pool, from either spelling."""
    named = said.get("pooling_mode")
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list):
        short = {"cls": "cls", "max": "max", "mean": "mean", "mean_sqrt_len_tokens": "root", "lasttoken": "last"}
        found = [short.get(str(name), "") for name in named]
    else:
        known = {f"pooling_mode_{long}": ours for long, ours in POOLINGS.items()}
        asked = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
        found = [known.get(key, "") for key in sorted(asked, key=lambda k: list(known).index(k) if k in known else 0)]
    if not found or "" in found:
        raise BadWeights(f"{where}: {said}. Expected pooling by {', '.join(POOLINGS.values())}")
    return tuple(found)
