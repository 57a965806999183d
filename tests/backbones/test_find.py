"""Specs of backbones."""

from __future__ import annotations

import pytest

from topwork import backbones
from topwork.errors import BadSetting, UnknownName


def test_unknown_places_and_bare_folders(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'timm'"):
        backbones.find("tim:resnet50")
    with pytest.raises(BadSetting, match=f"local:{tmp_path}"):
        backbones.find(str(tmp_path))


def test_cards_lists_what_is_here(monkeypatch, tmp_path):
    from topwork.backbones.sources.timm import Timm
    from topwork.errors import MissingExtra

    def missing(self):
        raise MissingExtra.of("train", "timm")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Timm, "cards", missing)
    assert "bundled:pixels" in [card.spec for card in backbones.cards()]
