"""Encoders of the Hugging Face hub by name: hf:facebook/dinov2-small, hf:sentence-transformers/all-MiniLM-L6-v2.

hf:ORG/NAME@REVISION names a revision. The repository must be in the layout of timm or of transformers (those of texts
with tokenizer.json; what sentence-transformers adds is read, too), with safetensors. The hub's cache on this machine
comes first; the network is asked only for what is not there, and not at all with HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from topwork.backbones import fetch
from topwork.backbones.card_json import read_json
from topwork.backbones.folder import open_folder
from topwork.backbones.text_folder import OPTIONAL, reads_text
from topwork.errors import BadSetting, TopworkError
from topwork.types import Backbone, Card

WEIGHTS = ("model.safetensors", "open_clip_model.safetensors")


@dataclass(frozen=True)
class Hf:
    """Repositories of the Hugging Face hub."""

    def cards(self) -> tuple[Card, ...]:
        """Encoders of transformers that lie in the hub's cache; those of timm are timm's."""
        found = []
        for name in fetch.cached_repos():
            if not name.startswith("timm/") and fetch.hub_file_here(name, WEIGHTS):
                try:
                    found.append(self.load(name).card)
                except TopworkError:  # of another modality, or in another layout
                    continue
        return tuple(found)

    def load(self, name: str) -> Backbone:
        """The backbone hf:ORG/NAME; files are fetched if they are not here."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) or ".." in name:
            raise BadSetting(f"hf needs a repository of the hub: hf:ORG/NAME, not 'hf:{name}'")
        spec = f"hf:{name}"
        config = fetch.hub_file(name, ("config.json",), spec)
        facts = read_json(config)
        if reads_text(facts):
            fetch.hub_files(name, ("tokenizer.json",), OPTIONAL, WEIGHTS[:1], spec)
            return open_folder(Path(config).parent, spec)
        if "architecture" not in facts:
            from topwork.backbones.transformers_folder import check_kind

            check_kind(facts, config)
            fetch.hub_file(name, ("preprocessor_config.json", "processor_config.json"), spec)
        fetch.hub_file(name, WEIGHTS, spec)
        return open_folder(Path(config).parent, spec)
