"""LEEP and NCE against their sums written as loops, and by hand."""

import math

import numpy as np
import pytest

from topwork.errors import BadData
from topwork.ranking import Given
from topwork.ranking.leep import Leep
from topwork.ranking.nce import Nce

X = np.zeros((4, 2), np.float32)


def random_source(N=40, Z=7, C=3, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(Z) * 0.3, N)
    return p, rng.permutation(np.arange(N) % C)


def test_leep_is_the_sum_of_the_paper():
    p, y = random_source()
    N, Z = p.shape
    joint = {(c, z): sum(p[i, z] for i in range(N) if y[i] == c) / N for c in range(3) for z in range(Z)}
    total = 0.0
    for i in range(N):
        inner = 0.0
        for z in range(Z):
            inner += joint[y[i], z] / sum(joint[c, z] for c in range(3)) * p[i, z]
        total += math.log(inner)
    assert Leep().score(np.zeros((N, 1)), y, Given(source=p)) == pytest.approx(total / N)


def test_nce_is_the_conditional_entropy():
    p, y = random_source()
    named = p.argmax(1)
    entropy = 0.0
    for z in set(named.tolist()):
        own = [int(c) for c, n in zip(y, named, strict=True) if n == z]
        for c in set(own):
            share = own.count(c) / len(own)
            entropy -= len(own) / len(y) * share * math.log(share)
    assert Nce().score(np.zeros((len(y), 1)), y, Given(source=p)) == pytest.approx(-entropy)


def test_by_hand():
    y = np.array([0, 0, 1, 1])
    sure = np.eye(2)[y]
    assert Leep().score(X, y, Given(source=sure)) == pytest.approx(0)
    assert Nce().score(X, y, Given(source=sure)) == pytest.approx(0)
    blind = np.full((4, 2), 0.5)
    assert Leep().score(X, y, Given(source=blind)) == pytest.approx(math.log(0.5))
    assert Nce().score(X, y, Given(source=blind)) == pytest.approx(math.log(0.5))
    mixed = np.array([[1, 0], [0, 1], [0, 1], [0, 1.0]])  # z = 0: one item of class 0; z = 1: classes 0, 1, 1
    expected = (math.log(1) + math.log(1 / 3) + 2 * math.log(2 / 3)) / 4
    assert Leep().score(X, y, Given(source=mixed)) == pytest.approx(expected)
    assert Nce().score(X, y, Given(source=mixed)) == pytest.approx(expected)  # the same where p is 0 or 1


@pytest.mark.parametrize("source", [None, np.ones((4, 2)), np.ones((3, 2)) / 2, np.full((4, 2), np.nan)])
def test_what_is_no_probability_is_refused(source):
    for score in (Leep(), Nce()):
        with pytest.raises(BadData, match="source"):
            score.score(X, np.array([0, 0, 1, 1]), Given(source=source))
