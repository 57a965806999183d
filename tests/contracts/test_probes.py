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
FLOORS = ("majority", "mean")
FIXED = {
    "logistic": {"l2": 0.1}, "sparse_logistic": {"l2": 0.1}, "ridge": {"l2": 0.1}, "sparse_ridge": {"alpha": 1.0},
    "knn": {"k": 5}, "reduced": {"probe": "ridge(l2=0.1)"},
}  # fmt: skip


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


def numbers(N=90, D=12, C=1, seed=0):
    """Far from zero and in a unit of their own, as prices are."""
    x, _, folds = clusters(N, D, 3, seed)
    rng = np.random.default_rng(seed + 2)
    z = (x - x.mean(0)) @ rng.normal(size=D)
    return x, 2e5 + 3e4 * (z / z.std() + 0.2 * rng.normal(size=N)), folds


DATA = {"classes": (clusters,), "numbers": (numbers,)}  # one label an item, or one number


def _goals(name):
    return plugins.find(ROOM, name).goals


@pytest.fixture(params=NAMES)
def method(request):
    return plugins.find(ROOM, request.param)()


@pytest.fixture(params=[(name, goal) for name in NAMES for goal in _goals(name)], ids="-".join)
def case(request):
    """A method, and one kind of data that it can learn."""
    name, goal = request.param
    return plugins.find(ROOM, name)(), DATA[goal][0]


@pytest.fixture(
    params=[(name, data) for name in NAMES for goal in _goals(name)
            for data in ((clusters, several_labels) if goal == "classes" else (numbers,))],
    ids=lambda one: f"{one[0]}-{one[1].__name__}",
)  # fmt: skip
def any_case(request):
    """The same with several labels, too."""
    name, data = request.param
    return plugins.find(ROOM, name)(), data


def labels_of(y):
    return {"b": 4, "i": 3, "f": 1}[y.dtype.kind]


def floor_of(y):
    return plugins.make(ROOM, "mean" if y.dtype.kind == "f" else "majority")


def test_room_is_listed_and_frozen():
    assert set(NAMES) >= {"majority", "logistic", "ridge", "nearest_mean", "knn"}
    for name in NAMES:
        kind = plugins.find(ROOM, name)
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().anything = 1


def test_shapes_loss_and_reason(any_case):
    method, data = any_case
    x, y, folds = data()
    classes = labels_of(y)
    probe = method.solve(x, y, folds, classes)
    assert probe.held_out.shape == (len(x), classes)
    assert probe.held_out.dtype == np.float32
    assert all(a.dtype == np.float32 for a in probe.head.arrays.values())
    assert probe.head.activation == {"b": "sigmoid", "i": "softmax", "f": "identity"}[y.dtype.kind]
    assert probe.log_loss == pytest.approx(losses(probe.held_out / probe.head.temperature, y).mean(), rel=1e-5)
    assert "\n" not in probe.reason
    if y.dtype.kind == "f":
        assert probe.head.temperature == 1
        assert _name(method) == "mean" or f"R² {1 - probe.log_loss:.3f}" in probe.reason
        assert "log loss" not in probe.reason
        assert "temperature" not in probe.reason
    else:
        assert f"{probe.log_loss:.3f}" in probe.reason
    name, options = plugins.parse(probe.head.method)
    assert plugins.find(ROOM, name) is type(method)
    assert options.keys() <= {f.name for f in dataclasses.fields(method)}
    p = probabilities(probe.head, x)
    assert np.isfinite(p).all()
    assert logits(probe.head, x).shape == (len(x), classes)


def test_learns_except_for_the_floor(any_case):
    method, data = any_case
    x, y, folds = data()
    classes = labels_of(y)
    probe = method.solve(x, y, folds, classes)
    floor = floor_of(y).solve(x, y, folds, classes)
    if _name(method) in FLOORS:
        assert np.ptp(probe.held_out[folds == 0], axis=0).max() == 0
    else:
        assert probe.log_loss < 0.9 * floor.log_loss
        inside = losses(logits(probe.head, x) / probe.head.temperature, y).mean()
        assert inside < floor.log_loss


def test_the_other_kind_of_targets_is_refused(method):
    for goal, (data,) in DATA.items():
        x, y, folds = data()
        if goal not in method.goals:
            with pytest.raises(BadSetting, match=f"^The targets are {goal}, and this probe is for .* Use "):
                method.solve(x, y, folds, labels_of(y))


def test_a_fold_never_sees_its_own_targets(case):
    """With one held-out fold's targets changed, logits of that fold only move with the chosen strength and scale."""
    method, data = case
    x, y, folds = data()
    method = dataclasses.replace(method, **FIXED.get(_name(method), {}))
    other = (y + 1) % 3 if y.dtype.kind == "i" else y[::-1] + 1e5
    changed = np.where(folds == 2, other, y).astype(y.dtype)
    one, two = (method.solve(x, t, folds, labels_of(y)).held_out[folds == 2] for t in (y, changed))
    if _name(method) == "nearest_mean":  # its width, one number, is fitted to all held-out items
        one, two = (z.argmax(axis=1) for z in (one, two))
    np.testing.assert_allclose(one, two, atol=2e-3 * (y.std() if y.dtype.kind == "f" else 1))


def test_same_bits_twice(case):
    method, data = case
    x, y, folds = data()
    one, two = (method.solve(features, y, folds, labels_of(y)) for features in (x, x.copy()))
    assert one.held_out.tobytes() == two.held_out.tobytes()
    assert all(one.head.arrays[k].tobytes() == two.head.arrays[k].tobytes() for k in one.head.arrays)


