"""Backbones inside the package: bundled (the default one), bundled:NAME, and bundled:pixels, which has no weights.

bundled:text_small reads English text (`static_text.py`), the others images.
bundled:ngrams reads text of any language, bundled:columns rows of feature columns, once they were fitted to some
(`ngrams.py`, `columns.py`); they have no weights.

pixels: features are the raw pixels of the whole image squashed to 16 x 16, (N, 768) in 0..1: the rung of the ladder
that a real backbone must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from topwork.backbones.card_json import read_json
from topwork.backbones.folder import open_folder
from topwork.errors import UnknownName
from topwork.types import Backbone, Card, Preprocess

if TYPE_CHECKING:
    from torch import nn

FOLDERS = Path(__file__).parent.parent / "bundled"
DEFAULT = "image_small"
FITTED = ("columns", "ngrams")  # to the items themselves, before which there is nothing to use
SIDE_PX = 16

_FLATTEN = f"""
<ir_version: 9, opset_import: ["" : 19]>
trunk (float[N, 3, {SIDE_PX}, {SIDE_PX}] images) => (float[N, {3 * SIDE_PX**2}] features) {{
    features = Flatten <axis = 1> (images)
}}"""


@dataclass(frozen=True)
class Bundled:
    """What the package brings along."""

    def cards(self) -> tuple[Card, ...]:
        """All that can be used as they are."""
        return tuple(self.load(name).card for name in _names() if name not in FITTED)

    def load(self, name: str) -> Backbone:
        """One of them; "" is the default."""
        name = name or DEFAULT
        if name not in _names():
            raise UnknownName.among(name, "bundled", _names())
        if name == "pixels":
            return Pixels()
        if name == "ngrams":
            from topwork.backbones.ngrams import Ngrams

            return Ngrams()
        if name == "columns":
            from topwork.backbones.columns import Columns

            return Columns()
        if read_json(FOLDERS / name / "card.json").get("modality") == "text":
            from topwork.backbones.static_text import open_static

            return open_static(FOLDERS / name, f"bundled:{name}")
        return open_folder(FOLDERS / name, "bundled" if name == DEFAULT else f"bundled:{name}")


@dataclass(frozen=True)
class Pixels:
    """A trunk that does nothing: what can be read from raw pixels alone."""

    @property
    def card(self) -> Card:
        """Facts; there are no weights, so their hash is empty."""
        preprocess = Preprocess(SIDE_PX, SIDE_PX, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", "squash")
        facts = {"features": 3 * SIDE_PX**2, "parameters": 0, "multiply_adds": 0, "trained_on": "nothing"}
        return Card("bundled:pixels", "pixels", "flatten", preprocess, weights="", **facts)  # type: ignore[arg-type]

    def graph(self) -> bytes:
        """Flatten."""
        from onnx import parser

        from topwork.nn.onnx_graph import to_bytes

        return to_bytes(parser.parse_model(_FLATTEN))

    def module(self) -> nn.Module:
        """Flatten."""
        from topwork.backbones.torch_backbone import need_train

        need_train("Backbone 'bundled:pixels' in torch")
        from torch import nn

        return nn.Flatten()


def _names() -> tuple[str, ...]:
    return (*FITTED, "pixels", *sorted(path.parent.name for path in FOLDERS.glob("*/card.json")))
