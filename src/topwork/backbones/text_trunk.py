"""Text encoders of transformers as trunks: ids int64 (W, L), weights float32 (W, L) -> features float32 (W, D).

    states = transformer(ids, mask = weights > 0)           (W, L, H)
    mean   = sum_t w_t s_t / sum_t w_t       cls = s_0      last = s at the last token      max, over tokens
    root   = sum_t w_t s_t / sqrt(sum_t w_t)
    then dense layers, and a unit length, where there are some

This file needs torch and transformers; only `text_folder.py` imports it, when a module is asked for.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from topwork.backbones.transformers_trunk import loaded
from topwork.backbones.trunk import TOLERANCE, named, quiet
from topwork.errors import BadWeights, ProofFailed
from topwork.nn import onnx_graph
from topwork.nn.session import session
from topwork.store.weights import shapes

if TYPE_CHECKING:
    from topwork.backbones.text_head import Dense, Head

WITHOUT_POOLER = ("bert", "camembert", "ernie", "mobilebert", "mpnet", "roberta", "xlm-roberta", "albert")


class TextTrunk(nn.Module):
    """A transformer and the way its states become one vector."""

    def __init__(self, network: Any, head: Head, separator: int | None) -> None:
        super().__init__()
        self.network, self.pooling, self.unit = network, head.pooling, head.unit
        self.dense = nn.Sequential(*(_layer(one) for one in head.dense))
        self.padding = int(getattr(network.config, "pad_token_id", 0) or 0)
        typed = (getattr(network.config, "type_vocab_size", 0) or 0) > 1
        self.separator = separator if typed else None

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """(W, L), (W, L) -> (W, D)."""
        return self.pool(self.states(ids, weights), weights)

    def states(self, ids: Tensor, weights: Tensor) -> Tensor:
        """The last state of every token (W, L, H)."""
        inside = weights > 0
        ids = torch.where(inside, ids, torch.full_like(ids, self.padding))  # places are counted by it, in some
        more = {}
        if self.separator is not None:  # the second text begins after the first separator
            ends = (ids == self.separator).long()
            more["token_type_ids"] = ((ends.cumsum(1) - ends) > 0).long() * inside.long()
        return self.network(input_ids=ids, attention_mask=inside.long(), **more).last_hidden_state

    def pool(self, states: Tensor, weights: Tensor) -> Tensor:
        """(W, L, H), (W, L) -> (W, D)."""
        parts = [getattr(self, f"_{name}")(states, weights) for name in self.pooling]
        x = self.dense(torch.cat(parts, 1) if len(parts) > 1 else parts[0])
        return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12) if self.unit else x

    def _mean(self, states: Tensor, weights: Tensor) -> Tensor:
        return (states * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-9)

    def _root(self, states: Tensor, weights: Tensor) -> Tensor:
        return (states * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-9).sqrt()

    def _cls(self, states: Tensor, _: Tensor) -> Tensor:
        return states[:, 0]

    def _max(self, states: Tensor, weights: Tensor) -> Tensor:
        return torch.where((weights > 0)[:, :, None], states, torch.full_like(states, -1e9)).amax(1)

    def _last(self, states: Tensor, weights: Tensor) -> Tensor:
        places = torch.arange(weights.shape[1], device=weights.device)
        last = torch.where(weights > 0, places, torch.zeros_like(places)).amax(1)  # (W,)
        return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def build(folder: Path, head: Head, separator: int | None, attention: str) -> nn.Module:
    """The trunk with the folder's weights: every tensor of the encoder is in the file, and none is left over."""
    kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
    options: dict[str, Any] = {"add_pooling_layer": False} if kind in WITHOUT_POOLER else {}
    try:
        network = loaded(folder, transformers.AutoModel, attention, **options)
    except BadWeights:
        if attention == "eager":
            raise
        network = loaded(folder, transformers.AutoModel, "eager", **options)  # some know no other
    trunk = TextTrunk(network, head, separator).eval()
    for own, one in zip(trunk.dense, head.dense, strict=True):
        tensors = load_file(one.file)
        own[0].load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})  # type: ignore[index]
    begun = functools.partial(_as_begun, type(network), network.config, options, head, separator)
    trunk.untrained = begun  # type: ignore[assignment]
    return trunk


def _as_begun(kind: Any, config: Any, options: dict[str, Any], head: Head, separator: int | None) -> nn.Module:
    """With the random weights that its authors begin with."""
    return TextTrunk(kind(copy.deepcopy(config), **options), head, separator).eval()


def _layer(one: Dense) -> nn.Module:
    """A dense layer, its weights still to come."""
    kinds = {name.lower(): getattr(nn, name) for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")}
    bias = "linear.bias" in shapes(one.file)
    return nn.Sequential(nn.Linear(one.width, one.out, bias=bias), kinds[one.activation]())


def export(trunk: nn.Module, longest: int, words: int) -> bytes:
    """The trunk as a self-contained ONNX graph for any W and L, proven against torch on random windows."""
    trunk = trunk.eval()
    ids, weights = _windows(3, min(24, longest), words)
    with quiet(), torch.no_grad():
        W, L = torch.export.Dim("W", min=1, max=1 << 20), torch.export.Dim("L", min=1, max=longest)
        program = torch.onnx.export(
            trunk,
            (ids, weights),
            dynamo=True,
            opset_version=onnx_graph.OPSET,
            dynamic_shapes=({0: W, 1: L}, {0: W, 1: L}),
            input_names=["ids", "weights"],
            output_names=["features"],
            verbose=False,
        )
    assert program is not None
    graph = onnx_graph.to_bytes(named(onnx_graph.plain(program.model_proto)))
    running = session(graph)
    for shape in ((3, min(24, longest)), (1, 5), (2, longest)):
        ids, weights = _windows(*shape, words)
        with torch.no_grad():
            wanted = trunk(ids, weights).float().numpy()
        found = np.asarray(running.run(None, {"ids": ids.numpy(), "weights": weights.numpy()})[0])
        gap = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12)
        if found.dtype != np.float32 or not gap <= TOLERANCE:  # a NaN is no agreement
            raise ProofFailed(
                f"The exported graph differs from torch by {gap:.1e} of the largest feature (at most {TOLERANCE:.0e} "
                f"allowed, windows {shape}). Choose another backbone and report this one"
            )
    return graph


def _windows(many: int, length: int, words: int) -> tuple[Tensor, Tensor]:
    """Random windows of several lengths, the first one whole."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, words, (many, length), generator=draw)
    sizes = torch.tensor([max(1, length - 3 * i) for i in range(many)])
    return ids, (torch.arange(length) < sizes[:, None]).float()
