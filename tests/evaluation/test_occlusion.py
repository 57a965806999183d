"""Words that mattered: each left out in turn, in any script, within a limit of time."""

import numpy as np
import pytest

from topwork.evaluation.occlusion import LETTERS, UNITS, explain, level, pieces, units, without
from topwork.modalities.text import PAIR
from topwork.types import Skipped

LABELS = ("bad", "good")
WORTH = {"great": 3.0, "awful": -3.0, "good": 1.0, "好": 2.0}


def asked(texts):
    """A bag of words in closed form: p(good) = sigmoid(sum of worths)."""
    for text in texts:
        z = sum(worth * text.count(word) for word, worth in WORTH.items())
        p = 1 / (1 + np.exp(-z))
        yield np.array([1 - p, p])


def one(text, said="good", **options):
    (told,) = explain([{"predicted": said, "label": "bad"}], [text], LABELS, options.pop("ask", asked), **options)
    return told


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_effects_are_what_the_probability_loses():
    told = one("a great, awful film")
    effects = dict(told["words"])
    assert effects["great,"] == pytest.approx(sigmoid(0) - sigmoid(-3), abs=1e-4)
    assert effects["awful"] == pytest.approx(sigmoid(0) - sigmoid(3), abs=1e-4)
    assert effects["a"] == effects["film"] == 0
    assert (told["about"], told["stated"], told["label"]) == ("good", pytest.approx(0.5), "bad")
    against = dict(one("a great, awful film", said="bad")["words"])
    assert against["great,"] == pytest.approx(-effects["great,"], abs=1e-4)
    assert one("great", said="bad, good")["about"] == "good"  # several labels: the likeliest


def test_every_word_of_scripts_without_blanks_stands_alone():
    text = "这部电影很好 really good!"
    words = [text[start:end] for start, end in units(text)]
    assert words == [*"这部电影很好", "really", "good!"]
    effects = [effect for letters, effect in one(text)["words"] if letters == "好"]
    assert effects == [pytest.approx(sigmoid(3) - sigmoid(1), abs=1e-4)]
    assert [w for w, _ in pieces("ดี", units("ดี"), [0.1, 0.2])] == ["ด", "ี"]


def test_a_word_goes_with_its_blanks_and_a_pair_stays_a_pair():
    assert [without("one  two three", *span) for span in units("one  two three")] == [
        "two three",
        "one  three",
        "one  two ",
    ]
    pair = f"great film{PAIR}awful\nfilm"
    spans = units(pair)
    assert [pair[a:b] for a, b in spans] == ["great", "film", "awful", "film"]
    assert all(without(pair, *span).count(PAIR) == 1 for span in spans)
    assert "".join(letters for letters, _ in one(pair)["words"]) == pair


def test_only_the_first_words_are_left_out_and_the_rest_is_shown():
    text = " ".join(f"w{i}" for i in range(400))
    given = []
    told = one(text, ask=lambda texts: asked(given.append(t) or t for t in texts))
    assert len(given) == UNITS + 1
    assert given[0] == text
    assert sum(effect is not None for _, effect in told["words"]) == UNITS
    shown = "".join(letters for letters, _ in told["words"])
    assert shown == text[:LETTERS] + "…"
    wide = one("x" * 100 + " " + "y" * 100_000)
    assert [letters[:3] for letters, _ in wide["words"]] == ["xxx", " yy"]  # half a word is not left out
    assert "about" not in one("z" * 100_000)


def test_nothing_to_leave_out_and_no_time_left():
    for text in ("", " \n ", PAIR):
        assert "about" not in one(text)
    late = one("a great film", seconds=0.0)
    assert "about" not in late
    assert [letters for letters, _ in late["words"]] == ["a", " ", "great", " ", "film"]
    lost = one("a great film", ask=lambda texts: (Skipped(text, "no") for text in texts))
    assert "about" not in lost
    assert explain([], [], LABELS, asked) == []


def test_all_texts_are_asked_about_in_one_go():
    calls = []
    entries = [{"predicted": "good"}, {"predicted": "bad"}, {"predicted": "bad"}]
    told = explain(entries, ["great", "", "awful film"], LABELS, lambda texts: calls.append(1) or asked(texts))
    assert len(calls) == 1
    assert [entry.get("about") for entry in told] == ["good", None, "bad"]


@pytest.mark.parametrize(
    ("effect", "most", "expected"),
    [(None, 1, 0), (0.02, 0.9, 0), (0.9, 0.9, 4), (-0.9, 0.9, -4), (0.02, 0.02, 0), (0.45, 0.9, 2), (-0.1, 0.1, -2)],
)
def test_levels_follow_the_strongest_but_not_next_to_nothing(effect, most, expected):
    assert level(effect, most) == expected
