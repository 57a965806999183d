"""Inspection of texts: the same findings as for images, in the words of texts."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from topwork import sources
from topwork.data.inspect import check_trainable, inspect
from topwork.data.inspect_text import light, words
from topwork.data.join import join
from topwork.data.overlap import overlap
from topwork.data.split.stratified import Stratified
from topwork.data.write import write_table
from topwork.errors import BadData
from topwork.modalities.text import PAIR
from topwork.types import Dataset

NOUNS = [
    "film", "book", "song", "play", "game", "dish", "room", "trip", "show", "seat", "lamp", "road", "bird", "tree",
]  # fmt: skip


def dataset(rows, splits=None, labels=("a", "b")):
    """rows: (text, label)."""
    targets = [None if label is None else labels.index(label) for _, label in rows]
    table = {
        "item": [f"t.csv line {i + 2}" for i in range(len(rows))],
        "text": [text for text, _ in rows],
        "target": pa.array(targets, pa.int32()),
        "split": pa.array(splits or [None] * len(rows), pa.string()).dictionary_encode(),
    }
    return Dataset(pa.table(table), "/", tuple(labels), name="t", modality="text")


def plain(count=40):
    """Different sentences, classes in turn."""
    sentence = "The {0} that I have seen {1} was about a {2} and its {3}, which the {4} of the {5} did not like at all"
    rng = np.random.default_rng(0)
    drawn = [rng.choice(NOUNS, 6, replace=False) for _ in range(count)]
    return [(sentence.format(*row), "ab"[i % 2]) for i, row in enumerate(drawn)]


def kinds(found):
    return {f.kind: f for f in found.findings}


def test_a_clean_set_has_nothing_to_say():
    steps = []
    found = inspect(dataset(plain()), progress=lambda *step: steps.append(step))
    assert found.findings == ()
    assert steps == [("inspect", 40, 40)]
    facts = json.loads(json.dumps(found.facts))
    assert facts | {"characters": 0, "words": 0, "bytes": 0} == {
        "items": 40,
        "unreadable": 0,
        "texts": 40,
        "duplicates": {"exact": 0, "near": 0},
        "classes": {"a": 20, "b": 20},
        "unlabelled": 0,
        "splits": {"unassigned": {"a": 20, "b": 20}},
        "characters": 0,
        "words": 0,
        "bytes": 0,
        "pairs": False,
        "scripts": {"Latin": 1.0},
        "script": "Latin",
        "languages": {"en": 1.0},
        "language": "en",
    }
    lengths = sorted(len(text) for text, _ in plain())
    assert facts["characters"] == {"min": lengths[0], "median": int(np.median(lengths)), "max": lengths[-1]}
    assert facts["words"] == {"min": 25, "median": 25, "max": 25}
    assert facts["bytes"] == sum(lengths)
    assert found.dataset.table["twin"].to_pylist() == list(range(40))
    assert len(set(found.dataset.table["content"].to_pylist())) == 40


def test_light_form_and_words():
    assert light("It  WAS\tgreat!!! ") == light("it was great.") == light("ｉｔ was great") == "itwasgreat"
    assert light("do n't") == light("Don't")
    assert light("!!!") == "!!!"
    assert light(f"ab{PAIR}c") != light(f"a{PAIR}bc")
    assert [words(t) for t in ("two words", "很好吃", "我 love 你们", "", "naïve café")] == [2, 3, 4, 0, 2]


def test_copies_within_a_set():
    rows = plain()
    rows += [
        (rows[0][0].upper() + "!", "a"),
        (rows[0][0], "a"),
        (rows[3][0] + " indeed", "b"),
        (rows[3][0] + " now", "a"),
    ]
    found = inspect(dataset(rows))
    said = kinds(found)
    assert said.keys() == {"exact_duplicates", "near_duplicates"}
    assert said["exact_duplicates"].rows == (0, 40, 41)
    assert "2 texts" in said["exact_duplicates"].message
    assert said["near_duplicates"].rows == (3, 42)  # not the one of the other class
    assert found.facts["duplicates"] == {"exact": 2, "near": 1}
    assert found.facts["texts"] == 41


def test_one_text_with_two_labels():
    rows = [*plain(), (plain()[0][0].upper(), "b")]
    conflict = kinds(inspect(dataset(rows)))["conflicting_labels"]
    assert conflict.message == "1 texts have two different labels, e.g. t.csv line 2 and t.csv line 42"
    assert "If a text may have several labels" in conflict.fix


def test_leaking_training_copies_are_left_out():
    rows = plain(24)
    splits = ["train"] * 12 + ["test"] * 6 + ["val"] * 6
    rows += [(rows[14][0] + ".", rows[14][1]), (rows[20][0] + " indeed", rows[20][1])]
    whole = dataset(rows, [*splits, "train", "train"])
    found = inspect(whole)
    leak = kinds(found)["leakage"]
    assert (leak.severity, leak.fix) == ("warning", "left out of training")
    assert "2 texts of the training set also in val or test" in leak.message
    assert [s.reason for s in found.dataset.skipped] == ["same text as t.csv line 16", "same text as t.csv line 22"]
    assert Counter(found.dataset.table["split"].to_pylist()) == {"train": 12, "test": 6, "val": 6}
    kept = inspect(whole, drop_leaks=False)
    assert kept.findings[0].severity == "error"
    assert kept.findings[0].message == "the same text is in two splits: 1 in train and test, 1 in train and val"
    assert len(kept.dataset) == 26


def test_texts_that_say_nothing():
    rows = [*plain(), ("?!", "a"), ("...", "b")]
    assert kinds(inspect(dataset(rows)))["blank"].message == "2 texts without a letter or digit"
    found = inspect(dataset([*plain(), ("", "a"), (" ", "b")]))
    assert [(s.item, s.reason) for s in found.dataset.skipped] == [
        ("t.csv line 42", "no text"),
        ("t.csv line 43", "no text"),
    ]
    assert kinds(found)["unreadable"].message.startswith("2 texts cannot be read, e.g. t.csv line 42")
    with pytest.raises(BadData, match=r"none of its 1 texts can be read, e\.g\. t\.csv line 2: no text"):
        inspect(dataset([("", "a")]))


def test_the_other_findings_speak_of_texts():
    rows = [(text, "a") for text, _ in plain(40)] + [("one of b", "b"), ("a lone one", None)]
    said = kinds(inspect(dataset(rows, labels=("a", "b", "A ", "none"))))
    assert "the texts of the smallest" in said["imbalance"].message
    assert "fewer than 10 texts" in said["tiny_class"].message
    assert said["tiny_class"].fix == "add texts or merge classes. One text can be learnt or tested, not both"
    assert said["empty_class"].message == "no usable text is left of 'A ', 'none'"
    assert said["unlabelled"].message == "1 text without label"
    german = [("Der Film war sehr gut und ich habe ihn mit der ganzen Familie gesehen", "a")] * 20
    assert (
        kinds(inspect(dataset([*plain(), *german])))["languages"].message
        == "texts in several languages: en 67%, de 33%"
    )
    assert "b" in kinds(inspect(dataset(plain(4), ["train", "test", "train", "test"])))["missing_in_split"].message


def test_what_cannot_be_learnt():
    check_trainable(dataset(plain()))
    with pytest.raises(
        BadData, match=r"one class only \('a', 2 texts\). Expected at least two classes with two texts each"
    ):
        check_trainable(dataset([("x", "a"), ("y", "a")]))
    with pytest.raises(BadData, match="has a single training text"):
        check_trainable(dataset([("x", "a"), ("y", "b")]))
    with pytest.raises(BadData, match="no labels"):
        check_trainable(dataset([("x", None)], labels=()))


def test_copies_stay_on_one_side_of_a_split():
    rows = [(f"{text}{mark}", label) for text, label in plain(60) for mark in ("", "!", " indeed")]
    done = Stratified(test=0.3).assign(inspect(dataset(rows)).dataset, 0)
    sides = np.array(done.table["split"].to_pylist()).reshape(-1, 3)
    assert (sides == sides[:, :1]).all()
    assert 0 < (sides == "test").mean() < 0.5


def test_a_test_set_of_its_own_and_back_to_a_table(tmp_path):
    rows = plain()
    both = join(dataset(rows[:30]), dataset(rows[30:], labels=("b", "a")))
    assert both.inputs() == [text for text, _ in rows]
    assert [both.labels[t] for t in both.targets()] == [label for _, label in rows]
    assert both.table["split"].to_pylist() == ["train"] * 30 + ["test"] * 10
    assert both.modality == "text"
    for name in ("t.csv", "t.parquet"):
        write_table(both, tmp_path / name)
        again = sources.read(tmp_path / name)
        assert again.inputs() == both.inputs()
        assert again.targets().tolist() == both.targets().tolist()
        assert again.table["split"].to_pylist() == both.table["split"].to_pylist()
    pairs = dataset([(f"{text}, no{PAIR}{text}", label) for text, label in rows])
    write_table(pairs, tmp_path / "p.csv")
    assert sources.read(tmp_path / "p.csv").inputs() == pairs.inputs()
    with pytest.raises(BadData, match="t has texts and photos has images"):
        join(dataset(rows), dataset(rows).replace(modality="image", name="photos"))


def test_overlap_of_two_sets():
    rows = plain()
    one, other = dataset(rows[:20]), dataset([(rows[3][0].upper(), "b"), *rows[20:], (rows[4][0] + " indeed", "a")])
    assert np.flatnonzero(overlap(one, other)).tolist() == [0, 21]


def test_the_same_every_time():
    rows = plain(200)
    rows += [(text + " indeed", label) for text, label in rows[:50]]
    one, two = inspect(dataset(rows)), inspect(dataset(rows))
    assert one.findings == two.findings
    assert one.facts == two.facts
    assert one.dataset.table == two.dataset.table
