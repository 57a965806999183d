"""A folder of transformers with an image encoder: config.json, preprocessor_config.json, model.safetensors.

Known model types and what is taken as their feature are in FEATURES: the state that the model's own classifier reads,
or, for encoders without one, the state that its authors pool. Code that a folder brings along is never run.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from topwork.backbones.card_json import card, checked_hash, read_json, weights_file
from topwork.backbones.torch_backbone import TorchBackbone, need_train
from topwork.errors import BadWeights, MissingExtra, WeightsNotHere
from topwork.store import weights
from topwork.types import Backbone, digest

if TYPE_CHECKING:
    from torch import nn

FILE = "model.safetensors"
FEATURES: dict[str, Literal["first", "mean", "pooler"]] = {
    "clip": "pooler",
    "clip_vision_model": "pooler",
    "convnext": "pooler",
    "convnextv2": "pooler",
    "deit": "first",
    "dinov2": "first",
    "dinov2_with_registers": "first",
    "dinov3_convnext": "pooler",
    "dinov3_vit": "pooler",
    "ijepa": "mean",
    "mobilenet_v1": "pooler",
    "mobilenet_v2": "pooler",
    "regnet": "pooler",
    "resnet": "pooler",
    "siglip": "pooler",
    "siglip_vision_model": "pooler",
    "swin": "pooler",
    "swinv2": "pooler",
    "vit": "first",
}
INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # of Pillow


def open_transformers(folder: Path, config: dict[str, Any], spec: str) -> Backbone:
    """The backbone that the folder holds."""
    where = folder / "config.json"
    kind = check_kind(config, where)
    file = weights_file(folder, (FILE,), where)
    found = checked_hash(file, {}, where)
    weights.shapes(file)  # readable, and no pickle
    facts = {"name": folder.name, **_pixels(_processor(folder), folder), "source": str(config.get("_name_or_path", ""))}
    passing = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "id2label", "label2id")
    architecture = {key: value for key, value in config.items() if key not in passing}
    text = f"transformers:{kind} {FEATURES[kind]} {digest(architecture)}"
    return TorchBackbone(card(facts, spec, text, found, where), partial(_build, folder, kind))


def check_kind(config: dict[str, Any], where: Path) -> str:
    """The model type of a config, which must be a known one."""
    kind = config.get("model_type")
    if kind not in FEATURES:
        raise BadWeights(
            f"{where}: model_type {kind!r} is no image encoder that is known here. Known are: {', '.join(FEATURES)}"
        )
    return kind


def _processor(folder: Path) -> dict[str, Any]:
    """How the images must look: preprocessor_config.json, or its younger form."""
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        said = read_json(folder / "processor_config.json").get("image_processor")
        if isinstance(said, dict):
            return said
    raise WeightsNotHere(
        f"{folder} has no preprocessor_config.json, which says how images must look. Copy it there from where the "
        "weights come from"
    )


def _pixels(said: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The processor's words in those of a card."""
    where = folder / "preprocessor_config.json"
    if said.get("do_flip_channel_order"):
        raise BadWeights(f"{where}: blue comes first (do_flip_channel_order). Export the model to ONNX: order='BGR'")
    resize, crop, fit = _geometry(said, where)
    scale = 255 * (said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1)  # of a pixel 0..1
    shift = 1 if said.get("rescale_offset") else 0
    normalised = said.get("do_normalize", True)
    mean, std = (said.get(key) if normalised else [value] * 3 for key, value in (("image_mean", 0), ("image_std", 1)))
    if not (isinstance(mean, list) and isinstance(std, list) and said.get("resample", 2) in INTERPOLATIONS):
        raise BadWeights(
            f"{where}: image_mean {mean}, image_std {std}, resample {said.get('resample')}. Expected three numbers "
            "each, and resample 0 (nearest), 2 (bilinear) or 3 (bicubic)"
        )
    return {
        "input_size": [3, crop, crop],
        "resize_short_side": resize,
        "fit": fit,
        "mean": [(value + shift) / scale for value in mean],
        "std": [value / scale for value in std],
        "interpolation": INTERPOLATIONS[said.get("resample", 2)],
    }


def _geometry(said: dict[str, Any], where: Path) -> tuple[int, int, str]:
    """(resize_px, crop_px, fit)."""
    size, crop = _side(said.get("size")), _side(said.get("crop_size"))
    whole = isinstance(said.get("size"), dict) and "height" in said["size"]
    if said.get("do_resize") is False or not size:
        raise BadWeights(f"{where}: size {said.get('size')!r}. Expected a square or shortest_edge, and do_resize")
    kind = str(said.get("image_processor_type") or said.get("feature_extractor_type") or "")
    if "ConvNext" in kind or ("crop_pct" in said and not crop):
        if size >= 384:
            return size, size, "squash"
        return math.floor(size / (said.get("crop_pct") or 224 / 256)), size, "crop"
    if crop and said.get("do_center_crop", True):
        return max(size, crop), crop, "crop"
    if whole or isinstance(said["size"], int):
        return size, size, "squash"
    return size, size, "crop"


def _side(size: Any) -> int:
    """Side of a square, in any of the ways to write one; 0 where there is none."""
    if isinstance(size, dict):
        sides = {size.get("height"), size.get("width")} if "height" in size else {size.get("shortest_edge")}
        size = sides.pop() if len(sides) == 1 else 0
    return size if isinstance(size, int) and not isinstance(size, bool) else 0


def _build(folder: Path, kind: str) -> nn.Module:
    need_train(f"Backbone '{folder}'")
    try:
        from topwork.backbones.transformers_trunk import build
    except ImportError as error:
        raise MissingExtra.of("transformers", f"Backbone '{folder}'") from error
    return build(folder, kind, FEATURES[kind])
