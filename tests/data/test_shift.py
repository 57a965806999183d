import numpy as np
import pytest

from topwork.adaptation import probe as probes
from topwork.data.shift import shift
from topwork.data.split.kfold import folds


def ask(x, sides, parts):
    return probes.choose(x, sides, parts, 2, methods=("ridge",))[0].held_out


def test_alike_sides_are_rarely_told_apart():
    alarms, values = 0, []
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(240, 10)).astype(np.float32)
        found = shift(x, np.arange(120), np.arange(120, 240), np.arange(240), folds, ask, seed)
        alarms += found.low > 0.5
        values.append(found.accuracy)
    assert alarms <= 2
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_a_shift_is_found_and_its_accuracy_is_the_one_to_expect():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1200, 4)).astype(np.float32)
    x[600:, 0] += 1.0  # the best classifier is right with probability Phi(1/2) = 0.691
    found = shift(x, np.arange(600), np.arange(600, 1200), np.arange(1200), folds, ask)
    assert found.low < 0.691 < found.high
    assert found.low > 0.5
    assert found.p_value < 0.001
    assert np.corrcoef(found.margin, x[found.rows, 0])[0, 1] > 0.8


def test_copies_do_not_give_their_side_away():
    x = np.random.default_rng(0).normal(size=(200, 60)).astype(np.float32)
    x = np.repeat(x, 4, axis=0)  # four copies of each, on one side
    together = np.repeat(np.arange(200), 4)
    found = shift(x, np.arange(400), np.arange(400, 800), together, folds, ask)
    assert abs(found.accuracy - 0.5) < 0.12
    torn = shift(x, np.arange(400), np.arange(400, 800), np.arange(800), folds, ask)
    assert torn.accuracy > found.accuracy + 0.1


def test_too_few_items_say_nothing():
    assert shift(np.zeros((30, 2), np.float32), np.arange(10), np.arange(10, 30), np.arange(30), folds, ask) is None
