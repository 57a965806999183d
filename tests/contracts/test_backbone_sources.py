"""Every file of backbones/sources keeps the promise of `backbones.Source`."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest

from topwork import backbones, plugins
from topwork.errors import MissingExtra, TopworkError
from topwork.nn.session import session
from topwork.types import Card, Preprocess

PLACES = plugins.names(backbones.ROOM)


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("place", PLACES)
def test_names_nobody_has_are_refused_in_one_line(place):
    source = plugins.make(backbones.ROOM, place)
    begun = time.monotonic()
    with pytest.raises(TopworkError) as caught:
        source.load("no/such backbone")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 30  # an import of timm on a busy machine


@pytest.mark.parametrize("place", PLACES)
def test_cards_are_facts_and_their_graphs_do_what_they_say(place):
    try:
        cards = plugins.make(backbones.ROOM, place).cards()
    except MissingExtra as error:
        pytest.skip(str(error))
    assert isinstance(cards, tuple)
    for card in cards:
        assert isinstance(card, Card)
        assert isinstance(card.preprocess, Preprocess)
        assert json.loads(json.dumps(dataclasses.asdict(card)))
        again = backbones.find(card.spec)
        assert again.card == card
        if card.modality == "text":
            read = again.reader.read(["one text", "", "another, longer"])
            ids, weights = read.padded(np.arange(3))
            (x,) = session(again.graph(), 1).run(["features"], {"ids": ids, "weights": weights})
            assert (x.dtype, x.shape) == (np.float32, (3, card.features))
            continue
        size = card.preprocess.crop_px
        images = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
        (features,) = session(again.graph(), 1).run(["features"], {"images": images})
        assert features.dtype == np.float32
        assert features.shape == (3, card.features or features.shape[1])
        assert np.isfinite(features).all()
        (one,) = session(again.graph(), 1).run(["features"], {"images": images[1:2]})
        assert np.allclose(one[0], features[1], rtol=1e-4, atol=1e-5)
