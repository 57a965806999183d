"""Point metrics agree with scikit-learn, and influences with its sample weights."""

import numpy as np
import pytest
from sklearn import metrics as reference

from topwork.errors import BadData
from topwork.tasks.classification import LARGEST_LOSS, checked, item_losses, metric_names, statistics

RNG = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def single(N=70, C=4):
    t = RNG.integers(0, C, N)
    p = softmax(RNG.normal(size=(N, C)) + 2 * np.eye(C)[t])
    return p, t


def several(N=70, C=3):
    t = RNG.random((N, C)) < 0.4
    return np.clip(0.5 * t + 0.7 * RNG.random((N, C)), 0.05, 0.95).round(1), t  # with ties


SINGLE, BINARY, SEVERAL = single(), single(C=2), several()


def with_reference():
    p, t = SINGLE
    yield "accuracy", SINGLE, lambda w: reference.accuracy_score(t, p.argmax(1), sample_weight=w)
    yield "balanced_accuracy", SINGLE, lambda w: reference.balanced_accuracy_score(t, p.argmax(1), sample_weight=w)
    yield "macro_f1", SINGLE, lambda w: reference.f1_score(t, p.argmax(1), average="macro", sample_weight=w)
    yield "log_loss", SINGLE, lambda w: reference.log_loss(t, p, sample_weight=w)
    b, u = BINARY
    yield "roc_auc", BINARY, lambda w: reference.roc_auc_score(u, b[:, 1], sample_weight=w)
    q, y = SEVERAL
    yield "accuracy", SEVERAL, lambda w: reference.accuracy_score(y, q >= 0.5, sample_weight=w)
    yield "map", SEVERAL, lambda w: reference.average_precision_score(y, q, sample_weight=w)
    yield "macro_f1", SEVERAL, lambda w: reference.f1_score(y, q >= 0.5, average="macro", sample_weight=w)
    yield "roc_auc", SEVERAL, lambda w: reference.roc_auc_score(y, q, sample_weight=w)
    yield (
        "log_loss",
        SEVERAL,
        lambda w: np.mean([reference.log_loss(y[:, c], q[:, c], sample_weight=w) for c in range(3)]),
    )


@pytest.mark.parametrize(("name", "data", "plain"), list(with_reference()))
def test_value_and_influence_agree_with_scikit_learn(name, data, plain):
    found = statistics(*data, multilabel=data[1].ndim == 2)[name]
    N = len(data[1])
    assert found.value == pytest.approx(plain(None), abs=1e-12)
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    step = 1e-5
    slopes = [(plain(1 + step * e) - plain(1 - step * e)) / (2 * step) for e in np.eye(N)]
    np.testing.assert_allclose(found.influence, slopes, atol=1e-8)


def test_top5_breaks_ties_like_argmax():
    p, t = single(60, 8)
    assert statistics(p, t)["top5_accuracy"].value == pytest.approx(reference.top_k_accuracy_score(t, p, k=5))
    flat = np.full((8, 8), 1 / 8)
    assert statistics(flat, np.arange(8))["top5_accuracy"].value == 5 / 8
    assert "top5_accuracy" not in statistics(*SINGLE)


def test_classes_nobody_has_are_left_out():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    found = statistics(p, [0, 1, 1])
    assert found["balanced_accuracy"].value == pytest.approx(0.75)
    assert found["macro_f1"].value == pytest.approx(2 / 3)


def test_metrics_without_a_value_are_not_there():
    assert "roc_auc" not in statistics([[0.3, 0.7], [0.4, 0.6]], [1, 1])
    found = statistics(np.full((3, 2), 0.1), np.zeros((3, 2), bool), multilabel=True)
    assert set(found) == {"accuracy", "log_loss"}


def test_sure_mistakes_cost_a_finite_loss():
    p, t = checked([[0.0, 1.0], [1.0, 0.0]], [0, 0])
    np.testing.assert_allclose(item_losses(p, t), [LARGEST_LOSS, 0])


@pytest.mark.parametrize(
    ("p", "t", "several", "words"),
    [
        (np.zeros((0, 3)), [], False, "at least one item"),
        ([[0.5, 0.5]], [0, 1], False, "one target per item"),
        ([[0.5, 0.5]], [0], True, "one target per item"),
        ([[0.5, 0.5], [np.nan, 0.5]], [0, 1], False, "item 1 are not numbers"),
        ([[3.0, -3.0]], [0], False, "not logits"),
        ([[0.5, 0.1]], [0], False, "sum to 1"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, -1], False, "Item 1 has label -1"),
        ([[0.5, 0.5]], [2], False, "Expected 0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(p, t, several, words):
    with pytest.raises(BadData, match=words):
        statistics(p, t, several)


@pytest.mark.parametrize(("classes", "several"), [(2, False), (3, False), (7, False), (4, True)])
def test_metrics_that_are_promised_are_there(classes, several):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(classes), 60)
    y = rng.random((60, classes)) < 0.4 if several else np.arange(60) % classes
    assert set(metric_names(classes, several)) == set(statistics(p, y, several))
