"""Deep care from door to door: planted mistakes in small photos and in texts, the page, findings.json, clean, fit."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import topwork as tw
from topwork import care, inspection, verbs
from topwork.cli import app
from topwork.errors import BadData, BadSetting, StoreError, UnknownName
from topwork.types import Findings


def kinds(found: Findings) -> dict[str, list]:
    out: dict[str, list] = {}
    for one in found.findings:
        out.setdefault(one.kind, []).append(one)
    return out


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Three classes of coarse patterns in three colours, with three wrong labels, a copy, a broken and a blank file."""
    folder, draw = tmp_path_factory.mktemp("data") / "planted", np.random.default_rng(7)
    for label, colour in {"amber": (220, 160, 40), "moss": (70, 130, 60), "slate": (90, 100, 120)}.items():
        (folder / label).mkdir(parents=True)
        for number in range(16):
            coarse = draw.normal(colour, 12, (6, 8, 3)) + draw.normal(0, 45, (6, 8, 1))
            picture = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
            picture.save(folder / label / f"{number:02}.png")
    for number, (one, other) in enumerate((("amber", "moss"), ("moss", "slate"), ("slate", "amber"))):
        (folder / one / "03.png").rename(folder / other / f"wrong{number}.png")
    shutil.copy(folder / "amber" / "05.png", folder / "amber" / "again.png")
    (folder / "moss" / "broken.png").write_bytes((folder / "moss" / "07.png").read_bytes()[:400])
    Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / "slate" / "blank.png")
    return folder


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    """What a deep look finds; it is not changed by those who use it."""
    dataset = verbs.read(planted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(tmp_path_factory.mktemp("cache")))
        return dataset, verbs.inspect(dataset, deep=True)


def test_wrong_labels_are_found_with_the_right_ones(found):
    dataset, seen = found
    (labels,) = kinds(seen)["label_errors"]
    names = seen.dataset.table["item"].to_pylist()
    first = {names[row]: to for row, to in zip(labels.rows[:3], labels.suggest[:3], strict=True)}
    assert first == {"moss/wrong0.png": "amber", "slate/wrong1.png": "moss", "amber/wrong2.png": "slate"}
    assert list(labels.scores) == sorted(labels.scores, reverse=True)
    assert len(labels.rows) <= 5
    assert seen.facts["deep"]["backbone"] == "bundled"
    places = np.array(seen.facts["map"]["places"])
    assert places.shape == (len(seen.dataset), 2)
    assert places.min() >= 0
    assert places.max() <= 1
    told = inspection.tell(dataset, seen)
    again = {one["kind"]: one for one in told["findings"]}
    assert again["unreadable"]["items"][0]["item"] == "moss/broken.png"
    assert again["exact_duplicates"]["actions"] == {"drop": 1, "keep": 1}
    assert dataset.table["item"][again["blank"]["items"][0]["row"]].as_py() == "slate/blank.png"


def test_inspect_writes_findings_and_a_page_that_can_load_nothing(planted, tmp_path):
    page, listed = tmp_path / "page.html", tmp_path / "findings.json"
    done = CliRunner().invoke(app, ["inspect", str(planted), "--deep", "--out", str(listed), "--report", str(page)])
    assert done.exit_code == 0, done.output
    told = json.loads(listed.read_text())
    assert told["kind"] == "findings"
    assert "label_errors" in {one["kind"] for one in told["findings"]}
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert text.count("<script") == 1
    assert "looks like amber" in text
    assert str(planted) not in re.sub(r"<pre.*?</pre>|<dl class=\"origin\">.*?</dl>", "", text, flags=re.S)


def test_a_quick_look_needs_no_features(planted):
    seen = verbs.inspect(verbs.read(planted), deep=False, drop_leaks=False)
    assert "label_errors" not in kinds(seen)
    assert "map" not in seen.facts


def test_what_takes_too_long_is_left_out_and_said(planted, monkeypatch):
    said = []
    monkeypatch.setattr(care, "seconds_needed", lambda *_, **__: 1000.0)
    seen = verbs.inspect(verbs.read(planted), deep=None, budget="5m", watch=tw.types.Watch(say=said.append))
    assert "label_errors" not in kinds(seen)
    assert any("would take about 1,000 s" in line for line in said)


