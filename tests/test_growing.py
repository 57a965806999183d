"""A fit that goes on from a model: what is new, what is refitted, how both models do."""

import contextlib
import csv
import json
import sqlite3

import numpy as np
import pytest

from topwork import verbs
from topwork.artefact.bundle import SNAPSHOT
from topwork.artefact.snapshot import Snapshot
from topwork.backbones import find
from topwork.errors import BadData, BadSetting
from topwork.types import Watch

from .encoders import texts

STEPS = "majority,probe"


def rows(per_class, seed, flipped=False, start=0):
    """(text, label) with a number of its own each, so that no two are copies."""
    found, targets = texts(per_class=per_class, seed=seed)
    names = ("sea", "garden") if flipped else ("garden", "sea")
    marks = [(7919 * (start + i)) % 99991 for i in range(len(found))]
    return [(f"{text} {mark}", names[t]) for text, mark, t in zip(found, marks, targets, strict=True)]


def write(path, table):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *table])
    return path


OLD, NEW = rows(60, 1), rows(30, 2, start=1000)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A model that was cross-validated, and one that held a third out; with their cache."""
    folder = tmp_path_factory.mktemp("old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(folder / "cache"))
        write(folder / "old.csv", OLD)
        verbs.fit(folder / "old.csv", steps=STEPS, out=folder / "crossed")
        verbs.fit(folder / "old.csv", steps=STEPS, split="stratified(test=0.33)", out=folder / "held")
    return folder


@pytest.fixture
def same_cache(old, monkeypatch):
    monkeypatch.setenv("TOPWORK_CACHE", str(old / "cache"))


@pytest.mark.usefixtures("same_cache")
def test_what_is_new_is_told_and_both_are_compared(old, tmp_path):
    said = []
    new = rows(30, 3, start=3000)
    table = write(tmp_path / "grown.csv", [*new[:20], *OLD, *new[20:]])
    made = verbs.fit(table, since=old / "crossed", steps=STEPS, out=tmp_path / "m", watch=Watch(say=said.append))
    growth = made.report["growth"]
    assert growth["items"] == {"old": 120, "new": 60, "relabelled": 0, "gone": 0}
    assert growth["passes"] == {"computed": 180, "cached": 0, "asking_the_old": 0}  # static embeddings are not kept
    assert "note: 120 of 180 texts were there when crossed was made, 60 are new" in said
    assert "backbone bundled:text_small: that of crossed; --backbone names another" in said
    first, second = growth["rows"]
    assert (first["data"], first["n"], second["data"], second["n"]) == ("old", 120, "new", 60)
    assert first["said"] == "before: its own measure when it was made"
    assert first["before"] == verbs.load(old / "crossed").report["metrics"]["accuracy"]
    fresh = [text for text, _ in new]
    right = [one.label == label for one, (_, label) in zip(verbs.predict(old / "crossed", fresh), new, strict=True)]
    assert second["before"]["value"] == pytest.approx(np.mean(right))
    assert growth["told_apart"]["low"] < 0.5
    assert "120 old texts and 60 new ones: 180 forward passes" in growth["text"]
    page = (tmp_path / "m" / "report.html").read_text()
    assert "what has changed since crossed" in page
    assert second["difference"]["text"] in page
    assert Snapshot.read(tmp_path / "m").known(verbs.inspect(table).dataset).label.all()


@pytest.mark.usefixtures("same_cache")
def test_what_measured_the_old_model_measures_the_new_one(old, tmp_path):
    grown = write(tmp_path / "grown.csv", OLD + NEW)
    made = verbs.fit(grown, since=old / "held", steps=STEPS, out=tmp_path / "m")
    before, after = Snapshot.read(old / "held"), Snapshot.read(tmp_path / "m")
    held = set(after.content[after.held == 1].tolist())
    assert set(before.content[before.held == 1].tolist()) <= held
    assert not held & set(before.content[before.held == 0].tolist())
    assert len(held) == (before.held == 1).sum() + 12  # a fifth of the new ones
    assert made.report["evaluated_on"]["text"] == "what measured held, and a fifth of the new texts"
    first, second = made.report["growth"]["rows"]
    assert first["said"] == "neither model has learnt from them"
    assert (first["n"], second["n"]) == ((before.held == 1).sum(), 12)
    assert first["before"]["value"] == pytest.approx(verbs.load(old / "held").report["metrics"]["accuracy"]["value"])
    assert first["difference"]["n"] == first["n"]


@pytest.mark.usefixtures("same_cache")
def test_drift_is_seen(old, tmp_path):
    """New items whose classes have changed their names: the old model is wrong on them, and the words are others."""
    turned = [(f"{text} zebra quartz", label) for text, label in rows(40, 5, flipped=True, start=5000)]
    made = verbs.fit(write(tmp_path / "t.csv", OLD + turned), since=old / "crossed", steps=STEPS, out=tmp_path / "m")
    growth = made.report["growth"]
    assert growth["drift"]["high"] < -0.3
    assert growth["told_apart"]["low"] > 0.6
    gain = next(row for row in growth["rows"] if row["data"] == "new")["difference"]
    assert gain["low"] > 0
    assert "Drift: crossed on new ones against old ones -" in growth["text"]
    assert "Gained: on 80 new ones +" in growth["text"]


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_new_labels_changed_labels_and_what_is_gone(old, tmp_path):
    moved = [(text, "sea" if i < 12 else label) for i, (text, label) in enumerate(OLD[20:])]
    sky = [(f"cloud star comet {text}", "sky") for text, _ in NEW[:20]]
    said = []
    made = verbs.fit(
        write(tmp_path / "t.csv", moved + sky), since=old / "crossed", steps=STEPS, out=tmp_path / "m",
        watch=Watch(say=said.append),
    )  # fmt: skip
    growth = made.report["growth"]
    changed = sum(a != b for (_, a), (_, b) in zip(moved, OLD[20:], strict=True))
    assert changed > 0
    assert growth["items"] == {"old": 100 - changed, "new": 20, "relabelled": changed, "gone": 20}
    assert growth["labels"] == {"new": ["sky"], "gone": []}
    new = next(row for row in growth["rows"] if row["data"] == "new")
    assert new["before"]["value"] == 0.0
    assert any(f"{changed} have another label now, 20 of its items are gone" in line for line in said)


@pytest.mark.slow
@pytest.mark.usefixtures("same_cache")
def test_only_new_rows_are_there(old, tmp_path):
    said = []
    made = verbs.fit(
        write(tmp_path / "t.csv", NEW),
        since=old / "held",
        steps=STEPS,
        out=tmp_path / "m",
        watch=Watch(say=said.append),
    )
    assert "warning: 0 of 60 texts were there when held was made, 60 are new, 120 of its items are gone" in said
    assert [row["data"] for row in made.report["growth"]["rows"]] == ["new"]
    assert "No text of held is here, so forgetting cannot be measured." in made.report["growth"]["text"]


@pytest.mark.usefixtures("same_cache")
def test_what_cannot_be_gone_on_from(old, tmp_path):
    with pytest.raises(BadData, match=r"nothing is new since .*crossed was made: all its 120 labelled texts were"):
        verbs.fit(old / "old.csv", since=old / "crossed", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()
    folder = tmp_path / "without"
    folder.mkdir()
    for path in (old / "crossed").iterdir():
        if path.name != SNAPSHOT:
            (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "model.json").read_bytes())
    del manifest["files"][SNAPSHOT]
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BadSetting, match="holds no snapshot"):
        verbs.fit(old / "old.csv", since=folder, out=tmp_path / "m")


@pytest.mark.slow
def test_a_table_of_a_database_grows(tmp_path):
    """Also by a model whose backbone is made for its data: it is asked by its own graph."""
    uri = f"sqlite:///{tmp_path / 'x.db'}"
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as file, file:
        file.execute("create table reviews (text text, label text)")
        file.executemany("insert into reviews values (?, ?)", OLD)
    verbs.fit(uri, steps="majority,ngrams", out=tmp_path / "first")
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as file, file:
        file.executemany("insert into reviews values (?, ?)", NEW)
    made = verbs.fit(uri, since=tmp_path / "first", steps="majority,ngrams", out=tmp_path / "second")
    growth = made.report["growth"]
    assert growth["items"] == {"old": 120, "new": 60, "relabelled": 0, "gone": 0}
    assert growth["passes"]["asking_the_old"] == 60  # of the old ones its own measure is told
    assert growth["told_apart"] is None
    assert [row["n"] for row in growth["rows"]] == [120, 60]


@pytest.mark.slow
def test_a_folder_of_photos_grows(photos, tmp_path):
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    later = [path for path in sorted((tmp_path / "photos").rglob("*.png")) if int(path.stem) >= 15]
    kept = {path: path.read_bytes() for path in later}
    for path in later:
        path.unlink()
    verbs.fit(tmp_path / "photos", steps=STEPS, backbone="bundled", out=tmp_path / "first")
    for path, data in kept.items():
        path.with_stem(f"later{path.stem}").write_bytes(data)
    made = verbs.fit(tmp_path / "photos", since=tmp_path / "first", steps=STEPS, out=tmp_path / "second")
    assert made.report["growth"]["passes"] == {"computed": 15, "cached": 45, "asking_the_old": 0}


@pytest.mark.slow
def test_numbers_grow(tmp_path):
    """Main metric r2, with words that stand for numbers."""
    draw = np.random.default_rng(0)

    def numbers(n, start):
        stars = draw.integers(0, 9, n)
        return [
            (f"{'good ' * s}film {'bad ' * (8 - s)} n{start + i}", s + draw.normal(0, 0.3)) for i, s in enumerate(stars)
        ]

    first, second = numbers(80, 0), numbers(40, 1000)
    write(tmp_path / "a.csv", first)
    verbs.fit(tmp_path / "a.csv", task="text-regression", steps="mean,ngrams", out=tmp_path / "first")
    write(tmp_path / "a.csv", first + second)
    made = verbs.fit(
        tmp_path / "a.csv", task="text-regression", since=tmp_path / "first", steps="mean,ngrams", out=tmp_path / "m"
    )
    growth = made.report["growth"]
    assert growth["metric"] == "r2"
    assert growth["items"]["new"] == 40
    assert next(row for row in growth["rows"] if row["data"] == "new")["difference"] is not None


def tuned_and_grown(first, second, data, grow, tmp_path, backbone):
    """Fit, let the data grow, fit again; what the table says is what both saved models say of the same items."""
    split = "stratified(test=0.33)"
    old = verbs.fit(data, backbone=backbone, steps=[first], split=split, out=tmp_path / "first")
    assert old.report["steps"][-1]["kept"]
    n = len(verbs.inspect(data).dataset)
    grow()
    new = verbs.fit(data, since=tmp_path / "first", steps=[second], out=tmp_path / "second")
    assert (old.card.key == find(backbone, old.card.modality).card.key) == (first == "probe")
    assert (new.card.key == find(backbone, new.card.modality).card.key) == (second == "probe")
    growth, dataset = new.report["growth"], verbs.inspect(data).dataset
    assert growth["items"] == {"old": n, "new": len(dataset) - n, "relabelled": 0, "gone": 0}
    held = np.flatnonzero(Snapshot.read(tmp_path / "second").known(dataset).held)
    there = Snapshot.read(tmp_path / "first").known(dataset)
    assert there.held[held].sum() == there.held.sum()  # what measured the old one measures the new one
    right = {}
    for name in ("first", "second"):
        said = verbs.predict(tmp_path / name, [dataset.inputs()[row] for row in held])
        right[name] = np.array([one.label for one in said]) == np.array(dataset.labels)[dataset.targets()[held]]
    rows = {row["data"]: row for row in growth["rows"]}
    assert list(rows) == ["old", "new"]
    for name, which in (("old", there.content[held]), ("new", ~there.content[held])):
        assert rows[name]["n"] == which.sum()
        assert rows[name]["before"]["value"] == pytest.approx(right["first"][which].mean())
        assert rows[name]["after"]["value"] == pytest.approx(right["second"][which].mean())
    assert rows["old"]["before"]["value"] == pytest.approx(old.report["metrics"]["accuracy"]["value"])
    assert growth["told_apart"]["n"] >= 2 * (len(dataset) - n) - 2
    return growth, len(held)


@pytest.fixture
def digits(tmp_path):
    """Ninety written ones and sevens in colours, and a way to add sixty more."""
    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, numbers = load_digits(return_X_y=True)

    def put(begin, end):
        for number in (1, 7):
            for row in np.flatnonzero(numbers == number)[begin:end]:
                draw = np.random.default_rng(row)
                picture = 40 + pixels[row].reshape(8, 8, 1) * draw.uniform(4, 13, 3) + draw.normal(0, 30, (8, 8, 3))
                path = tmp_path / "digits" / str(number) / f"{row:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).resize((32, 32)).save(path)

    put(0, 45)
    return tmp_path / "digits", lambda: put(45, 75)


PLAIN = "epochs=2, rate=1e-2, batch=16) + view('plain')"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("first", "second"), [
    (f"lp_ft({PLAIN}", f"last_stages(2, {PLAIN}"), (f"lora(4, {PLAIN}", "probe"), ("probe", f"lp_ft({PLAIN}"),
])  # fmt: skip
def test_a_tuned_model_of_images_is_gone_on_from(first, second, digits, backbone, tmp_path):
    growth, held = tuned_and_grown(first, second, *digits, tmp_path, backbone)
    asked = 0 if first == "probe" else held
    assert growth["passes"] == {"computed": 60, "cached": 90, "asking_the_old": asked}
    assert "90 old images and 60 new ones: 60 forward passes, 90 images were in the cache." in growth["text"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("first", "second"), [
    ("lp_ft(epochs=1, batch=8)", "lora(2, epochs=1, batch=8)"), ("last_stages(1, epochs=1, batch=8)", "probe"),
])  # fmt: skip
def test_a_tuned_model_of_texts_is_gone_on_from(first, second, tmp_path):
    pytest.importorskip("transformers")
    from .encoders import write as write_encoder

    table = write(tmp_path / "t.csv", OLD)
    spec = write_encoder(tmp_path / "tiny")
    grown = lambda: write(table, OLD + NEW)  # noqa: E731
    growth, held = tuned_and_grown(first, second, table, grown, tmp_path, spec)
    assert growth["passes"] == {"computed": 60, "cached": 120, "asking_the_old": held}
