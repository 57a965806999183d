"""Do 95 % intervals cover the truth 95 % of the time? Simulated for every kind of interval that Topwork prints.

    python benchmarks/coverage.py [--simulations 1000] [--fits 200]

Truth: the same metric on 400,000 items. Cross-validation, on 4,000 new items: the average model trained on all items
but a fold (what is estimated), and this very model, trained on all items (what is meant; better than estimated, visibly
so in log loss). `below` and `above`: how often the truth lies below or above the interval. The rows named "bootstrap"
show the percentile bootstrap (300 resamples) that Topwork does not use. Target: 93 to 97 %.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from topwork.evaluation.calibrate import activate
from topwork.evaluation.checks import Context
from topwork.evaluation.checks.label_curve import LabelCurve
from topwork.evaluation.intervals import overlap, wilson
from topwork.evaluation.paired import compare_hits, compare_losses, compare_metric
from topwork.evaluation.quick_ridge import ridges
from topwork.evaluation.score import per_class, score, score_repeats
from topwork.tasks import statistics
from topwork.types import Predictions

TRUTH = 400_000
Row = tuple[str, float, float, float]  # interval, truth, low, high

# items, classes, distance of the classes, share of class c proportional to (c + 1) ** skew
SETTINGS = [
    (40, 2, 1.5, 0), (40, 2, 3.0, 0), (100, 2, 1.5, 2.5), (100, 5, 2.5, 1), (100, 10, 4.0, 0),
    (200, 20, 3.0, 0.5), (400, 5, 3.5, 1), (1000, 3, 4.0, 0),
]  # fmt: skip
# items, tail of the numbers, slope, noise
NUMBERS = [
    (20, 0.0, 0.9, 0.3), (50, 0.0, 0.9, 0.3), (200, 0.0, 0.3, 0.3), (1000, 0.0, 0.9, 0.1), (50, 0.5, 0.9, 0.2),
    (200, 0.5, 0.9, 0.2), (50, 1.0, 0.9, 0.4), (200, 1.0, 0.9, 0.4), (1000, 1.0, 0.5, 0.4),
]  # fmt: skip
# items, features, classes, distance, 1 / L2 strength, folds, repeats
TRAININGS = [
    (60, 20, 2, 2.0, 1.0, 5, 3), (60, 100, 5, 4.0, 0.1, 5, 3), (100, 50, 2, 2.0, 0.1, 5, 5),
    (100, 10, 2, 2.0, 10.0, 10, 2), (400, 50, 5, 3.0, 0.1, 5, 1),
]  # fmt: skip


# items, features, classes, distance: the first eight were looked at while `label_curve.DOUBT` was chosen (1.3, then
# 1.5), the last four were first run with it fixed
CURVES = [
    (100, 64, 3, 3.0), (400, 64, 5, 3.0), (1000, 128, 10, 4.0), (300, 100, 2, 1.5),
    (150, 30, 2, 2.0), (250, 100, 10, 4.5), (600, 40, 4, 2.0), (800, 300, 3, 2.5),
    (200, 50, 4, 3.0), (500, 120, 6, 3.0), (1200, 60, 3, 1.5), (350, 20, 5, 2.5),
]  # fmt: skip


def draw(rng: np.random.Generator, n: int, C: int, distance: float, skew: float) -> Predictions:
    """Softmax of noisy scores, overconfident by a factor of 1.5."""
    share = np.arange(1, C + 1) ** float(skew)
    share /= share.sum()
    t = rng.choice(C, n, p=share)
    z = rng.standard_normal((n, C)) + distance * np.eye(C)[t] + np.log(share) / distance
    return Predictions(activate(1.5 * z).astype(np.float32), t, tuple(map(str, range(C))))


def draw_several(rng: np.random.Generator, n: int, C: int, distance: float, skew: float) -> Predictions:
    """Several labels per item, each with a common part."""
    share = 0.5 * np.arange(1, C + 1) ** -float(skew)
    t = rng.random((n, C)) < share
    z = rng.standard_normal((n, C)) + 0.5 * rng.standard_normal((n, 1)) + distance * t - distance / 2
    return Predictions(activate(z, "sigmoid").astype(np.float32), t, tuple(map(str, range(C))), multilabel=True)


def draw_numbers(rng: np.random.Generator, n: int, tail: float, slope: float, noise: float) -> Predictions:
    """Numbers with a tail (0: normal; 0.5, 1: log-normal), answers that lean by `slope`, errors that grow with them."""
    y = np.exp(tail * rng.standard_normal(n)) if tail else 3 + rng.standard_normal(n)
    z = slope * y + noise * (1 + 0.3 * np.abs(y)) * rng.standard_normal(n)
    return Predictions(z[:, None].astype(np.float64), y, ("number",))


def paired_numbers(n: int, tail: float, noise: float, sims: int) -> Iterator[Row]:
    """Difference of R^2 of two models that are equally good."""
    rng = np.random.default_rng(6)
    for _ in range(sims):
        one = draw_numbers(rng, n, tail, 1.0, noise)
        other = one.targets + noise * (1 + 0.3 * np.abs(one.targets)) * rng.standard_normal(n)
        second = Predictions(other[:, None], one.targets, one.labels)
        c = compare_metric(one, second, "r2")
        yield "difference of R^2", 0.0, c.low, c.high
        yield "difference of R^2, no difference", 0.0, float(c.p_value < 0.05), 1.0


def held_out(setting: tuple[Any, ...], make: Callable[..., Predictions], sims: int) -> Iterator[Row]:
    """Metrics of one held-out set."""
    rng = np.random.default_rng(1)
    n, *rest = setting
    big = make(rng, TRUTH, *rest)
    truth = {name: s.value for name, s in statistics(big.probabilities, big.targets, big.multilabel).items()}
    recall = {row["label"]: row["recall"]["value"] for row in per_class(big)}
    for _ in range(sims):
        few = make(rng, n, *rest)
        for name, m in score(few).items():
            yield name, truth[name], m.low, m.high
        if few.numeric:
            continue
        first = per_class(few)[0]
        yield "recall of one class", recall[first["label"]], first["recall"]["low"], first["recall"]["high"]


def bootstrap(setting: tuple[Any, ...], sims: int) -> Iterator[Row]:
    """What is not used: percentiles of resampled values."""
    rng = np.random.default_rng(1)
    n, *rest = setting
    big = draw(rng, TRUTH, *rest)
    truth = {name: s.value for name, s in statistics(big.probabilities, big.targets).items()}
    for _ in range(sims):
        few = draw(rng, n, *rest)
        many = defaultdict(list)
        for _ in range(300):
            i = rng.integers(0, n, n)
            for name, s in statistics(few.probabilities[i], few.targets[i]).items():
                many[name].append(s.value)
        for name, values in many.items():
            yield f"bootstrap {name}", truth[name], *np.quantile(values, [0.025, 0.975])


def paired(n: int, only_first: float, only_second: float, sims: int) -> Iterator[Row]:
    """Difference of accuracy and of log loss of two models on the same items."""
    rng = np.random.default_rng(2)
    for _ in range(sims):
        u = rng.random(n)
        both = rng.random(n) < 0.8
        first = (u < only_first) | ((u > only_first + only_second) & both)
        second = ((u >= only_first) & (u < only_first + only_second)) | ((u > only_first + only_second) & both)
        c = compare_hits(first, second)
        yield "difference of accuracy", only_second - only_first, c.low, c.high
        if only_first == only_second:
            yield "McNemar, no difference", 0.0, float(c.p_value < 0.05), 1.0
        loss = rng.exponential(0.3, n), rng.exponential(0.2, n) + rng.exponential(0.1, n)
        c = compare_losses(*loss)
        yield "difference of log loss", 0.0, c.low, c.high


def logistic(x: np.ndarray, y: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    """scikit-learn's, with every class in the output."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)
    return model.predict_proba


