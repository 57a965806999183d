"""Logistic probe: the optimum, the path, class weights."""

import numpy as np
import pytest

from topwork.adaptation.probe.logistic import STRENGTHS, Logistic
from topwork.errors import BadSetting
from topwork.nn.heads import logits, probabilities
from topwork.nn.log_loss import losses
from topwork.nn.principal import principal


def data(N=300, D=30, C=4, seed=0, shares=None):
    rng = np.random.default_rng(seed)
    y = rng.choice(C, N, p=shares).astype(np.int32)
    x = rng.normal(size=(N, D)) + 0.35 * rng.normal(size=(C, D))[y]
    return (np.maximum(x, 0) * rng.uniform(0.5, 2, D)).astype(np.float32), y, np.arange(N) % 5


def standardised(x):
    variance = x.var(axis=0)
    return (x - x.mean(axis=0)) / np.sqrt((variance + np.median(variance)) / 2)


@pytest.mark.parametrize(("C", "l2"), [(4, 0.1), (4, 0.003), (2, 0.05)])
@pytest.mark.parametrize("N", [300, 24])  # 24: more features than items
def test_head_and_held_out_are_those_of_scikit_learn(C, l2, N):
    from sklearn.linear_model import LogisticRegression

    x, y, folds = data(N, C=C)
    probe = Logistic(l2=l2).solve(x, y, folds, C)
    z, factor = standardised(x.astype(float)), 2 if C == 2 else 1

    def reference(rows):
        return LogisticRegression(C=factor / (l2 * len(rows)), tol=1e-8, max_iter=5000).fit(z[rows], y[rows])

    whole = reference(np.arange(N))
    np.testing.assert_allclose(probabilities(probe.head, x), whole.predict_proba(z), atol=2e-3)
    clear = np.ptp(np.sort(whole.predict_proba(z), axis=1)[:, -2:], axis=1) > 2e-3
    assert (logits(probe.head, x).argmax(axis=1) == whole.predict(z))[clear].all()
    assert clear.mean() > 0.98
    for fold in range(5):
        inside, outside = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        p = np.exp(probe.held_out[inside]) / np.exp(probe.held_out[inside]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(p, reference(outside).predict_proba(z[inside]), atol=5e-3)


def test_chosen_strength_is_the_best_of_the_path():
    x, y, folds = data()
    probe = Logistic().solve(x, y, folds, 4)
    at = {l2: Logistic(l2=l2).solve(x, y, folds, 4).log_loss for l2 in STRENGTHS}
    assert probe.log_loss == pytest.approx(min(at.values()), rel=2e-3)
    assert f"{min(at, key=at.get):.2g}" in probe.head.method


def crowd(seed, n=15, C=20, D=40):
    """Many classes, few items of each."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(C), n).astype(np.int32)
    centres = 0.9 * rng.normal(size=(C, D))
    x, fresh = (rng.standard_t(4, size=(len(y), D)) + centres[y] for _ in range(2))
    return x.astype(np.float32), y, np.arange(len(y)) // C % 5, fresh.astype(np.float32)


def least(z, y):
    """Log losses at the temperature that a plain search finds, an item's worth of doubt on every target."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    doubt = 1 / (len(y) + 2)
    goal = (1 - doubt) * np.eye(z.shape[1])[y] + doubt / z.shape[1]

    def at(log_t):
        return -(goal * log_softmax(z.astype(float) / np.exp(log_t), axis=1)).sum(axis=1)

    return at(minimize_scalar(lambda t: at(t).mean(), bounds=(-4, 4), method="bounded").x), at(0.0).mean()


@pytest.mark.parametrize(("seed", "moves"), [(0, False), (1, True), (3, True)])
def test_a_neighbour_takes_the_place_where_all_that_it_lacks_is_a_temperature(seed, moves):
    x, y, folds, fresh = crowd(seed)
    told = [Logistic(l2=l2).solve(x, y, folds, 20) for l2 in STRENGTHS]
    losses_at, as_they_are = zip(*(least(probe.held_out, y) for probe in told), strict=True)
    lowest = int(np.argmin(as_they_are))
    expected = min(range(max(lowest - 1, 0), min(lowest + 2, len(told))), key=lambda i: losses_at[i].mean())
    lead = losses_at[lowest] - losses_at[expected]
    one_item = np.log(len(y) + 2) / (len(y) + 2)
    if lead.mean() <= max(2 * lead.std() / np.sqrt(len(y)), one_item):
        expected = lowest
    assert (expected != lowest) == moves
    probe = Logistic().solve(x, y, folds, 20)
    np.testing.assert_allclose(probe.head.arrays["weight"], told[expected].head.arrays["weight"], atol=1e-3)
    assert probe.head.method == told[expected].head.method
    assert all(one.head.temperature == 1 for one in told)
    assert (probe.head.temperature != 1) == moves == ("temperature" in probe.reason)
    np.testing.assert_allclose(probe.log_loss, losses(probe.held_out / probe.head.temperature, y).mean(), rtol=1e-6)
    if moves:
        said, before = (np.log(probabilities(one.head, fresh)) for one in (probe, told[lowest]))
        assert losses(said, y).mean() < losses(before, y).mean()
    weighted = Logistic().solve(x, y, folds, 20, np.full(len(y), 3.0))
    assert weighted.head.method == probe.head.method
    assert weighted.head.temperature == pytest.approx(probe.head.temperature, rel=1e-3)


def test_separable_items_do_not_run_away():
    x = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0) * 5
    y, folds = np.repeat([0, 1], 10).astype(np.int32), np.arange(20) % 5
    probe = Logistic().solve(x, y, folds, 2)
    p = probabilities(probe.head, x).max(axis=1)
    assert (p > 0.9).all()
    assert (p < 0.9999).all()


