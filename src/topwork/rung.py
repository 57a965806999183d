"""A step that was taken: what it says of every item, and whether it pays over another one.

What it says of training items is out of fold, and the choice between steps is made on that alone; held-out items only
ever measure. A step pays if, paired item by item, it gets more of them right (exact McNemar test, one-sided, 5 %), or
at least as many and more surely (sign-flip test on the log losses, one-sided, 5 %). Where targets are numbers: if its
R^2 is higher, or no lower and its absolute errors are smaller, by the same tests.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import probe as probes
from topwork.evaluation.calibrate import activate, band, cross_fitted
from topwork.evaluation.paired import compare_hits, compare_losses, compare_metric
from topwork.evaluation.score import score, score_repeats, widening
from topwork.ground import Ground, Rows
from topwork.nn.heads import probabilities
from topwork.nn.log_loss import fit_temperature
from topwork.planning import Plan
from topwork.tasks import checked, item_losses, main_metric
from topwork.tasks.classification import hits
from topwork.types import Backbone, Features, Metric, Predictions, Probe, Step, Watch

LEVEL = 0.05  # of the one-sided tests


@dataclass(frozen=True, eq=False)
class Rung:
    """One step that was taken."""

    plan: Plan
    backbone: Backbone
    features: Features  # of every row, training and held out
    probe: Probe  # its head has the temperature of its out-of-fold logits
    candidates: tuple[Probe, ...]
    rows: Rows  # training rows that have features, in the order of probe.held_out
    held: Rows  # held-out rows that have features
    seconds: float
    frozen: Rung | None = None  # of a tuned step: the probe that it began from
    asked: NDArray[np.float32] | None = None  # its logits of the held-out rows, where it was not trained on everything
    facts: Mapping[str, Any] = field(default_factory=dict)  # of a tuned step: what was trained, and what was proven

    @property
    def spec(self) -> str:
        """Backbone and head in one line."""
        return f"{self.plan.backbone} + {self.probe.head.method}"

    def x(self, rows: Rows) -> NDArray[np.float32]:
        """Features (N, D) of rows of the dataset; rows that lie side by side are a view, not a copy."""
        at = np.searchsorted(self.features.rows, rows)
        if len(at) and at[-1] - at[0] == len(at) - 1 and (np.diff(at) == 1).all():
            return self.features.x[at[0] : at[-1] + 1]
        return self.features.x[at]


@dataclass(frozen=True, eq=False)
class Climb:
    """The way up: all rungs, what they were worth, and the one that is kept."""

    rungs: tuple[Rung, ...]
    steps: tuple[Step, ...]
    best: Rung


def solve(ground: Ground, one: Plan, backbone: Backbone, features: Features, began: float, watch: Watch) -> Rung:
    """Solve the head on the training rows and give it the temperature of its out-of-fold logits."""
    rows, held = (wanted[np.isin(wanted, features.rows)] for wanted in (ground.train, ground.held))
    rung = Rung(one, backbone, features, None, (), rows, held, 0.0)  # type: ignore[arg-type]
    y, labels = ground.dataset.targets()[rows], len(ground.dataset.labels)
    best, candidates = probes.choose(
        rung.x(rows), y, ground.folds[rows], labels, methods=one.methods, progress=watch.progress
    )
    temperature = fit_temperature(best.held_out, y)
    settings = {**best.head.settings, **band(best.held_out, y)}
    best = dataclasses.replace(best, head=dataclasses.replace(best.head, temperature=temperature, settings=settings))
    return dataclasses.replace(rung, probe=best, candidates=candidates, seconds=time.monotonic() - began)


def out_of_fold(ground: Ground, rung: Rung) -> Predictions:
    """What a step says of its training items, each asked of a head that has not seen its fold."""
    y, dataset = ground.dataset.targets()[rung.rows], ground.dataset
    return ground.predictions(
        rung.rows, cross_fitted(rung.probe.held_out, y, ground.folds[rung.rows], dataset.activation)
    )


def held_out(ground: Ground, rung: Rung) -> Predictions:
    """What a step says of the held-out items."""
    head = rung.probe.head
    if rung.asked is not None:
        return ground.predictions(rung.held, activate(rung.asked, head.activation, head.temperature))
    return ground.predictions(rung.held, probabilities(head, rung.x(rung.held)))


def metrics_of(ground: Ground, rung: Rung) -> Mapping[str, Metric]:
    """How good a step is: on what was held out, else out of fold."""
    if len(rung.held):
        return score(held_out(ground, rung))
    return score_repeats([out_of_fold(ground, rung)], [ground.folds[rung.rows]])


def compare(ground: Ground, best: Rung, new: Rung, metric: str = "auto") -> tuple[bool, str, dict[str, Any]]:
    """Whether a step pays over the best one so far, and why, in words and in numbers."""
    sides = [(rung, out_of_fold(ground, rung)) for rung in (best, new)]
    common = np.intersect1d(best.rows, new.rows)
    (p, y), (q, _) = (
        checked(said.probabilities[at], said.targets[at], said.multilabel)
        for rung, said in sides
        for at in [np.isin(rung.rows, common)]
    )
    first, second = (ground.predictions(common, x) for x in (p, q))
    widen = widening([second], [ground.folds[common]])
    metric = main_metric(y) if metric == "auto" else metric
    if metric == "accuracy":
        right = compare_hits(hits(p, y), hits(q, y), widen)
    else:
        right = compare_metric(first, second, metric, widen)
    measure = "absolute error" if ground.dataset.numeric else "log loss"
    loss = compare_losses(item_losses(p, y), item_losses(q, y), widen, measure=measure)
    words = right.over(best.plan.name)
    surer = right.difference >= 0 and loss.difference > 0 and loss.p_value / 2 < LEVEL
    gain = {"over": best.plan.name, **{k: getattr(right, k) for k in ("difference", "low", "high", "p_value")},
            "surer": surer, "metric": metric}  # fmt: skip
    if right.difference > 0 and right.p_value / 2 < LEVEL:
        return True, words, gain
    if surer:
        return True, f"{words}, and {'closer' if ground.dataset.numeric else 'surer'}: {loss.over()}", gain
    return False, f"{words}: does not pay", gain
