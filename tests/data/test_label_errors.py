import numpy as np
import pytest

from topwork.data.label_errors import confident_joint, label_errors, power, proven_noise, prune


def noisy(seed, items=400, classes=4, flips=0.08, sharp=2.0):
    """Out-of-fold probabilities of an honest model, and labels of which some are flipped."""
    draw = np.random.default_rng(seed)
    truth = draw.choice(classes, items, p=draw.dirichlet(5 * np.ones(classes)))
    z = sharp * np.eye(classes)[truth] + draw.normal(0, 1, (items, classes))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = truth.copy()
    flipped = draw.random(items) < flips
    y[flipped] = (truth[flipped] + draw.integers(1, classes, flipped.sum())) % classes
    return p, y, y != truth


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 4, 9])
def test_agrees_with_the_authors_package(seed, classes):
    cleanlab = pytest.importorskip("cleanlab.filter")
    from cleanlab.count import compute_confident_joint
    from cleanlab.rank import get_label_quality_scores

    p, y, _ = noisy(seed, classes=classes)
    ours = label_errors(p, y)
    theirs = cleanlab.find_label_issues(y, p, filter_by="prune_by_noise_rate", n_jobs=1)
    apart = np.abs(confident_joint(p, y) - compute_confident_joint(y, p))
    assert apart.max() <= 1
    assert apart.sum() <= 8  # of 400: a half goes up or down by the last bit of a sum
    assert (prune(p, y)[0] != theirs).sum() <= apart.sum()
    assert (theirs & ~ours.wrong).sum() <= apart.sum()
    assert np.allclose(ours.quality, get_label_quality_scores(y, p, method="self_confidence"))


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_agree_with_the_authors_package(seed):
    cleanlab = pytest.importorskip("cleanlab.multilabel_classification.filter")
    draw = np.random.default_rng(seed)
    truth = draw.random((300, 4)) < 0.4
    truth[np.arange(4), np.arange(4)] = True
    z = 3 * truth - 1.5 + draw.normal(0, 1, truth.shape)
    p = 1 / (1 + np.exp(-z))
    given = truth ^ (draw.random(truth.shape) < 0.05)
    lists = [np.flatnonzero(row).tolist() for row in given]
    theirs = cleanlab.find_multilabel_issues_per_class(lists, p, n_jobs=1)
    ours = label_errors(p, given)
    assert np.array_equal(ours.wrong, theirs)
    assert np.array_equal(ours.likeliest, given ^ ours.wrong)


def test_the_joint_of_a_case_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    y = np.array([0, 0, 0, 1, 1, 1])
    # thresholds 0.6 and 0.633: item 2 is surely 1 although labelled 0, item 5 is not surely anything but 0
    assert confident_joint(p, y).tolist() == [[2, 1], [1, 2]]
    found = label_errors(p, y)
    assert np.flatnonzero(found.wrong).tolist() == [2, 5]
    assert found.likeliest.tolist() == [0, 0, 1, 1, 1, 0]
    assert found.quality[2] == pytest.approx(0.1)


def test_flipped_labels_rank_first():
    p, y, wrong = noisy(1, items=2000, sharp=4.0, flips=0.05)
    found = label_errors(p, y)
    order = np.argsort(found.quality)
    hits = wrong[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    assert precision[hits].mean() > 0.8
    assert (found.wrong & wrong).sum() > 0.8 * wrong.sum()
    assert (found.wrong & wrong).sum() > 0.7 * found.wrong.sum()


@pytest.mark.parametrize("sharp", [1.5, 2.5, 4.0])
def test_the_doubt_says_how_many_of_them_are_wrong(sharp):
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 4, 6000)
    z = sharp * (sharp * np.eye(4)[truth] + draw.normal(0, 1, (6000, 4)))  # logits of the exact posterior
    p = np.exp(z - z.max(1, keepdims=True))
    p = 0.95 * p / p.sum(1, keepdims=True) + 0.05 / 3 * (1 - p / p.sum(1, keepdims=True))  # of labels 5 % of which lie
    wrong = draw.random(6000) < 0.05
    y = np.where(wrong, (truth + draw.integers(1, 4, 6000)) % 4, truth)
    found = label_errors(p, y)
    assert 0.04 < found.noise < 0.09
    assert found.doubt[found.wrong].sum() == pytest.approx(wrong.sum(), rel=0.4)
    sure = found.wrong & (found.doubt >= 0.5)
    assert wrong[sure].mean() > max(0.5, wrong[found.wrong].mean())


