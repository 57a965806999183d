"""Every file in adaptation/probe: one contract, whatever the method."""

import dataclasses

import numpy as np
import pytest

from topwork import plugins
from topwork.adaptation.probe import ROOM
from topwork.errors import BadData, BadSetting
from topwork.nn.heads import logits, probabilities
from topwork.nn.log_loss import losses

NAMES = plugins.names(ROOM)


def clusters(N=90, D=12, C=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    x = rng.normal(size=(N, D)) + 2 * rng.normal(size=(C, D))[y] + 3
    return x.astype(np.float32), y.astype(np.int32), rng.permutation(N) % 5


def several_labels(N=120, D=12, C=4, seed=0):
    x, _, folds = clusters(N, D, 3, seed)
    rng = np.random.default_rng(seed + 1)
    scores = (x - x.mean(0)) @ rng.normal(size=(D, C))
    return x, scores + rng.normal(size=(N, C)) > np.array([0, 3, -2, 1]), folds


@pytest.fixture(params=NAMES)
def method(request):
    return plugins.find(ROOM, request.param)()


def test_room_is_listed_and_frozen():
    assert set(NAMES) >= {"majority", "logistic", "ridge", "nearest_mean", "knn"}
    for name in NAMES:
        kind = plugins.find(ROOM, name)
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().anything = 1


@pytest.mark.parametrize("data", [clusters, several_labels])
def test_shapes_loss_and_reason(method, data):
    x, y, folds = data()
    classes = 4 if y.ndim == 2 else 3
    probe = method.solve(x, y, folds, classes)
    assert probe.held_out.shape == (len(x), classes)
    assert probe.held_out.dtype == np.float32
    assert all(a.dtype == np.float32 for a in probe.head.arrays.values())
    assert probe.head.activation == ("sigmoid" if y.ndim == 2 else "softmax")
    assert probe.log_loss == pytest.approx(losses(probe.held_out / probe.head.temperature, y).mean(), rel=1e-5)
    assert "\n" not in probe.reason
    assert f"{probe.log_loss:.3f}" in probe.reason
    name, options = plugins.parse(probe.head.method)
    assert plugins.find(ROOM, name) is type(method)
    assert options.keys() <= {f.name for f in dataclasses.fields(method)}
    p = probabilities(probe.head, x)
    assert np.isfinite(p).all()
    assert logits(probe.head, x).shape == (len(x), classes)


@pytest.mark.parametrize("data", [clusters, several_labels])
def test_learns_except_for_the_floor(method, data):
    x, y, folds = data()
    x2, y2, _ = x, y, folds
    classes = 4 if y.ndim == 2 else 3
    probe = method.solve(x, y, folds, classes)
    floor = plugins.make(ROOM, "majority").solve(x, y, folds, classes)
    if method == plugins.make(ROOM, "majority"):
        assert np.ptp(probe.held_out[folds == 0], axis=0).max() == 0
    else:
        assert probe.log_loss < 0.9 * floor.log_loss
        inside = losses(logits(probe.head, x2) / probe.head.temperature, y2).mean()
        assert inside < floor.log_loss


def test_a_fold_never_sees_its_own_labels(method):
    """With one held-out fold's labels changed, logits of that fold only move with the chosen strength and scale."""
    x, y, folds = clusters()
    fixed = {"logistic": {"l2": 0.1}, "sparse_logistic": {"l2": 0.1}, "ridge": {"l2": 0.1}, "knn": {"k": 5}}.get(
        plugins.parse(_name(method))[0], {}
    )
    method = dataclasses.replace(method, **fixed)
    changed = np.where(folds == 2, (y + 1) % 3, y).astype(np.int32)
    one, two = (method.solve(x, t, folds, 3).held_out[folds == 2] for t in (y, changed))
    if _name(method) == "nearest_mean":  # its width, one number, is fitted to all held-out items
        one, two = (z.argmax(axis=1) for z in (one, two))
    np.testing.assert_allclose(one, two, atol=2e-3)


def test_same_bits_twice(method):
    x, y, folds = clusters()
    one, two = method.solve(x, y, folds, 3), method.solve(x.copy(), y, folds, 3)
    assert one.held_out.tobytes() == two.held_out.tobytes()
    assert all(one.head.arrays[k].tobytes() == two.head.arrays[k].tobytes() for k in one.head.arrays)


def test_input_is_left_alone(method):
    x, y, folds = clusters()
    x.flags.writeable = y.flags.writeable = folds.flags.writeable = False
    method.solve(x, y, folds, 3)


def test_shift_and_unit_of_features_do_not_matter(method):
    if _name(method) == "knn":
        pytest.skip("cosines depend on the origin")
    x, y, folds = clusters()
    one, two = method.solve(x, y, folds, 3), method.solve(100 * x + 50, y, folds, 3)
    np.testing.assert_allclose(logits(one.head, x), logits(two.head, 100 * x + 50), atol=0.02)


def test_hard_cases_do_not_crash(method):
    x, y, folds = clusters(60, 40, 3)
    x[:, 5] = 7  # constant
    cases = {
        "a class misses in one training part": (x, np.where(folds == 1, 2, y % 2).astype(np.int32), folds, 3),
        "a class that nobody has": (x, y, folds, 5),
        "more features than items": (x[:12], y[:12], np.arange(12) % 3, 3),
        "four items": (x[:4], np.int32([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2),
        "one class left in training": (x[:4], np.int32([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 2),
        "all features constant": (np.ones_like(x), y, folds, 3),
        "every item twice": (np.repeat(x, 2, axis=0), np.repeat(y, 2), np.repeat(folds, 2), 3),
        "a label that nobody has": (x, np.eye(4, dtype=bool)[y], folds, 4),
        "a label that everybody has": (
            x,
            np.ones((60, 2), bool) & (np.arange(2) | (y[:, None] > 0)).astype(bool),
            folds,
            2,
        ),
        "far from zero": (x + 1e4, y, folds, 3),
        "not contiguous, float64": (np.asfortranarray(x.astype(float)), y.astype(np.int64), folds * 7 - 3, 3),
    }
    for name, (features, targets, parts, classes) in cases.items():
        probe = method.solve(features, targets, parts, classes)
        assert np.isfinite(probe.held_out).all(), name
        assert np.isfinite(probe.log_loss), name
        assert np.isfinite(logits(probe.head, features.astype(np.float32))).all(), name
        assert np.isfinite(probe.head.temperature), name
        assert probe.head.temperature > 0, name


def test_bad_input_is_refused(method):
    x, y, folds = clusters()
    if _name(method) != "majority":  # it does not look at them
        hole = x.copy()
        hole[17, 3] = np.nan
        with pytest.raises(BadData, match=r"Row 17 .*NaN"):
            method.solve(hole, y, folds, 3)
    with pytest.raises(BadData, match="same label"):
        method.solve(x, np.zeros_like(y), folds, 3)
    with pytest.raises(BadData, match=r"Row 0 has target -1. Expected 0 to 2"):
        method.solve(x, np.where(np.arange(len(y)) == 0, -1, y), folds, 3)
    with pytest.raises(BadData, match="do not fit"):
        method.solve(x, y[:-1], folds, 3)
    with pytest.raises(BadData, match="Expected bool"):
        method.solve(x, np.eye(3)[y], folds, 3)
    with pytest.raises(BadSetting, match="one fold"):
        method.solve(x, y, np.zeros_like(folds), 3)


def test_weight_two_is_twice_the_item(method):
    if _name(method) == "knn":
        with pytest.raises(BadSetting, match="no sample weights"):
            method.solve(*clusters(), 3, sample_weight=np.ones(90))
        return
    x, y, folds = clusters()
    fixed = {"logistic": {"l2": 0.1}, "sparse_logistic": {"l2": 0.1}, "ridge": {"l2": 0.1}}.get(_name(method), {})
    method = dataclasses.replace(method, **fixed)
    weight = np.where(np.arange(90) < 20, 2.0, 1.0)
    twice = np.repeat(np.arange(90), weight.astype(int))
    one = method.solve(x, y, folds, 3, sample_weight=weight)
    two = method.solve(x[twice], y[twice], folds[twice], 3)
    atol = 0.02 if _name(method) == "majority" else 0.1  # priors of half an item weigh less among 110 than among 90
    np.testing.assert_allclose(probabilities(one.head, x), probabilities(two.head, x), atol=atol)


def _name(method):
    return next(n for n in NAMES if plugins.find(ROOM, n) is type(method))
