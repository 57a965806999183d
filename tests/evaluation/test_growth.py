import numpy as np
import pytest

from topwork.evaluation import growth
from topwork.evaluation.paired import compare
from topwork.types import Metric, Predictions


def said(right, n=100, seed=0):
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 2, n)
    hit = draw.random(n) < right
    p = np.where(hit, targets, 1 - targets)
    return Predictions(np.stack([1 - p, p], 1).astype(np.float32) * 0.8 + 0.1, targets, ("a", "b"))


def test_unpaired_differences_square_and_add():
    found = growth.apart(Metric(0.9, 0.8, 0.95, 100), Metric(0.7, 0.6, 0.78, 50), "accuracy")
    assert found["difference"] == pytest.approx(-0.2)
    assert found["low"] == pytest.approx(-0.2 - (0.1**2 + 0.05**2) ** 0.5)
    assert found["high"] == pytest.approx(-0.2 + (0.08**2 + 0.1**2) ** 0.5)
    assert found["text"] == "-20.0 points [-31.2, -7.2]"
    loss = growth.apart(Metric(0.5, 0.4, 0.7, 100), Metric(0.6, 0.5, 0.9, 50), "log_loss", loss=True)
    assert loss["difference"] == pytest.approx(-0.1)  # more loss is worse
    assert loss["low"] < -0.1 < loss["high"]
    assert loss["text"].startswith("-0.100 log loss [")


def test_newcombe_by_his_own_example():
    """56/70 against 48/80: 0.20 [0.0524, 0.3339], Newcombe 1998, table II, method 10."""
    from topwork.evaluation.intervals import wilson

    (i, j), (k, m) = wilson(48, 80), wilson(56, 70)
    a, b = Metric(0.6, float(i), float(j), 80), Metric(0.8, float(k), float(m), 70)
    found = growth.apart(a, b, "accuracy")
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=2e-4)


def test_rows_and_cells():
    before, after = said(0.6), said(0.9)
    found = growth.row("new", before, after, "accuracy", None, "why")
    paired = compare(before, after)
    assert found["difference"]["difference"] == paired.difference
    assert found["difference"]["low"] == paired.low
    wider = growth.row("new", before, after, "accuracy", np.arange(100) % 5, "why")["difference"]
    assert wider["high"] - wider["low"] > paired.high - paired.low
    few = growth.row("old", None, said(0.9, n=5), "accuracy", None, "why")
    assert (few["n"], few["before"], few["after"], few["difference"]) == (5, None, None, None)
    cells = growth.table({"metric": "accuracy", "rows": [found, few]})
    assert cells[0][:2] == ("new", "100")
    assert cells[0][4] == paired.over()
    assert cells[1] == ("old", "5", "–", "–", "–")
    assert growth.is_loss(before, "log_loss")
    assert not growth.is_loss(before, "accuracy")