def test_input_is_left_alone(case):
    method, data = case
    x, y, folds = data()
    x.flags.writeable = y.flags.writeable = folds.flags.writeable = False
    method.solve(x, y, folds, labels_of(y))


def test_shift_and_unit_of_features_do_not_matter(case):
    method, data = case
    if _name(method) == "knn":
        pytest.skip("cosines depend on the origin")
    x, y, folds = data()
    one, two = (method.solve(features, y, folds, labels_of(y)) for features in (x, 100 * x + 50))
    scale = y.std() if y.dtype.kind == "f" else 1
    np.testing.assert_allclose(logits(one.head, x), logits(two.head, 100 * x + 50), atol=0.02 * scale)


def test_unit_of_the_numbers_does_not_matter(method):
    """Euros or cents, from nought or from a million: the same answers in the other unit."""
    if "numbers" not in method.goals:
        return
    x, y, folds = numbers()
    one = method.solve(x, y, folds, 1)
    for unit, origin in ((1e-6, 0), (1e4, 0), (1e-3, 1e3)):
        two = method.solve(x, unit * y + origin, folds, 1)
        z = (two.held_out.astype(float) - origin) / unit
        np.testing.assert_allclose(z, one.held_out, atol=0.01 * y.std())
        assert two.log_loss == pytest.approx(one.log_loss, rel=0.02)


def test_hard_cases_do_not_crash(method):
    if "classes" not in method.goals:
        return
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


def test_hard_numbers_do_not_crash(method):
    if "numbers" not in method.goals:
        return
    x, y, folds = numbers(60, 40)
    x[:, 5] = 7  # constant
    spike = np.where(np.arange(60) == 3, 1e12, y)
    cases = {
        "more features than items": (x[:12], y[:12], np.arange(12) % 3),
        "four items": (x[:4], y[:4], np.array([0, 0, 1, 1])),
        "one number left in training": (x[:4], np.array([1.0, 1, 2, 2]), np.array([0, 0, 1, 1])),
        "all features constant": (np.ones_like(x), y, folds),
        "every item twice": (np.repeat(x, 2, axis=0), np.repeat(y, 2), np.repeat(folds, 2)),
        "one far from all others": (x, spike, folds),
        "tiny": (x, 1e-30 * y, folds),
        "two values": (x, (y > y.mean()).astype(float), folds),
        "far from zero": (x + 1e4, y, folds),
        "not contiguous, float64": (np.asfortranarray(x.astype(float)), y.astype(np.float32), folds * 7 - 3),
    }
    for name, (features, targets, parts) in cases.items():
        probe = method.solve(features, targets, parts, 1)
        assert np.isfinite(probe.held_out).all(), name
        assert np.isfinite(probe.log_loss), name
        assert np.isfinite(logits(probe.head, features.astype(np.float32))).all(), name
        assert probe.head.temperature == 1, name


def test_bad_numbers_are_refused(method):
    if "numbers" not in method.goals:
        return
    x, y, folds = numbers()
    if _name(method) != "mean":  # it does not look at them
        hole = x.copy()
        hole[17, 3] = np.nan
        with pytest.raises(BadData, match=r"Row 17 .*NaN"):
            method.solve(hole, y, folds, 1)
    with pytest.raises(BadData, match="same number, 7"):
        method.solve(x, np.full(90, 7.0), folds, 1)
    for wrong in (np.nan, np.inf):
        with pytest.raises(BadData, match="finite"):
            method.solve(x, np.where(np.arange(90) == 3, wrong, y), folds, 1)
    with pytest.raises(BadData, match="do not fit"):
        method.solve(x, y[:-1], folds, 1)
    with pytest.raises(BadData, match=r"Expected finite numbers \(N,\)"):
        method.solve(x, np.stack([y, y], axis=1), folds, 1)
    with pytest.raises(BadSetting, match="one fold"):
        method.solve(x, y, np.zeros_like(folds), 1)


def test_bad_input_is_refused(method):
    if "classes" not in method.goals:
        return
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
        method.solve(x, np.eye(3, dtype=int)[y], folds, 3)
    with pytest.raises(BadSetting, match="one fold"):
        method.solve(x, y, np.zeros_like(folds), 3)


def test_weight_two_is_twice_the_item(case):
    method, data = case
    x, y, folds = data()
    classes, weight = labels_of(y), np.where(np.arange(90) < 20, 2.0, 1.0)
    if _name(method) == "knn":
        with pytest.raises(BadSetting, match="no sample weights"):
            method.solve(x, y, folds, classes, sample_weight=weight)
        return
    method = dataclasses.replace(method, **FIXED.get(_name(method), {}))
    twice = np.repeat(np.arange(90), weight.astype(int))
    one = method.solve(x, y, folds, classes, sample_weight=weight)
    two = method.solve(x[twice], y[twice], folds[twice], classes)
    atol = 0.02 if _name(method) in FLOORS else 0.1  # priors of half an item weigh less among 110 than among 90
    scale = 0.1 * y.std() if y.dtype.kind == "f" else 1
    np.testing.assert_allclose(probabilities(one.head, x), probabilities(two.head, x), atol=atol * scale)


def _name(method):
    return next(n for n in NAMES if plugins.find(ROOM, n) is type(method))