def test_clean_labels_and_single_items_are_left_alone():
    p = np.full((21, 3), 0.05)
    y = np.repeat([0, 1, 2], [10, 10, 1])
    p[np.arange(21), y] = 0.9
    p[20] = [0.9, 0.05, 0.05]  # the only item of its class is asked of heads that have never met the class
    assert not label_errors(p, y).wrong.any()
    assert not label_errors(np.eye(3)[y] + 1e-9, y).wrong.any()


def test_the_proven_noise_of_a_case_by_hand():
    p = np.tile([[0.9, 0.1]], (100, 1))
    p[:, 0] -= np.arange(100) / 1000  # the surest come first
    p[:, 1] = 1 - p[:, 0]
    y = np.zeros(100, int)
    y[[3, 11, 27, 30, 44, 49]] = 1
    # 6 of the 50 surest: Wilson's interval is 0.0562 to 0.238; of 100: 0.0278; of 70: 0.0399
    assert proven_noise(p, y) == pytest.approx(0.02778, abs=1e-4)
    y[:] = 0
    assert proven_noise(p, y) == 0.0
    assert not label_errors(p, y).proven.any()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", [5, 6])
def test_nothing_is_proven_of_clean_labels_and_much_of_flipped_ones(seed, several):
    """What looks wrong to a model of clean labels is its own mistake; the usual noise alone would take it for noise."""

    def acts(flips, sharp):
        p, y, _ = noisy(seed, items=1000, sharp=sharp, flips=0)
        p = p**sharp / (p**sharp).sum(1, keepdims=True)  # the exact posterior of the truth
        draw = np.random.default_rng(0)
        y = np.where(draw.random(1000) < flips, (y + draw.integers(1, 4, 1000)) % 4, y)
        found = label_errors(p, np.eye(4, dtype=bool)[y] if several else y)
        wrong = found.wrong.any(1) if several else found.wrong
        assert (found.proven[wrong] <= found.doubt[wrong] + 1e-12).all()
        return [int((wrong & (one * (1 - found.quality) >= 0.9)).sum()) for one in (found.doubt, found.proven)]

    believed, proven = acts(0.0, 2.0)
    assert believed >= 2
    assert proven == 0
    assert acts(0.05, 4.0)[1] > 20


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sharp", [1.0, 2.0, 3.0])
def test_the_power_is_what_draws_from_such_probabilities_show(sharp, several):
    from sklearn.metrics import average_precision_score

    p, _, _ = noisy(3, items=4000, sharp=sharp)
    p = p**sharp / (p**sharp).sum(1, keepdims=True)
    draw = np.random.default_rng(1)
    if several:
        truth = draw.random(p.shape) < p
        wrong = draw.random(p.shape) < 0.05
        own = np.where(truth ^ wrong, p, 1 - p)
        measured = average_precision_score(wrong.reshape(-1), -own.reshape(-1))
    else:
        truth = (draw.random((4000, 1)) > p.cumsum(1)).sum(1).clip(0, 3)
        wrong = draw.random(4000) < 0.05
        y = np.where(wrong, (truth + draw.integers(1, 4, 4000)) % 4, truth)
        measured = average_precision_score(wrong, -p[np.arange(4000), y])
    assert power(p, 0.0, several) == pytest.approx(measured, abs=0.07)
    mixed = 0.95 * p + 0.05 * ((1 - p) if several else (1 - p) / 3)  # what labels with 5 % flips teach
    assert power(mixed, 0.05, several) == pytest.approx(power(p, 0.0, several), abs=1e-6)


def test_who_knows_nothing_finds_as_many_as_chance_and_who_knows_all_finds_all():
    assert power(np.full((50, 4), 0.25), 0.0) == pytest.approx(0.05)
    assert power(np.eye(4)[np.arange(50) % 4] * 0.999 + 0.00025, 0.0) > 0.95
