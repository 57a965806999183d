"""k-NN against a loop, the quick probe against scikit-learn fold by fold."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from topwork.errors import BadSetting
from topwork.nn.log_loss import losses
from topwork.nn.principal import principal
from topwork.ranking import Given
from topwork.ranking.knn import Knn
from topwork.ranking.probe import STRENGTHS, Probe


def problem(N=90, D=12, C=3, seed=0, signal=0.6):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    x = rng.normal(size=(N, D)) + signal * rng.normal(size=(C, D))[y]
    return x.astype(np.float32), y, rng.permutation(N) % 5


def test_knn_is_a_loop_over_neighbours():
    x, y, _ = problem()
    together = np.arange(len(y)) // 2
    z = x.astype(float) - x.mean(0, dtype=float)
    right = 0
    for i in range(len(y)):
        others = [j for j in range(len(y)) if together[j] != together[i]]
        near = sorted(((z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]), j) for j in others), reverse=True)
        votes = np.zeros(3)
        for cosine, j in near[:5]:
            votes[y[j]] += np.exp(cosine / 0.07)
        right += votes.argmax() == y[i]
    assert Knn().score(x, y, Given(together=together)) == pytest.approx(right / len(y))


def test_copies_vouch_for_each_other_only_where_nobody_says_so():
    x, _, _ = problem(signal=0)
    y = np.random.default_rng(1).integers(0, 3, 90)
    twice, labels = np.repeat(x, 2, axis=0), np.repeat(y, 2)
    assert Knn(k=1).score(twice, labels) == 1
    assert Knn(k=1).score(twice, labels, Given(together=np.repeat(np.arange(90), 2))) < 0.6


def test_knn_options():
    x, y, _ = problem()
    with pytest.raises(BadSetting, match="k=0"):
        Knn(k=0).score(x, y)
    assert 0 <= Knn(k=1000).score(x, y) <= 1


def test_probe_is_logistic_regression_fold_by_fold():
    x, y, folds = problem(signal=0.4)
    ours = Probe().held_out(x, y, folds)
    scores = principal(x).scores[:, :-1]
    theirs = {}
    for l2 in STRENGTHS:
        z = np.empty((len(y), 3))
        for fold in range(5):
            rest = folds != fold
            solver = LogisticRegression(C=1 / (l2 * rest.sum()), tol=1e-8, max_iter=5000)
            z[~rest] = solver.fit(scores[rest], y[rest]).decision_function(scores[~rest])
        theirs[l2] = z
    best = min(STRENGTHS, key=lambda l2: losses(theirs[l2], y).mean())
    centred = [z - z.mean(1, keepdims=True) for z in (ours, theirs[best])]
    assert np.abs(centred[0] - centred[1]).max() < 0.1 * np.abs(centred[1]).max()
    assert Probe().score(x, y, Given(folds=folds)) == pytest.approx((theirs[best].argmax(1) == y).mean(), abs=0.03)


def test_probe_never_sees_its_own_fold():
    x, y, folds = problem()
    changed = np.where(folds == 2, (y + 1) % 3, y)
    one, two = (Probe().held_out(x, t, folds)[folds == 2] for t in (y, changed))
    assert (one.argmax(1) == two.argmax(1)).mean() > 0.9  # only the strength may move


def test_fewer_axes_is_a_coarser_probe():
    x, y, folds = problem(D=40, signal=0.5)
    assert Probe(axes=1).held_out(x, y, folds).shape == (90, 3)
    with pytest.raises(BadSetting, match="axes=0"):
        Probe(axes=0).held_out(x, y, folds)
    with pytest.raises(BadSetting, match="one fold"):
        Probe().held_out(x, y, np.zeros(90))


def test_a_class_that_a_fold_has_never_met():
    x, y, folds = problem()
    y = np.where(folds == 1, 2, y % 2)
    z = Probe().held_out(x, y, folds)
    assert np.isfinite(z).all()
    assert (z[folds == 1].argmax(1) != 2).all()
