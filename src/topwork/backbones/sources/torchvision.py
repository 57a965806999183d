"""Backbones of torchvision by name: torchvision:resnet18, torchvision:resnet18.IMAGENET1K_V1.

Weights lie in TORCH_HOME/hub/checkpoints, where torchvision itself puts them. They are pickles of tensors: opened with
weights_only, after the hash in the file's name was checked. Preprocessing comes from the weights' own transforms().
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones import fetch
from topwork.backbones.architecture import Architecture
from topwork.backbones.torch_backbone import TorchBackbone, need_train
from topwork.errors import BadSetting, BadWeights, TopworkError, UnknownName
from topwork.store import weights
from topwork.types import Backbone, Card, Preprocess

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Torchvision:
    """The image classifiers of torchvision."""

    def cards(self) -> tuple[Card, ...]:
        """Those whose weights lie in torch's cache."""
        need_train("Listing torchvision's backbones")
        from torchvision import models

        found = []
        for name in models.list_models(module=models) if any(_folder().glob("*.pth")) else ():
            for entry in models.get_model_weights(name):
                if (_folder() / entry.url.rpartition("/")[2]).is_file():
                    try:
                        found.append(self.load(f"{name}.{entry.name}").card)
                    except TopworkError:  # of another size, or corrupt
                        continue
        return tuple(found)

    def load(self, name: str) -> Backbone:
        """The backbone torchvision:name; weights are fetched if they are not here."""
        spec = f"torchvision:{name}"
        return TorchBackbone(weights.recall(spec) or _open(spec)[0], partial(_build, spec))


def _open(spec: str) -> tuple[Card, Path]:
    """Card and weights file, from torchvision's own facts."""
    need_train(f"Backbone '{spec}'")
    name, entry = _entry(spec.removeprefix("torchvision:"))
    file = fetch.url_file(entry.url, _folder(), spec)
    prefix = re.search(r"-([0-9a-f]{8,})\.\w+$", file.name)
    found = weights.check_hash(file, prefix[1], "its own name") if prefix else weights.sha256(file)
    card = Card(
        spec=spec,
        name=f"{name}.{entry.name}",
        architecture=str(Architecture("torchvision", name)),
        preprocess=_preprocess(entry.transforms(), spec),
        weights=found,
        parameters=entry.meta.get("num_params"),
        multiply_adds=round(entry.meta["_ops"] * 1e9) if "_ops" in entry.meta else None,
        licence="BSD-3-Clause (torchvision)",
        trained_on=entry.name,
        origin=entry.url,
    )
    weights.remember(card, file)
    return card, file


def _entry(text: str) -> tuple[str, Any]:
    """Name of the architecture and torchvision's record of its weights; the default record where none is named."""
    from torchvision import models

    name, _, tag = text.partition(".")
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise UnknownName(f"No '{name}' among the {len(known)} image classifiers of torchvision.{hint}")
    entries = models.get_model_weights(name)
    if not tag:
        return name, entries.DEFAULT  # type: ignore[attr-defined]
    if tag not in entries.__members__:
        raise UnknownName.among(tag, f"torchvision:{name}", entries.__members__)
    return name, entries[tag]


def _preprocess(transforms: Any, spec: str) -> Preprocess:
    kind = transforms.interpolation.value
    (crop_px,), (resize_px,) = transforms.crop_size, transforms.resize_size
    if kind not in ("bilinear", "bicubic", "nearest") or crop_px > resize_px:
        raise BadSetting(
            f"{spec} wants {kind} interpolation, a crop of {crop_px} px from {resize_px} px: not supported"
        )
    return Preprocess(resize_px, crop_px, tuple(transforms.mean), tuple(transforms.std), kind)


def _folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _build(spec: str) -> nn.Module:
    """The trunk with its weights."""
    import torch

    from topwork.backbones import trunk

    card, file = _open(spec)

    def fill_in(network: nn.Module) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # it has many ways to refuse, UnpicklingError among them
            raise BadWeights(f"{file} holds more than tensors, or is damaged: it is not loaded") from error
        trunk.fill(network, state, str(file))
        if hasattr(network, "transform_input"):
            network.transform_input = True  # type: ignore[assignment]  # GoogLeNet and Inception v3: their weights want another scale of the input

    return trunk.build(Architecture("torchvision", card.name.partition(".")[0]), fill_in)
