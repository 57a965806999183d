"""Accuracy against the number of labels, and what twice as many would bring. Of numbers R^2 in its place.

Every fold in turn is left out; heads are trained on nested, stratified samples of the rest and asked about it. The
samples grow by equal factors up to all of the rest, and a power law is fitted to the errors. To cost less than a second
a head is a ridge on the first principal axes of the cached features (`quick_ridge.py`), not the model's own: its
accuracy may lie a little lower, its slope is what is read. Intervals of the forecast: folds and repeats are drawn again
with replacement, each draw is fitted anew with a random likely power, and the spread is widened for overlapping
training sets and for curves that are not exactly power laws. Simulated they cover 89 to 98 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.evaluation.checks import Context
from topwork.evaluation.intervals import ONE_REPEAT, wilson
from topwork.evaluation.power_law import power_law
from topwork.evaluation.quick_ridge import compress, ridges
from topwork.tasks import is_numeric

Array = NDArray[Any]

DRAWS = 400
FEWEST_POINTS = 4
SPAN = 10  # largest over smallest size: further down a curve follows another law
DOUBT = 1.5  # on top of the spread of the draws, because no curve is exactly a power law; from benchmarks/coverage.py
FLAT = 0.005  # a gain below half a point is called flat


@dataclass(frozen=True)
class LabelCurve:
    """A learning curve with a fitted power law."""

    axes: int = (
        128  # principal axes that the ridge sees, twice as many of n-grams; higher = slower, closer to the model
    )
    sizes: int = 7  # points on the curve, at most
    repeats: int = 2  # orders in which the training items arrive, per fold

    def run(self, context: Context) -> Iterator[tuple[str, Any]]:
        """Yield "label_curve": points, fit, twice, text; nothing without training features."""
        x, y, folds = context.train_x, context.train_targets, context.train_folds
        if x is None or y is None or folds is None:
            return
        if hasattr(x, "tocsr"):  # a ridge on few axes is no measure of a model that reads a hundred thousand columns
            text = "No curve is drawn for n-grams: it would take as many fits as it has points."
            yield "label_curve", {"points": [], "fit": None, "twice": None, "text": text}
            return
        sizes = self._steps(y, folds)
        if len(sizes) < FEWEST_POINTS:
            text = f"{len(y):,} labels are too few for a curve: it needs {FEWEST_POINTS} sizes with each label twice."
            yield "label_curve", {"points": [], "fit": None, "twice": None, "text": text}
            return
        z = x if context.solve else compress(x, self.axes * (1 + hasattr(x, "tocsr")), context.seed)
        curves = [
            (hits, fold)
            for fold in np.unique(folds)
            for repeat in range(self.repeats)
            for hits in [self._curve(z, y, folds == fold, sizes, context, repeat)]
        ]
        told = read(sizes, *zip(*curves, strict=True), labels=len(y), own=context.solve is None, numeric=is_numeric(y))
        yield "label_curve", told

    def _steps(self, y: Array, folds: Array) -> Array:
        """Training sizes that grow by equal factors."""
        most = len(y) - int(np.bincount(np.unique(folds, return_inverse=True)[1]).max())
        classes = 4 if is_numeric(y) else y.shape[1] if y.ndim == 2 else len(np.unique(y))
        least = max(2 * classes, 8, most // SPAN)
        if most < 1.4 * least:
            return np.array([], int)
        count = min(self.sizes, 1 + int(np.log(most / least) / np.log(1.4)))
        return np.unique(np.geomspace(least, most, count).astype(int))

    def _curve(self, z: Array, y: Array, out: Array, sizes: Array, context: Context, repeat: int) -> Array:
        """(sizes, asked) right or wrong after each size; of numbers 1 - e^2 / variance, whose mean is R^2."""
        place = int(np.flatnonzero(out)[0])  # names the fold
        rng = np.random.Generator(np.random.Philox(key=np.array([context.seed, place * 1000 + repeat], np.uint64)))
        rows = np.flatnonzero(~out)
        rows = rows[stratified_order(y[rows], rng)]
        predicts = (context.solve(z[rows[:n]], y[rows[:n]])(z[out]) for n in sizes) if context.solve else None
        said = predicts or ridges(z, y, rows, sizes, z[out])
        if is_numeric(y):
            return np.stack([1 - (s - y[out]) ** 2 / y.var() for s in said])
        return np.stack([(s == y[out]) if y.ndim == 1 else (s == y[out]).all(1) for s in said])


def stratified_order(y: Array, rng: np.random.Generator) -> Array:
    """An order whose every beginning holds the classes in their shares."""
    N = len(y)
    shuffled = rng.permutation(N)
    if y.ndim == 2:
        return shuffled
    _, cls = np.unique(y, return_inverse=True)
    size = np.bincount(cls)
    by_class = shuffled[np.argsort(cls[shuffled], kind="stable")]
    within = np.arange(N) - np.repeat(np.cumsum(size) - size, size)
    due = (within + rng.random(len(size))[cls[by_class]]) / size[cls[by_class]]
    return by_class[np.argsort(due, kind="stable")]


def read(sizes: Array, hits: Any, folds: Any, labels: int, own: bool, numeric: bool = False) -> dict[str, Any]:
    """Points, power law and forecast from the hits (sizes, asked) of every fold and repeat."""
    wrong = np.array([1 - one.mean(1) for one in hits])  # (U, S)
    asked = np.array([one.shape[1] for one in hits], float)  # (U,)
    K = len(set(folds))
    widen = K / max(K - 1, 1) + ONE_REPEAT * K / len(hits)
    n = asked.sum() * K / len(hits) / widen
    error = asked @ wrong / asked.sum()  # (S,)
    rng = np.random.Generator(np.random.Philox(key=len(hits)))
    drawn = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), DRAWS) * asked  # (draws, U)
    drawn = drawn @ wrong / drawn.sum(1, keepdims=True)
    drawn = np.clip(error + (drawn - error) * DOUBT * widen**0.5, 0, None if numeric else 1)
    low, high = 1 - np.quantile(drawn, [0.975, 0.025], axis=0) if numeric else wilson((1 - error) * n, n)
    points = [
        {"labels": int(m), "accuracy": float(1 - e), "low": float(min(lo, 1 - e)), "high": float(max(hi, 1 - e))}
        for m, e, lo, hi in zip(sizes, error, low, high, strict=True)
    ]
    bends = wrong - wrong.mean(1, keepdims=True)  # what is left when a fold as a whole is easy or hard
    noise = float(bends.var(0, ddof=1).mean()) / len(hits) * widen
    (a, b, c), many = power_law(sizes, error[None])[0], power_law(sizes, drawn, max(noise, 1e-9))
    now, then = (a + b * m**-c for m in (labels, 2 * labels))
    now_many, then_many = (many[:, 0] + many[:, 1] * m ** -many[:, 2] for m in (labels, 2.0 * labels))
    ends = 1 - np.quantile(then_many, [0.975, 0.025])
    gains = np.quantile(now_many - then_many, [0.025, 0.975])
    twice = {
        "labels": 2 * labels,
        "accuracy": float(1 - then),
        "low": float(min(ends[0], 1 - then)),
        "high": float(max(ends[1], 1 - then)),
    }
    fit = {"a": float(a), "b": float(b), "c": float(c)}
    text = _words(labels, now - then, min(gains[0], now - then), max(gains[1], now - then), own, numeric)
    gain = {
        "value": float(now - then),
        "low": float(min(gains[0], now - then)),
        "high": float(max(gains[1], now - then)),
    }
    return {"points": points, "fit": fit, "twice": twice, "gain": gain, "text": text}


def _words(labels: int, gain: float, low: float, high: float, own: bool, numeric: bool) -> str:
    how = " (measured with a quick ridge head on the same features)" if own else ""
    points, of = f"{100 * gain:+.1f} points [{100 * low:.1f}, {100 * high:.1f}]", " of accuracy"
    if numeric:
        of = " of R²"
    if high < FLAT:
        return f"The curve is flat: twice the {labels:,} labels would bring {points}, next to nothing{how}."
    unsure = " The forecast is too uncertain to count on." if low <= 0 or high - low > 4 * max(gain, 0.01) else ""
    return f"Twice the {labels:,} labels would bring about {points}{of}{how}.{unsure}"
