"""The encoder of texts that is trained: one to begin with, or a small one from nothing, and the folder that it becomes.

    --start hf:NAME, local:FOLDER          its weights, its tokenizer, its pooling
    --arch "bert(layers=2, width=128)"     random weights, and byte pairs counted on the texts themselves

Written is what the hub has: config.json, model.safetensors, tokenizer.json, and sentence-transformers' modules.json and
1_Pooling, so that others open it, too. Devlin et al., BERT, 2019; Radford et al., GPT-2, 2019 (byte pairs: no text has
unknown letters; WordPiece as `tokenizers` counts it numbers its pieces by chance).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from topwork import plugins
from topwork.adaptation.feed import seed_of
from topwork.backbones import find
from topwork.backbones.text_folder import POOLINGS, Head, TextEncoder
from topwork.errors import BadSetting, MissingExtra
from topwork.modalities.tokens import TokenReader
from topwork.store.atomic import new_folder
from topwork.types import Card

ARCHITECTURE = "bert(layers=4, width=256)"
TOKENS = 128  # of a window, where nothing else is said
PLACES = 512  # tokens of a window that a new encoder can read
EVERY = 10**9  # windows of a text
FACTS = "pretraining.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Bert:
    """A plain BERT: post-norm blocks, learned places."""

    layers: int = 4
    width: int = 256  # D
    heads: int = 0  # 0: a head for 32 numbers of the width
    vocabulary: int = 8000  # V, at most
    lower: bool = True  # no case, no accents

    def check(self) -> None:
        """Raise BadSetting for what cannot be."""
        least = {"layers": 1, "width": 8, "heads": 0, "vocabulary": 300}
        values = {name: getattr(self, name) for name in least}
        wrong = [f"{n}={v!r}" for n, v in values.items() if type(v) is not int or v < least[n]]
        if wrong or not isinstance(self.lower, bool) or self.width % (self.heads or max(1, self.width // 32)):
            told = ", ".join(wrong) or f"width={self.width}, heads={self.heads}, lower={self.lower!r}"
            raise BadSetting(f"bert({told}) cannot be. Expected whole numbers, and a width that its heads divide")


@dataclass(frozen=True, eq=False)
class Encoder:
    """What is trained, how it reads, and what it begins with."""

    config: Any  # of transformers
    reader: TokenReader  # in windows as they are learnt from
    head: Head
    longest: int  # tokens of a window when it is used
    state: Mapping[str, torch.Tensor] | None  # weights to begin with
    start: Card | None
    call: str  # what a card says

    def trunk(self, seed: int, begun: bool = True) -> nn.Module:
        """The encoder at its start, or (`begun` False) at random; the same for the same seed."""
        import transformers

        from topwork.backbones.text_trunk import WITHOUT_POOLER, TextTrunk

        torch.manual_seed(seed_of(seed, "network"))
        options: dict[str, Any] = {"add_pooling_layer": False} if self.config.model_type in WITHOUT_POOLER else {}
        network = transformers.AutoModel.from_config(copy.deepcopy(self.config), **options)
        if begun and self.state is not None:
            network.load_state_dict(self.state)
        return TextTrunk(network, self.head, self.reader.separator).eval()

    def write(self, folder: Path, trunk: nn.Module, facts: Mapping[str, Any]) -> None:
        """The folder, at once or not at all; opened and compared."""
        network: Any = trunk.network
        with new_folder(folder, FACTS) as building:
            network.config.architectures = [type(network).__name__]
            network.config.to_json_file(building / "config.json")
            state = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
            save_file(state, building / "model.safetensors", metadata={"format": "pt"})
            (building / "tokenizer.json").write_bytes(self.reader.source)
            ways = {f"pooling_mode_{long}": ours in self.head.pooling for long, ours in POOLINGS.items()}
            width = {"word_embedding_dimension": network.config.hidden_size}
            modules = ["Transformer", "Pooling", *(["Normalize"] if self.head.unit else [])]
            told = {
                "tokenizer_config.json": {
                    "model_max_length": self.longest,
                    "tokenizer_class": "PreTrainedTokenizerFast",
                },
                "sentence_bert_config.json": {"max_seq_length": self.longest, "do_lower_case": False},
                "1_Pooling/config.json": width | ways,
                "modules.json": [
                    {
                        "idx": at,
                        "name": str(at),
                        "path": "" if at == 0 else f"{at}_{name}",
                        "type": f"sentence_transformers.models.{name}",
                    }
                    for at, name in enumerate(modules)
                ],
                FACTS: dict(facts),
            }
            for name, said in told.items():
                (building / name).parent.mkdir(exist_ok=True)
                (building / name).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            _prove(building, trunk)


def encoder(arch: str | None, start: str | None, tokens: int | None, texts: Iterable[str], kept: Path) -> Encoder:
    """The encoder; a vocabulary that has to be counted is kept at `kept`, for whoever goes on."""
    if start:
        return _begun(start, arch, tokens)
    made, config = new_config(arch)
    if not kept.exists():
        from topwork.store.atomic import write_file

        write_file(kept, counted(texts, made.vocabulary, made.lower))
    longest = min(tokens or TOKENS, PLACES)
    reader = TokenReader(kept.read_bytes(), longest, 0, EVERY)
    config.vocab_size = reader.tokenizer.get_vocab_size(with_added_tokens=True)
    return Encoder(config, reader, Head(), PLACES, None, None, arch or ARCHITECTURE)


def new_config(arch: str | None) -> tuple[Bert, Any]:
    """The options of a new encoder, and what transformers makes of them; raises BadSetting or UnknownName."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra.of("transformers", "Pretraining on texts") from error
    name, options = plugins.parse(arch or ARCHITECTURE)
    known = list(Bert.__dataclass_fields__)
    if name != "bert" or options.keys() - set(known):
        raise BadSetting(f"--arch {arch}: expected bert({', '.join(f'{n}=' for n in known)}), or --start hf:NAME")
    made = Bert(**options)
    made.check()
    heads = made.heads or max(1, made.width // 32)
    return made, transformers.BertConfig(
        vocab_size=made.vocabulary, hidden_size=made.width, num_hidden_layers=made.layers, num_attention_heads=heads,
        intermediate_size=4 * made.width, max_position_embeddings=PLACES, pad_token_id=0,
    )  # fmt: skip


def _begun(start: str, arch: str | None, tokens: int | None) -> Encoder:
    backbone = find(start, "text")
    if not isinstance(backbone, TextEncoder):
        raise BadSetting(f"--start {start}: only encoders of transformers can be trained on, such as hf:NAME")
    if arch:
        raise BadSetting("--start brings its own architecture: leave out --arch")
    if backbone.head.dense:
        raise BadSetting(f"--start {start}: has dense layers after its pooling, which pretraining cannot keep")
    trunk: Any = backbone.module()
    known = backbone.reader
    reader = TokenReader(known.source, min(tokens or TOKENS, backbone.longest), 0, EVERY)
    return Encoder(
        trunk.network.config, reader, backbone.head, backbone.longest, trunk.network.state_dict(), backbone.card,
        backbone.card.architecture,
    )  # fmt: skip


def counted(texts: Iterable[str], size: int, lower: bool) -> bytes:
    """A tokenizer.json with pairs of bytes counted on the texts; the same for the same texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, handle_chinese_chars=False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    known = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, known[name]) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    return tokenizer.to_str().encode()


def _prove(folder: Path, trunk: nn.Module) -> None:
    """Open the folder as a user will, and compare."""
    from topwork.backbones.folder import open_folder
    from topwork.backbones.trunk import TOLERANCE
    from topwork.errors import ProofFailed

    opened = open_folder(folder, f"local:{folder}")
    read = opened.reader.read(["What was written must be read alike.", "a"])  # type: ignore[attr-defined]
    ids, weights = (torch.from_numpy(x) for x in read.padded(read.owner))
    with torch.no_grad():
        wanted = trunk(ids, weights)
        gap = float((opened.module()(ids, weights) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    if not gap <= TOLERANCE:
        raise ProofFailed(f"The encoder that was written gives other features: {gap:.1e} of the largest (at most "
                          f"{TOLERANCE:.0e} allowed). Please report it")  # fmt: skip
