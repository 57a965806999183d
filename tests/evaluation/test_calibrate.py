"""Temperature and calibration error against plainer computations."""

import numpy as np
import pytest

from topwork.evaluation.calibrate import (
    activate,
    calibration_error,
    cross_fitted,
    measure,
    reliability,
)
from topwork.nn.log_loss import fit_temperature

RNG = np.random.default_rng(0)


def logits(N=400, C=4, factor=3.0):
    """Calibrated logits times a factor: the right temperature is the factor."""
    z = 1.5 * RNG.normal(size=(N, C))
    t = (activate(z).cumsum(1) < RNG.random((N, 1))).sum(1).clip(max=C - 1)
    return factor * z, t


@pytest.mark.parametrize("factor", [0.3, 1, 3, 8])
def test_temperature_is_found(factor):
    assert fit_temperature(*logits(20_000, factor=factor)) == pytest.approx(factor, rel=0.05)


def test_cross_fitted_items_do_not_choose_their_own_temperature():
    z, t = logits(100)
    folds = np.arange(100) % 5
    p = cross_fitted(z, t, folds)
    own = folds == 3
    T = fit_temperature(z[~own], t[~own])
    np.testing.assert_allclose(p[own], activate(z[own], temperature=T))
    changed = t.copy()
    changed[own] = (t[own] + 1) % 4
    np.testing.assert_array_equal(cross_fitted(z, changed, folds)[own], p[own])


def test_measure_improves_with_the_right_temperature():
    z, t = logits(4000)
    before, after = measure(activate(z), t), measure(activate(z, temperature=3), t)
    assert after["ece"] < 0.02 < 0.1 < before["ece"]
    assert after["log_loss"] < before["log_loss"]
    assert sum(b["n"] for b in before["bins"]) == 4000
    assert len(before["bins"]) == 15


def test_debiasing_takes_chance_off():
    """Calibrated by construction, 300 items: the plain estimate is about 0.07 by chance alone."""
    rng = np.random.default_rng(1)  # of its own: what other tests have drawn must not matter
    plain, ours = [], []
    for _ in range(200):
        said = rng.random(300)
        bins = reliability(said, rng.random(300) < said)
        plain.append(sum(b["n"] / 300 * abs(b["accuracy"] - b["confidence"]) for b in bins))
        ours.append(calibration_error(bins))
    assert np.mean(plain) > 0.06
    assert np.mean(ours) < 0.6 * np.mean(plain)


def test_equal_confidences_share_a_bin_whatever_the_order():
    bins = reliability(np.full(100, 0.5), np.arange(100) < 50)
    assert bins == [{"confidence": 0.5, "accuracy": 0.5, "low": bins[0]["low"], "high": bins[0]["high"], "n": 100}]
    assert calibration_error(bins) == 0
    assert reliability(np.array([1.0]), np.array([True]))[0]["n"] == 1
