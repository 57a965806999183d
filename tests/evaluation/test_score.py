"""Every metric of a set of predictions; repeats; per class."""

import time

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from topwork.errors import BadData
from topwork.evaluation.intervals import wilson
from topwork.evaluation.score import per_class, score, score_repeats, widening
from topwork.types import Predictions

RNG = np.random.default_rng(0)


def predictions(N=120, C=3, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(N) % C
    z = np.exp(rng.normal(size=(N, C)) + 2 * np.eye(C)[t])
    return Predictions((z / z.sum(1, keepdims=True)).astype(np.float32), t, tuple("abcdefghijkl"[:C]))


def test_score_names():
    assert set(score(predictions())) == {"accuracy", "balanced_accuracy", "macro_f1", "log_loss"}
    assert set(score(predictions(C=2))) >= {"roc_auc"}
    assert set(score(predictions(C=7))) >= {"top5_accuracy"}
    several = Predictions(
        RNG.random((50, 3)).astype(np.float32), RNG.random((50, 3)) < 0.5, tuple("abc"), multilabel=True
    )
    assert set(score(several)) == {"accuracy", "map", "macro_f1", "log_loss", "roc_auc"}


def test_ten_thousand_items_take_no_time():
    many = predictions(10_000, 10)
    began = time.process_time()
    score(many)
    per_class(many)
    assert time.process_time() - began < 1


def test_repeats_average_and_widen():
    folds = [np.arange(120) // 3 % 5, np.arange(120) // 6 % 5]
    repeats = [predictions(seed=1), predictions(seed=2)]
    both, each = score_repeats(repeats, folds), [score(one) for one in repeats]
    for name, m in both.items():
        assert m.value == pytest.approx((each[0][name].value + each[1][name].value) / 2)
        assert m.high - m.low > 1.05 * np.mean([one[name].high - one[name].low for one in each])
    assert 1.25 < widening(repeats, folds) < 2
    assert widening(repeats[:1], []) == 1
    with pytest.raises(BadData, match="2 repeats beside 1"):
        score_repeats(repeats, folds[:1])
    with pytest.raises(BadData, match="same items"):
        score_repeats([repeats[0], predictions(C=2)], folds)


def test_per_class_agrees_with_scikit_learn():
    seen = predictions()
    plain = precision_recall_fscore_support(seen.targets, seen.probabilities.argmax(1))
    for c, row in enumerate(per_class(seen)):
        found = row["precision"]["value"], row["recall"]["value"], row["f1"], row["support"]
        np.testing.assert_allclose(found, [numbers[c] for numbers in plain])
        recall = row["recall"]
        np.testing.assert_allclose((recall["low"], recall["high"]), wilson(recall["value"] * recall["n"], recall["n"]))


def test_a_label_that_nobody_has_or_says():
    row = per_class(Predictions(np.array([[0.6, 0.4]], np.float32), np.array([0]), ("a", "b")))[1]
    assert row["recall"] == {"value": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    assert row["support"] == 0
