import numpy as np
import pytest

from topwork.data import stems
from topwork.data.outliers import unit


def named(rule, found):
    return next(one for one in found if rule in one.rule)


def test_names_suggest_groups():
    labels = np.repeat([0, 1], 24)
    items = [f"{'ab'[c]}/IMG_{i // 3:03}_{'xyz'[i % 3]}.jpg" for c in (0, 1) for i in range(24)]
    items = [item.replace("IMG", f"IMG{'ab'[i // 24]}") for i, item in enumerate(items)]
    found = stems.candidates(items, labels)
    one = named("up to its last word", found)
    assert one.groups == 16
    assert one.names[one.codes[0]] == "IMGa_000"
    assert (one.codes[:3] == one.codes[0]).all()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("p{:02}/scan{}.png", "same folder"),
        ("patient{:02}-{}.png", "last word"),
        ("{:02}{}.png", "neighbouring numbers"),
        ("speaker {:02} take {}.wav", "last word"),
        ("x{:02}_{}_mask.png", "last 2 words"),
    ],
)
def test_common_ways_to_name_a_series(name, rule):
    items = [name.format(i // 10, i % 10) for i in range(80)]
    labels = np.arange(80) % 2
    found = stems.candidates(items, labels)
    series = np.arange(80) // 10
    same = [one for one in found if len(np.unique(np.stack([one.codes, series], 1), axis=0)) == 8 == one.groups]
    assert any(rule in one.rule for one in same), [one.rule for one in found]


def test_names_that_say_nothing_suggest_nothing():
    numbers = np.random.default_rng(0).permutation(10**6)[:60]
    assert not stems.candidates([f"cats/{n}.jpg" for n in numbers[:30]] + [f"dogs/{n}.jpg" for n in numbers[30:]],
                                np.repeat([0, 1], 30))  # fmt: skip
    assert not stems.candidates([f"cat/cat{i}_a.jpg" for i in range(5)], np.zeros(5, int))


def test_moments_and_cameras():
    taken = np.array([0, 100, 110, 135, 1000, 1010, 5000, 5001, 9000, 9001, 20000, 20029, 30000, 30031])
    items = [f"{n:x}.jpg" for n in np.random.default_rng(0).permutation(10**6)[: len(taken)]]
    one = named("30 seconds", stems.candidates(items, np.arange(14) % 2, taken, ["A"] * 14))
    assert one.codes[0] == -1
    assert len(set(one.codes[1:4])) == 1
    assert one.codes[10] == one.codes[11]
    assert one.codes[12] != one.codes[13]
    assert one.groups == 5


def test_closeness_is_by_hand_what_it_says_and_chance_is_chance():
    draw = np.random.default_rng(0)
    series = np.arange(120) // 6
    labels = series % 3
    z = unit(draw.normal(size=(20, 16))[series] + draw.normal(0, 1, (120, 16)))
    grouping = stems.Grouping("six of a kind", tuple(map(str, range(20))), series.astype(np.int32))
    said = stems.closeness(z, grouping, labels)
    pairs = [(i, j) for i in range(120) for j in range(i) if series[i] == series[j]]
    plain = np.mean([z[i] @ z[j] for i, j in pairs])
    assert said.excess + said.chance == pytest.approx(plain, abs=1e-4)
    assert said.p_value == pytest.approx(1 / 200)
    shuffled = stems.Grouping("none", grouping.names, draw.permutation(series).astype(np.int32))
    assert stems.closeness(z, shuffled, np.zeros(120, int)).p_value > 0.02


def test_groups_on_both_sides_are_counted():
    codes = np.repeat(np.arange(10), 4).astype(np.int32)
    grouping = stems.Grouping("four", tuple("abcdefghij"), codes)
    torn = np.where(np.arange(40) % 4 == 0, "test", "train")
    kept = np.where(codes < 2, "test", "train")
    assert stems.sides(grouping, torn)[0] == 10
    assert stems.sides(grouping, kept)[0] == 0
    assert stems.sides(grouping, kept)[1] > 3
    assert stems.sides(grouping, np.full(40, "train")) is None
