"""A folder of timm as it lies on the hub: config.json and model.safetensors.

config.json holds "architecture", "num_classes", perhaps "model_args", and "pretrained_cfg" with input_size, mean, std,
interpolation, crop_pct, crop_mode. Preprocessing as timm resolves it: resize_px = floor(S / crop_pct), then the centre.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones.architecture import REFUSED, Architecture
from topwork.backbones.card_json import card, checked_hash, weights_file
from topwork.backbones.torch_backbone import TorchBackbone
from topwork.errors import BadWeights
from topwork.store import weights
from topwork.types import Backbone

if TYPE_CHECKING:
    from torch import nn

FILES = ("model.safetensors", "open_clip_model.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # timm's own defaults where a config is silent


def open_timm(folder: Path, config: dict[str, Any], spec: str) -> Backbone:
    """The backbone that the folder holds."""
    where = folder / "config.json"
    architecture = _architecture(config, where)
    file = weights_file(folder, FILES, where)
    found = checked_hash(file, {}, where)
    weights.shapes(file)  # readable, and no pickle
    facts = _facts(config, where)
    return TorchBackbone(card(facts, spec, str(architecture), found, where), partial(_build, architecture, file))


def _architecture(config: dict[str, Any], where: Path) -> Architecture:
    name, options = config["architecture"], config.get("model_args") or {}
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name) or not isinstance(options, dict):
        raise BadWeights(f"{where}: architecture {name!r} with model_args {options!r} names no network of timm")
    if refused := sorted(options.keys() & REFUSED):
        raise BadWeights(f"{where}: model_args must not use {', '.join(refused)}")
    classes = config.get("num_classes", (config.get("pretrained_cfg") or {}).get("num_classes"))
    return Architecture("timm", name, options | ({"num_classes": int(classes)} if classes is not None else {}))


def _facts(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """A config in the words of a card."""
    said = config | (config.get("pretrained_cfg") or {})  # older folders hold everything at the top
    size, crop, mode = said.get("input_size", [3, 224, 224]), said.get("crop_pct", 0.875), said.get("crop_mode")
    if not (isinstance(crop, int | float) and 0 < crop <= 1) or mode not in (None, "center", "squash"):
        raise BadWeights(f"{where}: crop_pct {crop!r}, crop_mode {mode!r}. Expected at most 1; center or squash")
    side = size[1] if isinstance(size, list) and len(size) == 3 and isinstance(size[1], int) else 0
    fit = "squash" if mode == "squash" else "crop"
    return {
        "name": config["architecture"] + (f".{said['tag']}" if said.get("tag") else ""),
        "input_size": size,
        "resize_short_side": side if fit == "squash" else math.floor(side / crop),
        "mean": said.get("mean", MEAN),
        "std": said.get("std", STD),
        "interpolation": said.get("interpolation", "bicubic"),
        "fit": fit,
        "num_features": config.get("num_features") if not config.get("model_args") else None,
        "licence": said.get("license"),
        "trained_on": said.get("tag"),
        "source": said.get("origin_url"),
    }


def _build(architecture: Architecture, file: Path) -> nn.Module:
    from topwork.backbones import trunk

    def fill_in(network: nn.Module) -> None:
        trunk.fill(network, trunk.translated(network, trunk.load(file)), str(file))

    return trunk.build(architecture, fill_in)
