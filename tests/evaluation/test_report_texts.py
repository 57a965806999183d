"""The report of a model of texts: the texts themselves with their words marked, and nothing in them ever runs."""

import re

import numpy as np
import pytest

from topwork import account
from topwork.artefact.model import load
from topwork.evaluation import occlusion
from topwork.evaluation.report import render, terminal, to_json
from topwork.modalities.text import PAIR
from topwork.types import Predictions

from ..artefact._texts import LABELS, write
from .test_report import NASTY, Page, lines_of, sample


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(write(tmp_path_factory.mktemp("models") / "films"))


def numbers_of(model, texts):
    """As `evaluate` makes them."""
    p = model.probabilities(texts)
    said = Predictions(p, np.arange(len(texts)) % 2, LABELS, [f"films.csv line {i + 2}" for i in range(len(texts))])
    facts = {"task": model.task, "modality": model.modality, "multilabel": False}
    facts["evaluated_on"] = {"kind": "test", "n": len(texts), "text": ""}
    return account.score_saved(said, **facts)


TEXTS = [*(f"A good film {i}!" for i in range(20)), "An awful,\nawful film", f"great{PAIR}bad", "", *NASTY[:4]]


def test_the_gallery_shows_texts_with_their_words(model):
    numbers = account.with_texts(numbers_of(model, TEXTS), TEXTS, model)
    wrong = numbers["gallery"]["most_wrong"]
    assert len(wrong) == occlusion.SHOWN
    effects = dict(wrong[0]["words"])
    assert max(effects, key=lambda word: effects[word] or 0) == "good"
    saved = dict(zip(LABELS, model.probabilities(TEXTS[wrong[0]["row"]])[0], strict=True))
    assert wrong[0]["stated"] == pytest.approx(saved[wrong[0]["predicted"]], abs=1e-6)
    page = Page(render(numbers))
    assert "A good film" in page.text
    marks = [value for tag, name, value in page.attributes if (tag, name) == ("mark", "class")]
    assert {value[:3] for value in marks} >= {"for", "aga"}
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("mark", "title")]
    assert any(re.fullmatch(r"positive \d+\.\d\u202f%, without this word \d+\.\d\u202f%", t) for t in titles)
    assert "no preview" not in page.text
    assert account.thumbnails("/", numbers) == {}


def test_texts_never_run(model):
    nasty = [f"good {text} {i}" for i, text in enumerate(NASTY[:10] * 3)]
    text = render(account.with_texts(numbers_of(model, nasty), nasty, model))
    page = Page(text)
    assert len(page.scripts) == 1
    assert all(load.startswith("data:") for load in page.loads)
    assert not [a for a in page.attributes if a[1].startswith("on") or a[1] == "style"]
    assert "<script>alert" not in text
    assert "<script>alert(1)</script>" in page.text.replace("> ", ">").replace(" <", "<")
    assert not re.search("[\x00\x1b\x1e\u202e]", text)


def test_pairs_and_texts_of_nothing_are_shown(model):
    given = [f"good{PAIR}bad"] * 2 + ["", "  "] * 2
    page = Page(render(account.with_texts(numbers_of(model, given), given, model)))
    assert "good | bad" in page.text
    assert "no text" in page.text


def test_images_stay_as_they_are(model):
    numbers = sample()
    assert account.with_texts(numbers, [], model) is numbers


def text_numbers(**changes):
    """Numbers of a fit on texts."""
    numbers = sample(modality="text", task="text-classification", **changes)
    numbers["proof"]["modality"] = "text"
    numbers["extraction"] |= {"texts": 100, "texts_per_second": 5000.0}
    del numbers["extraction"]["images"], numbers["extraction"]["images_per_second"]
    numbers["backbone"]["preprocess"] |= {"resize_px": 0, "crop_px": 0}
    numbers["findings"] = numbers["findings"][2:]
    numbers["findings"][0]["message"] = "The largest class has 1.6 times as many as the smallest."
    for shelf in numbers["gallery"].values():
        for entry in shelf:
            entry |= {"item": "reviews.csv line 7", "words": [["A", 0.0], [" ", None], ["film", 0.4]], "about": "rose"}
            entry["stated"] = 0.9
    return numbers


def test_nothing_on_the_page_speaks_of_images():
    numbers = text_numbers()
    numbers["data"] |= {"source": "reviews.csv"}
    numbers["skipped"] = []
    numbers["command"] = "topwork fit reviews.csv"
    numbers["choices"] = []
    text = render(numbers)
    page = Page(text)
    lines = "\n".join(lines_of(terminal(numbers), 200))
    for said in (page.text, lines, *(value for _, name, value in page.attributes if name in ("title", "aria-label"))):
        assert not re.search(r"image(?!net)|picture", str(said), re.IGNORECASE), said
    for words in (
        "unseen texts correctly labelled",
        "all 298 texts",
        "Texts per class",
        "5,000 texts a second",
        "labelled texts",
        "same unseen texts",
        "Share of texts whose class is named correctly.",
    ):
        assert words in page.text, words
    assert "resize" not in page.text


def test_the_words_survive_json():
    import json

    numbers = text_numbers()
    assert render(json.loads(to_json(numbers))) == render(numbers)
    for key in ("words", "about", "stated"):
        for entry in (e for shelf in numbers["gallery"].values() for e in shelf):
            entry.pop(key)
        Page(render(numbers))


def test_multilabel_texts(model):
    numbers = text_numbers(multilabel=True)
    for entry in numbers["gallery"]["most_wrong"]:
        entry["label"] = ["daisy", "rose"]
    assert "Share of texts with every label right" in Page(render(numbers)).text
