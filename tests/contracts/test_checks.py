"""Every check of the room: yields (name, value), plain JSON, on one label, several labels, and next to nothing."""

import json

import numpy as np
import pytest

from topwork import plugins
from topwork.evaluation import checks
from topwork.evaluation.checks import Context
from topwork.types import Predictions

NAMES = plugins.names(checks.ROOM)


def context(N=60, C=3, several=False, **more):
    rng = np.random.default_rng(0)
    y = rng.random((N, C)) < 0.4 if several else rng.permutation(np.arange(N) % C)
    z = rng.normal(size=(N, C)) + 2 * (y if several else np.eye(C)[y])
    p = 1 / (1 + np.exp(-z)) if several else np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = tuple("abcdef"[:C])
    seen = Predictions(p.astype(np.float32), y, labels, [f"{i}.jpg" for i in range(N)], several)
    x = np.hstack([z, rng.normal(size=(N, 5))]).astype(np.float32)
    folds = np.arange(N) % 5
    full = {"logits": z, "folds": folds, "train_x": x, "train_targets": y, "train_folds": folds}
    return Context(seen, **{**full, **more})


CONTEXTS = {
    "one label": context(),
    "two classes": context(C=2),
    "several labels": context(several=True),
    "predictions only": Context(context().predictions),
    "one item": Context(Predictions(np.array([[1, 0]], np.float32), np.array([0]), ("a", "b")), temperature=1.0),
    "one class": Context(Predictions(np.ones((9, 1), np.float32), np.zeros(9, int), ("a",))),
    "all wrong": Context(Predictions(np.eye(2, dtype=np.float32)[[1, 0]], np.array([0, 1]), ("a", "b"))),
}


@pytest.mark.parametrize("situation", CONTEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_yields_plain_json(name, situation):
    for key, value in plugins.make(checks.ROOM, name).run(CONTEXTS[situation]):
        assert isinstance(key, str)
        assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_room_answers_with_the_keys_of_the_report():
    assert set(checks.run(CONTEXTS["one label"])) == {"confusion", "calibration", "label_curve", "gallery"}
    assert set(checks.run(CONTEXTS["several labels"])) == {"calibration", "label_curve", "gallery"}
    assert set(checks.run(CONTEXTS["predictions only"])) == {"confusion", "gallery"}
    assert set(checks.run(CONTEXTS["one label"], ["confusions(pairs=1)"])) == {"confusion"}


def test_confusions_count_what_scikit_learn_counts():
    from sklearn.metrics import confusion_matrix

    seen = CONTEXTS["one label"].predictions
    found = checks.run(CONTEXTS["one label"], ["confusions"])["confusion"]
    plain = confusion_matrix(seen.targets, seen.probabilities.argmax(1))
    np.testing.assert_array_equal(found["counts"], plain)
    counts = [pair["count"] for pair in found["pairs"]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == plain.sum() - np.trace(plain)
    first = found["pairs"][0]
    assert plain["abc".index(first["truth"]), "abc".index(first["predicted"])] == first["count"]


def test_gallery_shows_the_worst_first():
    p = np.array([[0.9, 0.1], [0.45, 0.55], [0.8, 0.2], [0.3, 0.7], [0.52, 0.48]], np.float32)
    seen = Predictions(p, np.array([1, 0, 0, 1, 0]), ("a", "b"), list("vwxyz"))
    gallery = checks.run(Context(seen, rows=np.arange(5) + 100), ["gallery(size=2)"])["gallery"]
    assert [e["item"] for e in gallery["most_wrong"]] == ["v", "w"]
    assert gallery["most_wrong"][0] == {
        "item": "v", "row": 100, "label": "b", "predicted": "a", "probability": pytest.approx(0.9),
    }  # fmt: skip
    assert [e["item"] for e in gallery["least_sure"]] == ["z", "w"]


def test_gallery_of_several_labels_names_them():
    p = np.array([[0.9, 0.1, 0.8], [0.4, 0.2, 0.1]], np.float32)
    seen = Predictions(p, np.array([[0, 0, 1], [0, 0, 0]], bool), tuple("abc"), ["v", "w"], multilabel=True)
    gallery = checks.run(Context(seen), ["gallery"])["gallery"]
    assert [(e["item"], e["label"], e["predicted"]) for e in gallery["most_wrong"]] == [("v", "c", "a, c")]
    assert gallery["most_wrong"][0]["probability"] == pytest.approx(0.9)
    assert gallery["least_sure"][0]["item"] == "w"
    assert gallery["least_sure"][0]["label"] == "none"


def test_calibration_uses_the_temperature_of_other_items():
    given = context(folds=None, temperature=2.0)
    found = checks.run(given, ["calibration"])["calibration"]
    assert found["temperature"] == 2
    assert found["before"]["log_loss"] != found["after"]["log_loss"]
    assert checks.run(context(folds=None), ["calibration"]) == {}