def folds_of(y: np.ndarray, K: int, rng: np.random.Generator) -> np.ndarray:
    """Stratified folds."""
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    out = np.empty(len(y), int)
    out[order] = np.arange(len(y)) % K
    return out


def cross_validation(setting: tuple[Any, ...], fits: int, train: Callable[..., Any] = logistic) -> Iterator[Row]:
    """Repeated K-fold against the accuracy of models trained on all items."""
    n, D, C, distance, strength, K, R = setting
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((C, D)) * distance / D**0.5
    asked = rng.integers(0, C, 4000)
    asked_x = centres[asked] + rng.standard_normal((4000, D))
    runs, sized = [], defaultdict(list)
    for _ in range(fits):
        y = rng.permutation(np.arange(n) % C)
        x = centres[y] + rng.standard_normal((n, D))
        folds = [folds_of(y, K, rng) for _ in range(R)]
        repeats = []
        for fold in folds:
            p = np.zeros((n, C), np.float32)
            for k in range(K):
                predict = train(x[fold != k], y[fold != k], strength)
                p[fold == k] = predict(x[fold == k])
                if k == 0 and fold is folds[0]:
                    for name, s in statistics(predict(asked_x), asked).items():
                        sized[name].append(s.value)
            repeats.append(Predictions(p, y, tuple(map(str, range(C)))))
        p = train(x, y, strength)(asked_x)
        runs.append((score_repeats(repeats, folds), statistics(p, asked)))
    for name in ("accuracy", "macro_f1", "log_loss"):
        average = float(np.mean(sized[name]))
        for metrics, own in runs:
            m = metrics[name]
            yield f"cross-validated {name}, average model", average, m.low, m.high
            yield f"cross-validated {name}, this model", own[name].value, m.low, m.high
        for metrics, _ in runs:
            if name == "accuracy":
                yield "Wilson without widening, average model", average, *wilson(metrics[name].value * n, n)


