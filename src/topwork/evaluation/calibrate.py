"""Probabilities that mean what they say: one temperature, and how far stated and observed shares are apart.

    probabilities = softmax(z / T)      T minimises the log loss of logits that were not trained on

Guo et al., On Calibration of Modern Neural Networks, ICML 2017; `nn.log_loss` finds T.

    ECE = sum_b n_b / N |accuracy_b - confidence_b|      up to 15 bins of equal mass; equal confidences share a bin

A calibrated model has ECE > 0 by chance alone, so the part to expect from chance is taken off, bin by bin: with
gap_b ~ Normal(g_b, sigma_b), E|gap_b| - |g_b| (the debiasing of Kumar et al., Verified Uncertainty Calibration, 2019,
in closed form). Single label: confidence of the likeliest label. Several labels: every label of every item counts.
"""

from __future__ import annotations

from math import erf, exp, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.intervals import wilson
from topwork.nn.log_loss import fit_temperature
from topwork.tasks.classification import checked, hits, item_losses
from topwork.types import Activation, Head

BAND = 0.9  # share of the truths that the band of a number holds
BINS = 15
BIN_ITEMS = 20  # a bin holds at least about so many


def activate(logits: Any, activation: Activation = "softmax", temperature: float = 1.0) -> NDArray[np.float64]:
    """Logits (N, C) -> probabilities (N, C): softmax or, for several labels, sigmoid; numbers (N, 1) are themselves."""
    z = np.asarray(logits, np.float64) / temperature
    if activation == "identity":
        return z
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0, -z))
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def cross_fitted(logits: Any, targets: Any, folds: Any, activation: Activation = "softmax") -> NDArray[np.float64]:
    """Probabilities of every item at a temperature that was fitted without the item's fold."""
    z, y, folds = np.asarray(logits), np.asarray(targets), np.asarray(folds)
    out = np.empty(z.shape)
    for fold in np.unique(folds):
        own = folds == fold
        others = ~own if not own.all() else own
        out[own] = activate(z[own], activation, fit_temperature(z[others], y[others]))
    return out


def band(logits: Any, targets: Any) -> dict[str, float]:
    """Where nine of ten truths lie about a number z that is said: {"low": -2.1, "high": 1.8}; {} of classes.

    The 5 % and 95 % points of y - z over N items that were not trained on, each the next one out of N + 1: conformal
    prediction (Vovk et al., 2005; of out-of-fold residuals: Barber et al., Predictive Inference with the Jackknife+,
    2021).
    """
    z, y = np.asarray(logits, np.float64), np.asarray(targets)
    if y.dtype.kind != "f":
        return {}
    away = np.sort(y - z[:, 0])
    out = max(int((1 - BAND) / 2 * (len(away) + 1) + 1e-9), 1)
    return {"low": float(away[out - 1]), "high": float(away[-out])}


def calibration_of(head: Head) -> dict[str, Any]:
    """What a saved model tells of it."""
    told = (
        {"band": BAND, **{side: head.settings[side] for side in ("low", "high")}}
        if head.activation == "identity"
        else {}
    )
    return {**(told or {"temperature": head.temperature}), "fitted_on": "out-of-fold training items"}


def measure(probabilities: Any, targets: Any, multilabel: bool = False) -> dict[str, Any]:
    """Expected calibration error, log loss and the bins that both can be read from: plain JSON."""
    p, t = checked(probabilities, targets, multilabel)
    stated, true = (p.ravel(), t.ravel()) if multilabel else (p.max(1), hits(p, t))
    bins = reliability(stated, true)
    return {"ece": calibration_error(bins), "log_loss": float(item_losses(p, t).mean()), "bins": bins}


def reliability(stated: NDArray[Any], true: NDArray[np.bool_]) -> list[dict[str, float | int]]:
    """Stated beside observed share, in bins of equal mass, each with its Wilson interval."""
    count = min(BINS, max(1, len(stated) // BIN_ITEMS))
    edges = np.unique(np.quantile(stated, np.arange(1, count) / count, method="higher"))
    bin_of = np.searchsorted(edges, stated, "right")
    n = np.bincount(bin_of)
    said = np.bincount(bin_of, weights=stated)
    seen = np.bincount(bin_of, weights=true)
    low, high = wilson(seen, n)
    return [
        {
            "confidence": float(said[b] / n[b]),
            "accuracy": float(seen[b] / n[b]),
            "low": float(low[b]),
            "high": float(high[b]),
            "n": int(n[b]),
        }
        for b in np.flatnonzero(n)
    ]


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Debiased expected calibration error of reliability bins."""
    total = sum(b["n"] for b in bins)
    return max(0.0, sum(b["n"] / total * _debiased(b["accuracy"] - b["confidence"], b) for b in bins))


def _debiased(gap: float, b: dict[str, Any]) -> float:
    sigma = sqrt(max(b["confidence"] * (1 - b["confidence"]), 1e-12) / b["n"])
    u = abs(gap) / sigma
    expected = sigma * (sqrt(2 / pi) * exp(-u * u / 2) + u * erf(u / sqrt(2)))  # E|Normal(gap, sigma)|
    return 2 * abs(gap) - expected
