"""A model of texts from fit to a further class: the same folder, the same proofs, a page with the texts themselves."""

import csv
import json

import pytest

import topwork as tw
from topwork import extending
from topwork.data.overlap import overlap
from topwork.errors import BadData, BadSetting
from topwork.types import Watch

THINGS = {
    "food": ["soup", "bread", "dinner", "cheese", "an apple", "breakfast"],
    "travel": ["the train", "a flight", "the hotel", "a ticket", "luggage", "the airport"],
    "music": ["a song", "the concert", "a guitar", "the album", "drums", "a melody"],
}
SAID = ["I liked {} <b>very</b> much", "{} was late and cold", "we talked about {}", "where can I get {}?"]


def table(path, labels, more=()):
    rows = [(said.format(thing), label) for label in labels for thing in THINGS[label] for said in SAID]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows, *more])
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("texts")
        patch.setenv("TOPWORK_CACHE", str(folder / "cache"))
        data = table(folder / "old.csv", ["food", "travel"])
        return tw.fit(data, steps="majority,probe", out=folder / "old"), folder


def test_a_fit_on_texts_saves_a_model_of_texts(fitted):
    model, folder = fitted
    assert (model.modality, model.task) == ("text", "text-classification")
    assert model.predict("is the soup ready?").label == "food"
    page = (model.folder / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;very&lt;/b&gt;" in page
    assert "<b>very</b>" not in page
    numbers = json.loads((model.folder / "report.json").read_bytes())
    assert (numbers["modality"], numbers["proof"]["modality"]) == ("text", "text")
    shown = [entry for shelf in numbers["gallery"].values() for entry in shelf]
    assert all("".join(letters for letters, _ in entry["words"]) for entry in shown)
    numbers = tw.evaluate(model, folder / "old.csv")
    assert numbers["metrics"]["accuracy"]["value"] > 0.9


def test_a_further_class_of_texts(fitted, tmp_path):
    model, folder = fitted
    copies = [("I liked soup <B>very</B>  much", "food")]  # nearly a text of the test data
    new, test = table(tmp_path / "new.csv", ["music"], copies), table(tmp_path / "test.csv", THINGS)
    found, asked = (tw.inspect(tw.read(data), drop_leaks=False).dataset for data in (new, test))
    assert overlap(asked, found).all()
    assert not overlap(tw.inspect(tw.read(folder / "old.csv")).dataset, found)[:-1].any()
    more = tw.extend(model, new, out=tmp_path / "more")
    assert more.labels == ("food", "travel", "music")
    assert more.predict(["the guitar solo", "a cheap flight"])[0].label == "music"
    assert more.predict("a cheap flight").label == "travel"
    pictures = found.replace(modality="image")
    with pytest.raises(BadData, match=r"holds images, but .* is a model of texts"):
        extending.extend(model, pictures, None, tmp_path / "no", seed=0, store=None, watch=Watch(), facts={})


def test_ngrams_cannot_be_extended(fitted, tmp_path):
    _, folder = fitted
    model = tw.fit(folder / "old.csv", steps="majority,ngrams", out=tmp_path / "counted")
    assert model.card.spec == "bundled:ngrams"
    readme = (model.folder / "README.md").read_text(encoding="utf-8")
    assert "on counted ngrams" in readme
    assert "nothing of it was pretrained" in readme
    with pytest.raises(BadSetting, match="by their n-grams, of which it keeps no statistics"):
        tw.extend(model, table(tmp_path / "new.csv", ["music"]), out=tmp_path / "more")