def test_balanced_weights_keep_probabilities_honest():
    x, y, folds = data(1500, D=6, C=3, shares=[0.9, 0.07, 0.03])
    balanced = Logistic(l2=0.01, class_weight="balanced").solve(x, y, folds, 3)
    plain = Logistic(l2=0.01, class_weight="none").solve(x, y, folds, 3)
    for probe in (balanced, plain):
        np.testing.assert_allclose(probabilities(probe.head, x).mean(axis=0), np.bincount(y) / 1500, atol=0.02)
    auto = Logistic(l2=0.01).solve(x, y, folds, 3)
    assert auto.log_loss == min(balanced.log_loss, plain.log_loss)
    assert "weighted" in auto.reason


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y, folds = data(400, D=8, C=3, shares=[0.7, 0.2, 0.1])
    probe = Logistic(l2=0.02, class_weight="balanced").solve(x, y, folds, 3)
    z = standardised(x.astype(float))
    reference = LogisticRegression(C=1 / (0.02 * 400), class_weight="balanced", tol=1e-8, max_iter=5000).fit(z, y)
    shift = np.log(400 / 3 / np.bincount(y))
    ours, theirs = logits(probe.head, x) + shift, reference.decision_function(z)
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=0.01)


def test_classes_alike_are_not_weighted():
    probe = Logistic().solve(*data(), 4)
    assert "weighted" not in probe.reason


def test_several_labels_are_one_against_the_rest():
    x, _, folds = data()
    y = x[:, :3] + 0.3 * x[:, 3:6] > np.float32([0.5, 0.2, 1.5])
    probe = Logistic(l2=0.02).solve(x, y, folds, 3)
    for c in range(3):
        alone = Logistic(l2=0.04, class_weight="none").solve(
            x, y[:, c].astype(np.int32), folds, 2
        )  # two columns share the work of one: half the penalty each
        two = logits(alone.head, x)
        np.testing.assert_allclose(logits(probe.head, x)[:, c], two[:, 1] - two[:, 0], atol=0.02)
    assert probe.log_loss < 0.9 * losses(np.zeros((300, 3)), y).mean()
    balanced = Logistic(l2=0.02, class_weight="balanced").solve(x, y, folds, 3)
    np.testing.assert_allclose(probabilities(balanced.head, x).mean(axis=0), y.mean(axis=0), atol=0.03)


def test_scores_of_a_basis_are_shared():
    x, y, folds = data()
    from topwork.nn.principal import remembered

    with remembered():
        basis = principal(x)
        assert principal(x) is basis
        inside = Logistic(l2=0.1).solve(x, y, folds, 4)
    assert inside.held_out.tobytes() == Logistic(l2=0.1).solve(x, y, folds, 4).held_out.tobytes()


@pytest.mark.parametrize("options", [{"l2": 0}, {"l2": -1.0}, {"l2": float("nan")}, {"class_weight": "heavy"}])
def test_bad_options(options):
    with pytest.raises(BadSetting):
        Logistic(**options).solve(*data(), 4)
