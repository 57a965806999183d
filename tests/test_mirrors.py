"""Mirroring is switched off where it changes the class, and only there."""

import numpy as np
import pytest

from topwork.mirrors import choose_view

N = 120
RNG = np.random.default_rng(0)
Y = np.arange(N) % 2
FOLDS = (np.arange(N) // 2 % 5).astype(np.int32)
ROWS = np.arange(N)


def features(asymmetric):
    """The class lies in one axis; a mirror turns the axis round, or leaves it alone."""
    x = RNG.normal(0, 0.4, (N, 8)).astype(np.float32)
    x[:, 0] += 2 * Y - 1
    turned = x * np.array([-1.0 if asymmetric else 1.0, *[1.0] * 7], np.float32)
    return lambda rows, mirrored: (turned if mirrored else x)[rows]


@pytest.mark.parametrize(("asymmetric", "view"), [(True, "crop_upright"), (False, "crop")])
def test_asks_instead_of_guessing(asymmetric, view):
    choice = choose_view(ROWS, Y, FOLDS, features(asymmetric))
    assert choice.value == view
    assert "of 120" in choice.reason
    several = np.stack([Y == 0, Y == 1], 1)
    assert choose_view(ROWS, several, FOLDS, features(asymmetric)).value == view


def test_one_fold_is_too_few():
    assert choose_view(ROWS, Y, np.zeros(N, np.int32), features(True)).value == "crop"