def test_clean_applies_what_the_user_has_edited(planted, found, tmp_path):
    dataset, seen = found
    told = inspection.tell(dataset, seen)
    for finding in told["findings"]:
        for one in finding["items"]:
            if finding["kind"] == "label_errors":
                one["action"] = {"moss/wrong0.png": "relabel", "slate/wrong1.png": "drop"}.get(one["item"], "keep")
    before = sorted((path, path.read_bytes()) for path in planted.rglob("*.png"))
    listed = tmp_path / "findings.json"
    listed.write_text(json.dumps(told))
    done = verbs.clean(planted, tmp_path / "new", apply=listed)
    assert sorted((path, path.read_bytes()) for path in planted.rglob("*.png")) == before
    new = verbs.read(tmp_path / "new")
    assert len(new) == len(dataset) - 4  # broken, blank, copy, one wrong label
    was = dict(zip(new.table["item"].to_pylist(), new.targets().tolist(), strict=True))
    assert new.labels[was["amber/wrong0.png"]] == "amber"
    assert (tmp_path / "new" / "amber" / "wrong0.png").read_bytes() == (planted / "moss" / "wrong0.png").read_bytes()
    history = json.loads((tmp_path / "new" / "history.json").read_text())
    assert {one["item"] for one in history["dropped"]} == {
        "moss/broken.png", "slate/blank.png", "amber/again.png", "slate/wrong1.png",
    }  # fmt: skip
    assert history["changed"] == [
        {"item": "moss/wrong0.png", "action": "relabel", "from": "moss", "to": "amber",
         "reason": history["changed"][0]["reason"]},
    ]  # fmt: skip
    assert all(one["item"] in (tmp_path / "new" / "CLEANED.md").read_text() for one in history["dropped"])
    assert done.dataset.history[-1] in new.history
    model = tw.fit(tmp_path / "new", steps="logistic(l2=0.1)", out=tmp_path / "model")
    assert model.labels == ("amber", "moss", "slate")


def test_only_facts_are_dropped_when_nothing_is_named(planted, tmp_path):
    done = verbs.clean(planted, tmp_path / "new.csv")
    gone = {one.item for one in done.dropped}
    assert gone == {"moss/broken.png", "slate/blank.png", "amber/again.png"}
    assert len(verbs.read(tmp_path / "new.csv")) == len(done.dataset)
    assert not done.changed


def test_links_share_their_bytes_and_a_changed_file_stops_it(planted, tmp_path, monkeypatch):
    old = tmp_path / "old"
    shutil.copytree(planted, old)
    verbs.clean(old, tmp_path / "new", link=True)
    assert (tmp_path / "new" / "amber" / "00.png").samefile(old / "amber" / "00.png")
    dataset = verbs.read(old)
    seen = verbs.inspect(dataset, drop_leaks=False)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(old / "amber" / "00.png")
    from topwork.data import clean

    with pytest.raises(BadData, match="has changed since it was inspected"):
        clean.write(seen.dataset, {}, tmp_path / "third")
    assert not (tmp_path / "third").exists()
    assert not list(tmp_path.glob(".third*"))


