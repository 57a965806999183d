"""Backbones in folders of this machine: local:FOLDER, where FOLDER holds card.json and a safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.folder import open_folder
from topwork.errors import BadSetting, BadWeights, WeightsNotHere
from topwork.store.weights import refuse_pickle
from topwork.types import Backbone, Card


@dataclass(frozen=True)
class Local:
    """Folders that the user names."""

    def cards(self) -> tuple[Card, ...]:
        """Backbones in the working folder and in its `weights` folder; unusable ones are left out."""
        found = []
        for path in sorted((*Path().glob("*/card.json"), *Path("weights").glob("*/card.json"))):
            try:
                found.append(self.load(str(path.parent)).card)
            except BadWeights:
                continue
        return tuple(found)

    def load(self, name: str) -> Backbone:
        """The backbone in the folder `name`."""
        if not name:
            raise BadSetting("local needs a folder: local:FOLDER, with card.json and a safetensors file in it")
        folder = Path(name).expanduser()
        if folder.is_file():
            refuse_pickle(folder)
            folder = folder.parent  # local:FOLDER/model.safetensors
        if not folder.is_dir():
            raise WeightsNotHere(f"The folder {folder} does not exist (backbone 'local:{name}')")
        return open_folder(folder, f"local:{name}")