def cross_validated_pair(
    n: int, D: int, distance: float, K: int, fits: int, train: Callable[..., Any] = logistic
) -> Iterator[Row]:
    """Two equally good models, each with its own half of the features, compared out of fold: false alarms."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((2, D)) * distance / D**0.5
    for _ in range(fits):
        y = rng.permutation(np.arange(n) % 2)
        fold, hits = folds_of(y, K, rng), []
        for _ in range(2):
            x, said = centres[y] + rng.standard_normal((n, D)), np.zeros(n)
            for k in range(K):
                said[fold == k] = train(x[fold != k], y[fold != k], 1.0)(x[fold == k]).argmax(1)
            hits.append(said == y)
        accuracy = statistics(np.eye(2)[y], y)["accuracy"]
        for name, widen in (("widened", overlap([accuracy], [fold])), ("not widened", 1.0)):
            c = compare_hits(hits[0], hits[1], widen)
            yield f"out-of-fold difference, {name}", 0.0, c.low, c.high
            yield f"out-of-fold McNemar, {name}", 0.0, float(c.p_value < 0.05), 1.0


def forecast(n: int, D: int, C: int, distance: float, fits: int) -> Iterator[Row]:
    """What twice the labels bring: the label curve's own ridge, trained on twice as many items."""
    rng = np.random.default_rng(4)
    centres = rng.standard_normal((C, D)) * distance / D**0.5
    asked = rng.integers(0, C, 4000)
    asked_x = centres[asked] + rng.standard_normal((4000, D))
    curves, after = [], []
    for _ in range(fits):
        y = rng.integers(0, C, 2 * n)
        x = centres[y] + rng.standard_normal((2 * n, D))
        said = next(ridges(x, y, np.arange(2 * n), np.array([2 * n]), asked_x))
        after.append((said == asked).mean())
        seen = Predictions(np.full((n, C), 1 / C, np.float32), y[:n], tuple(map(str, range(C))))
        context = Context(seen, train_x=x[:n], train_targets=y[:n], train_folds=folds_of(y[:n], 5, rng))
        curves.append(dict(LabelCurve().run(context))["label_curve"]["twice"])
    for curve in curves:
        yield "forecast at twice the labels", float(np.mean(after)), curve["low"], curve["high"]


def report(title: str, rows: Iterator[Row]) -> dict[str, float]:
    """Print and return the coverage of every interval, in %."""
    seen = defaultdict(list)
    for name, truth, low, high in rows:
        seen[name].append((truth < low - 1e-12, truth > high + 1e-12, high - low))
    out = {}
    print(title)
    for name, values in seen.items():
        below, above, width = np.mean(values, axis=0)
        out[name] = 100 * (1 - below - above)
        print(
            f"  {name:48s} {out[name]:5.1f} %   below {100 * below:4.1f}  above {100 * above:4.1f}  width {width:.3f}"
        )
    return out


def main() -> None:
    """Every kind of interval; a summary at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--fits", type=int, default=200)
    options = parser.parse_args()
    began, found = time.perf_counter(), []
    for s in SETTINGS:
        title = f"{s[0]} items, {s[1]} classes at distance {s[2]}, skew {s[3]}"
        found.append(report(title, held_out(s, draw, options.simulations)))
    for s in ((100, 4, 2.0, 0), (300, 8, 2.5, 0.7)):
        found.append(report(f"several labels: {s}", held_out(s, draw_several, options.simulations)))
    for s in NUMBERS:
        title = f"{s[0]} numbers, tail {s[1]}, slope {s[2]}, noise {s[3]}"
        found.append(report(title, held_out(s, draw_numbers, options.simulations)))
    for s in ((50, 0.0, 0.3), (200, 0.5, 0.2), (200, 1.0, 0.3)):
        found.append(report(f"paired numbers: {s}", paired_numbers(*s, options.simulations)))
    for s in ((50, 0.1, 0.1), (100, 0.02, 0.1), (400, 0.05, 0.05), (400, 0.01, 0.2)):
        found.append(report(f"paired: {s}", paired(*s, options.simulations)))
    for s in TRAININGS:
        found.append(report(f"training: {s}", cross_validation(s, options.fits)))
    for s in ((60, 20, 2.0, 5), (200, 50, 2.0, 10)):
        found.append(report(f"pair in training: {s}", cross_validated_pair(*s, 3 * options.fits)))
    for s in CURVES:
        found.append(report(f"label curve: {s}", forecast(*s, options.fits)))
    for s in (SETTINGS[1], SETTINGS[3], SETTINGS[4]):
        report(f"not used, {s}", bootstrap(s, options.fits))
    names = dict.fromkeys(name for one in found for name in one)
    print("\ninterval: mean coverage over the settings, worst, best")
    for name in names:
        values = [one[name] for one in found if name in one]
        verdict = "" if 93 <= np.mean(values) <= 97 else "   outside 93 to 97"
        print(f"  {name:48s} {np.mean(values):5.1f} %   {min(values):5.1f} to {max(values):5.1f}{verdict}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