def test_what_cannot_be_done_is_refused_before_work(planted, found, tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'duplicates'"):
        verbs.clean(planted, tmp_path / "x", drop="duplicate")
    with pytest.raises(BadSetting, match="lie in each other"):
        verbs.clean(planted, planted / "inside")
    with pytest.raises(BadSetting, match="lie in each other"):
        verbs.clean(planted, planted)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(StoreError, match="not a Topwork folder"):
        verbs.clean(planted, tmp_path / "mine")
    with pytest.raises(BadSetting, match="Give one of them"):
        verbs.clean(planted, tmp_path / "x", drop="blank", apply="f.json")
    told = inspection.tell(*found)
    with pytest.raises(BadData, match="other data"):
        verbs.clean(planted, tmp_path / "x", apply={**told, "data": {**told["data"], "hash": "0"}})
    bad = json.loads(json.dumps(told))
    next(f for f in bad["findings"] if f["kind"] == "label_errors")["items"][0] |= {"action": "relabel", "to": "mos"}
    with pytest.raises(BadData, match="'mos' is no label"):
        verbs.clean(planted, tmp_path / "x", apply=bad)
    bad["findings"][0]["items"][0]["action"] = "delete"
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(BadData, match="there is no action 'delete'"):
        verbs.clean(planted, tmp_path / "x", apply=tmp_path / "bad.json")
    assert not (tmp_path / "x").exists()


TOPICS = {
    "sea": "the waves and the tide carry the boat past the harbour where sailors mend their nets near the shore",
    "oven": "knead the dough with flour and butter then bake the bread in the oven until its crust is golden",
}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Texts of two topics in two splits, three with the label of the other; one text stands in both splits."""
    draw = np.random.default_rng(0)
    lines = ["text,label,split"]
    for number in range(80):
        topic = ("sea", "oven")[number % 2]
        words = draw.permutation(TOPICS[topic].split())[:9]
        label = ("sea", "oven")[(number + 1) % 2] if number in (10, 21, 32) else topic
        lines.append(f"{' '.join(words)} {number},{label},{'test' if number > 59 else 'train'}")
    lines.append(lines[70].replace("test", "train"))
    file = tmp_path_factory.mktemp("data") / "reviews.csv"
    file.write_text("\n".join(lines))
    return file


def test_texts_go_the_same_way_and_what_measures_is_only_looked_at(reviews, tmp_path):
    dataset = verbs.read(reviews)
    seen = verbs.inspect(dataset, deep=True)
    (labels,) = kinds(seen)["label_errors"]
    flipped = {"reviews.csv line 12", "reviews.csv line 23", "reviews.csv line 34"}
    assert set(labels.items) >= flipped
    told = inspection.tell(dataset, seen)
    html = inspection.page(told, dataset, tw.types.Watch())
    assert "harbour" in html
    done = verbs.clean(reviews, tmp_path / "new", drop="label_errors,leakage")
    gone = {one.item for one in done.dropped}
    assert "reviews.csv line 82" in gone  # the copy of what measures
    assert len(gone & flipped) >= 2
    assert gone <= {*flipped, "reviews.csv line 82"}
    new = verbs.read(tmp_path / "new")
    assert new.modality == "text"
    assert len(new.rows_of("test")) == 20
    assert set(new.inputs()) < set(dataset.inputs())


def test_items_without_classes_are_looked_at_as_far_as_that_goes(planted, tmp_path):
    table, paths = tmp_path / "numbers.csv", sorted((planted / "amber").glob("*.png")) * 2
    table.write_text("path,price\n" + "\n".join(f"{path},{number / 7}" for number, path in enumerate(paths)))
    dataset = verbs.read(table, label_column="price", numeric=True)
    assert dataset.numeric
    seen = verbs.inspect(dataset, deep=True)
    assert seen.facts["deep"]["accuracy"] is None
    assert any("is a number" in line for line in seen.facts["deep"]["not_done"])
    done = verbs.clean(dataset, tmp_path / "new", drop="exact_duplicates")
    new = verbs.read(tmp_path / "new")
    assert len(new) == 16 == len(done.dataset)  # each picture once
    assert new.numeric
    assert new.labels == ("price",)
    table.write_text("path\n" + "\n".join(str(path) for path in paths))
    bare = verbs.inspect(verbs.read(table), deep=True)
    assert any("0 labelled images" in line for line in bare.facts["deep"]["not_done"])
    assert "label_errors" not in kinds(bare)


def test_series_of_one_origin_are_a_leak_that_has_a_price(tmp_path, monkeypatch):
    """Sixteen patients with six pictures each; colours are the patient's, the class is chance: company helps."""
    monkeypatch.setattr(care, "join_crops", lambda dataset, *_: (dataset, []))  # ramps are much alike: it takes long
    draw = np.random.default_rng(5)
    for patient in range(16):
        label = ("ill", "well")[patient % 2]
        (tmp_path / "x" / label).mkdir(parents=True, exist_ok=True)
        low, high = draw.uniform(0, 255, (2, 3))
        for number in range(6):
            ramp = np.linspace(low, high, 48)[None] + draw.normal(0, 12, (40, 48, 3))
            name = f"p{patient:02}_{number}.png"
            Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(tmp_path / "x" / label / name)
    dataset = verbs.read(tmp_path / "x")
    seen = verbs.inspect(dataset, deep=True)
    (groups,) = kinds(seen)["leaking_groups"]
    assert len(set(groups.suggest)) == 16
    done = verbs.clean(tmp_path / "x", tmp_path / "new", apply=inspection.tell(dataset, seen))
    new = verbs.read(tmp_path / "new")
    assert len(set(new.table["group"].to_pylist())) == 16
    again = verbs.inspect(new, deep=True)
    assert "leaking_groups" not in kinds(again)
    assert len(done.changed) >= 90
