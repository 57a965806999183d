"""Backbones of timm by name: timm:resnet50.a1_in1k. Weights from the local hub cache first, safetensors only.

Preprocessing comes from timm's own pretrained_cfg: resize_px = floor(S / crop_pct), then the centre S x S.
The card is kept beside the exported graph, so the next fit imports neither timm nor torch.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones import fetch
from topwork.backbones.architecture import Architecture
from topwork.backbones.torch_backbone import TorchBackbone, need_train
from topwork.errors import BadSetting, TopworkError, UnknownName, WeightsNotHere
from topwork.store import weights
from topwork.types import Backbone, Card, Preprocess

if TYPE_CHECKING:
    from torch import nn

FILES = ("model.safetensors", "open_clip_model.safetensors")


@dataclass(frozen=True)
class Timm:
    """The image backbones of timm."""

    def cards(self) -> tuple[Card, ...]:
        """Those whose weights lie in the hub's cache."""
        need_train("Listing timm's backbones")
        from huggingface_hub import constants

        found = []
        for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--timm--*")):
            name = folder.name.removeprefix("models--timm--")
            if fetch.hub_file_here(f"timm/{name}", FILES):
                try:
                    found.append(self.load(name).card)
                except TopworkError:  # made for another timm
                    continue
        return tuple(found)

    def load(self, name: str) -> Backbone:
        """The backbone timm:name; weights are fetched if they are not here."""
        spec = f"timm:{name}"
        return TorchBackbone(weights.recall(spec) or _open(spec)[0], partial(_build, spec))


def _open(spec: str) -> tuple[Card, Path]:
    """Card and weights file, from timm's own facts."""
    need_train(f"Backbone '{spec}'")
    import timm

    name = spec.removeprefix("timm:")
    facts = _facts(name)
    if not facts.hf_hub_id:
        raise WeightsNotHere(
            f"{spec} has no safetensors on the hub; pickles are not loaded. Use a folder: local:FOLDER"
        )
    file = fetch.hub_file(facts.hf_hub_id, (facts.hf_hub_filename,) if facts.hf_hub_filename else FILES, spec)
    weights.shapes(file)  # readable, and no pickle
    blob = file.resolve().name  # the hub's cache names large files by their sha256
    found = (
        weights.check_hash(file, blob, "the hub's cache")
        if re.fullmatch("[0-9a-f]{64}", blob)
        else weights.sha256(file)
    )
    card = Card(
        spec=spec,
        name=name,
        architecture=str(Architecture("timm", name)),
        preprocess=_preprocess(facts, spec),
        weights=found,
        licence=facts.license or "",
        trained_on=facts.tag or "",
        origin=f"https://huggingface.co/{facts.hf_hub_id}, timm {timm.__version__}",
    )
    weights.remember(card, file)
    return card, file


def _facts(name: str) -> Any:
    """timm's record of a pretrained network."""
    import timm

    try:
        facts = timm.get_pretrained_cfg(name) if re.fullmatch(r"[\w.-]+", name) else None
    except RuntimeError:  # an unknown tag
        facts = None
    if facts is None:
        known = timm.list_pretrained()
        base = name.partition(".")[0]
        near = [other for other in known if other.startswith(f"{base}.")] or difflib.get_close_matches(
            name, known, n=5, cutoff=0.5
        )
        hint = f" Near it: {', '.join(near[:5])}." if near else ""
        raise UnknownName(
            f"No '{name}' among the {len(known):,} pretrained backbones of timm {timm.__version__}.{hint}"
        )
    return facts


def _preprocess(facts: Any, spec: str) -> Preprocess:
    from timm.data.config import resolve_data_config

    config = resolve_data_config(pretrained_cfg=facts.to_dict())
    channels, height, width = config["input_size"]
    fit = "squash" if config["crop_mode"] == "squash" else "crop"
    resize_px = math.floor(height / config["crop_pct"])
    if config["crop_mode"] == "border" or channels != 3 or height != width or (fit == "squash" and resize_px != height):
        raise BadSetting(
            f"{spec} wants input {config['input_size']}, crop_mode '{config['crop_mode']}', crop_pct "
            f"{config['crop_pct']}. Expected three channels, a square, 'center' or a 'squash' of the whole image"
        )
    if config["interpolation"] not in ("bilinear", "bicubic", "nearest"):
        raise BadSetting(f"{spec} wants {config['interpolation']} interpolation. Expected bilinear, bicubic or nearest")
    return Preprocess(resize_px, height, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], fit)


def _build(spec: str) -> nn.Module:
    """The trunk with its weights."""
    from topwork.backbones import trunk

    card, file = _open(spec)

    def fill_in(network: nn.Module) -> None:
        trunk.fill(network, trunk.translated(network, trunk.load(file)), str(file))

    return trunk.build(Architecture("timm", card.name), fill_in)
