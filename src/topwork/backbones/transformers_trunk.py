"""Image encoders of transformers as trunks: images float32 (N, 3, S, S) -> features float32 (N, D).

This file needs torch and transformers; only `transformers_folder.py` imports it, when a module is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers.utils import logging

from topwork.backbones.trunk import load
from topwork.errors import BadWeights

VISION = {  # folders that hold a pair of encoders: the class that loads the one for images
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
WITHOUT_POOLER = ("vit", "deit", "ijepa")  # theirs is seldom trained, and never read by their classifiers


class TransformersTrunk(nn.Module):
    """An encoder up to its feature: the class token, the mean token, or what the model itself pools."""

    def __init__(self, network: nn.Module, feature: str) -> None:
        super().__init__()
        self.network, self.feature = network, feature

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, D)."""
        out = self.network(pixel_values=images)
        if self.feature == "first":
            return out.last_hidden_state[:, 0]  # (N, T, D) -> (N, D)
        if self.feature == "mean":
            return out.last_hidden_state.mean(1)
        return out.pooler_output.flatten(1)  # (N, D, 1, 1) or (N, D)


def build(folder: Path, kind: str, feature: str) -> nn.Module:
    """The trunk with the folder's weights: every tensor of the encoder is in the file, and none is left over."""
    maker = getattr(transformers, VISION.get(kind, "AutoModel"))
    options: dict[str, Any] = {"add_pooling_layer": False} if kind in WITHOUT_POOLER else {}
    network = loaded(folder, maker, **options)
    trunk = TransformersTrunk(network, feature).eval()
    trunk.untrained = functools.partial(_as_begun, type(network), network.config, feature, options)  # type: ignore[assignment]
    return trunk


def loaded(folder: Path, maker: Any, attention: str = "eager", **options: Any) -> Any:
    """A network of transformers with the weights of a folder, all of them and no others."""
    load(folder / "model.safetensors")  # readable and finite
    try:
        with _silence():
            network, told = maker.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype="float32",
                attn_implementation=attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # configurations that make no sense fail in many ways
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadWeights(f"transformers {transformers.__version__} cannot build {folder}: {said}") from error
    _check(network, told, folder)
    return network


def _as_begun(kind: type[nn.Module], config: Any, feature: str, options: dict[str, Any]) -> nn.Module:
    """With the random weights that its authors begin with."""
    return TransformersTrunk(kind(copy.deepcopy(config), **options), feature).eval()


def _check(network: Any, told: dict[str, Any], folder: Path) -> None:
    """Raise where the file and the architecture of config.json differ, but for heads that we do not use."""
    own = {name.partition(".")[0] for name, _ in network.named_modules() if name}
    prefix = f"{network.base_model_prefix}."
    surplus = sorted(n for n in told["unexpected_keys"] if n.removeprefix(prefix).partition(".")[0] in own)
    missing = sorted(told["missing_keys"])
    other = sorted(str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in told["mismatched_keys"])
    complaints = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in (
            (missing, "missing"),
            (surplus, "unknown to the architecture"),
            (other, "of another shape"),
        )
        if names
    ]
    if complaints:
        raise BadWeights(
            f"{folder / 'model.safetensors'} does not fit its architecture: {'; '.join(complaints)}. config.json must "
            "be the one that these weights were saved with"
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Its progress bars and reports of missing heads say nothing that we do not say."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)  # critical
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
