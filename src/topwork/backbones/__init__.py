"""Pretrained trunks by name: find("bundled"), find("timm:resnet50.a1_in1k"), find("local:weights/mobilenetv2_100").

A backbone (`topwork.types.Backbone`) has a card, a graph() for onnxruntime and a module() for torch. Finding one and
its card imports no torch for `bundled`, `local`, `onnx` and `hf`, and for the others only the first time on a machine.
A place where backbones come from is a file of `sources/` whose class keeps the promise of `Source`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from topwork import plugins
from topwork.errors import BadSetting, TopworkError
from topwork.types import Backbone, Card

ROOM = "backbones.sources"


class Source(Protocol):
    """A place where backbones come from."""

    def cards(self) -> tuple[Card, ...]:
        """Backbones of this place that need no download."""
        ...

    def load(self, name: str) -> Backbone:
        """The backbone of this name; "" is the default where there is one."""
        ...


def find(spec: str, modality: str | None = None) -> Backbone:
    """The backbone that a spec names, SOURCE or SOURCE:NAME; BadSetting where it does not read this modality."""
    place, _, name = spec.strip().partition(":")
    if place not in plugins.names(ROOM) and os.path.isdir(spec):
        raise BadSetting(f"'{spec}' is a folder. As a backbone it is written local:{spec}")
    source: Source = plugins.make(ROOM, place)
    found = source.load(name)
    if modality not in (None, found.card.modality):
        raise BadSetting(f"Backbone '{spec}' reads {found.card.modality}, expected one that reads {modality}")
    return found


def fitted(backbone: Backbone, inputs: Callable[[], Sequence[str]]) -> Backbone:
    """The backbone; one that knows nothing by itself is fitted to these texts or rows, without their labels."""
    fit = getattr(backbone, "fitted", None)
    return backbone if fit is None else fit(inputs())


def cards(modality: str | None = "image") -> tuple[Card, ...]:
    """Every backbone that can be used here and now, without a download; of one modality, or of all (None)."""
    found: list[Card] = []
    for place in plugins.names(ROOM):
        try:
            found.extend(plugins.make(ROOM, place).cards())
        except TopworkError:  # a source whose extra is missing or whose files are broken hides no other source
            continue
    return tuple(card for card in found if modality in (None, card.modality))
