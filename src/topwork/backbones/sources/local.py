"""Backbones in folders of this machine: local:FOLDER, local:FOLDER/model.safetensors, local:FOLDER/model.onnx.

A folder holds card.json and a safetensors or ONNX file, or is a folder of timm or transformers (`folder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.folder import open_folder
from topwork.backbones.sources.onnx import Onnx
from topwork.errors import BadSetting, BadWeights, WeightsNotHere
from topwork.store.weights import refuse_pickle
from topwork.types import Backbone, Card

PLACES = (".", "weights")  # where `cards` looks; models of ours hold a model.json and are none


def folders() -> tuple[Path, ...]:
    """Folders that look like backbones, in the working folder and in `weights`; only names are looked at."""
    found = {
        path.parent
        for place in PLACES
        for name in ("card.json", "config.json")
        for path in Path(place).glob(f"*/{name}")
        if name == "card.json" or (path.parent / "model.safetensors").exists()
    }
    return tuple(sorted(found))


@dataclass(frozen=True)
class Local:
    """Folders that the user names."""

    def cards(self) -> tuple[Card, ...]:
        """Backbones in the working folder and in its `weights` folder; unusable ones are left out."""
        found = []
        for folder in folders():
            try:
                found.append(self.load(str(folder)).card)
            except BadWeights:
                continue
        return tuple(found)

    def load(self, name: str) -> Backbone:
        """The backbone in the folder `name`, or in the folder of the file `name`."""
        if not name:
            raise BadSetting("local needs a folder: local:FOLDER, with card.json and a safetensors file in it")
        folder = Path(name).expanduser()
        if folder.is_file():
            refuse_pickle(folder)
            if folder.suffix.lower() == ".onnx":
                return Onnx().load(name)
            if folder.suffix.lower() not in (".safetensors", ".json"):
                raise BadWeights(f"{folder} is neither safetensors nor ONNX. A backbone is a folder with one of them")
            folder = folder.parent
        if not folder.is_dir():
            raise WeightsNotHere(f"The folder {folder} does not exist (backbone 'local:{name}')")
        return open_folder(folder, f"local:{name}")
