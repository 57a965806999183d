"""Logistic regression on sparse features such as n-grams; its strength by cross-validation.

    min_W,b  mean_i loss(y_i, W^T x_i + b) + l2/2 ||W||^2         x: raw features, rows of about length 1 (b is free)

In scikit-learn's words C = 1 / (l2 N) (2 / (l2 N) for two classes, where one column stands for two). The strengths
1 / (C N) are walked from C = 1.5 for each class, each starting where the last one ended, on as many of the folds
as hold JUDGED items, and the walk ends when their log loss has risen. Then every fold is solved at that strength,
and the whole from the mean of the folds. No fold's model ever begins at one that has seen the fold.

With many classes and texts a model would take minutes: it is given WORK, every model alike and from the same start, and
what stops early is smooth for that reason, too. Two strengths are tried then.

Class weights as in `logistic.py`. On dense features it is `logistic` itself, which standardises them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from topwork import settings
from topwork.adaptation.probe._given import CLASSES, Given, Goals, check
from topwork.adaptation.probe.logistic import IMBALANCE, Logistic, check_options, imbalance
from topwork.errors import BadData
from topwork.nn.log_loss import doubt_of, log_priors, losses
from topwork.nn.sparse_regression import PASSES, Group, logits, minimise, moments
from topwork.types import Head, Probe

COSTS = (1.0, 3.0, 10.0, 30.0, 100.0)  # times START
STRONGER = (0.3, 0.1, 0.03)  # where the first of them was best
START = 1.5  # C where the walk begins, for every class there is: each has the fewer items, the more there are
JUDGED = 2000  # items that tell strengths apart well enough
RISEN = 1.005  # the walk ends where the held-out log loss is half a percent above its lowest value
ON_THE_WAY, AT_THE_END = 2e-2, 4e-3  # distance to the optimum, relative to the loss or to 0.1 nats
WORK, LEAST_PASSES = 3_000_000_000, 25  # multiply-adds of one model; with many classes it stops before the optimum
LAST_PASSES = 8  # of the model of everything then, from the mean of the others
FEW = (10.0, 30.0)  # C, where passes are counted
COLUMNS, MODELS = 64, 3  # weights of so many models and labels, and of so many models, stand side by side at most
Array = NDArray[Any]  # float32


@dataclass(frozen=True)
class SparseLogistic:
    """Logistic regression with a squared penalty on sparse features as they are."""

    goals: ClassVar[Goals] = CLASSES
    l2: float | None = None  # None: chosen by held-out log loss; higher = smoother
    class_weight: Literal["auto", "none", "balanced"] = "auto"

    def solve(
        self,
        x: Any,
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Walk the path of strengths on some folds, then solve all."""
        if not hasattr(x, "tocsr"):
            found = Logistic(self.l2, self.class_weight).solve(x, targets, folds, classes, sample_weight)
            method = f"sparse_{found.head.method}"
            return dataclasses.replace(found, head=dataclasses.replace(found.head, method=method))
        check_options(self.l2, self.class_weight)
        x = x.tocsr().astype(np.float32, copy=False)
        if not np.isfinite(x.data).all():
            row = int(np.searchsorted(x.indptr, np.flatnonzero(~np.isfinite(x.data))[0], "right")) - 1
            raise BadData(f"Row {row} of the features holds NaN or infinity. Expected finite numbers; leave it out")
        given = check(np.zeros((x.shape[0], 1), np.float32), targets, folds, classes, sample_weight)
        problem = Problem.of(x, given, balanced=self.class_weight == "balanced")
        best, tried = problem.choose(self.l2)
        note = ", classes weighted alike" if self.class_weight == "balanced" else ""
        worth = problem.passes == PASSES and not given.multilabel and imbalance(given) > IMBALANCE
        if self.class_weight == "auto" and worth:
            rival = Problem.of(x, given, balanced=True)
            other, _ = rival.walk([best.l2], best.w)
            if other.judged < best.judged:
                note, problem, best = f", classes weighted alike (log loss {best.judged:.3f} without)", rival, other
            else:
                note = f", classes not weighted (log loss {other.judged:.3f} if they were)"
        held_out, weight, bias = problem.solve(best)
        loss = float(np.average(losses(held_out, given.targets), weights=given.weight))
        chosen = f"l2 = {best.l2:.2g} of {tried} values by" if self.l2 is None else f"l2 = {best.l2:.2g} as told,"
        spec = f"sparse_logistic(l2={best.l2:.2g}" + (", class_weight='balanced')" if problem.balanced else ")")
        return Probe(
            Head("linear", {"weight": weight, "bias": bias}, given.activation, method=spec),
            held_out,
            loss,
            f"{chosen} {given.n_folds}-fold log loss {loss:.3f}{note}",
        )


@dataclass(frozen=True, eq=False)
class Walked:
    """The folds that judged, at one strength."""

    l2: float
    w: Array  # (K, D + 1, C)
    judged: float  # their log loss, with an item's worth of doubt


@dataclass(frozen=True, eq=False)
class Problem:
    """The regressions of one data set under one way to weight the classes; the model of everything comes last."""

    given: Given
    group: Group
    balanced: bool
    start: Array  # (F + 1, 1, C) biases: log priors
    correction: NDArray[np.float64]  # (F + 1, C) what class weights add to the biases

    @classmethod
    def of(cls, x: Any, given: Given, balanced: bool) -> Problem:
        """One model per fold left out, and the last on all items."""
        training = given.training()  # (K, N)
        counts, totals = given.counts(), training.sum(axis=1)  # (K, C), (K,)
        priors = log_priors(counts, totals, given.multilabel)
        there = (counts > 0) & (counts < totals[:, None]) if given.multilabel else counts > 0
        factors, correction = _factors(given, counts, totals, balanced)
        start, targets = priors + correction, given.targets
        if _is_binary(given):  # one column for two classes: z = z_1 - z_0
            targets, there = (targets == 1)[:, None], there.all(axis=1, keepdims=True)
            factors = np.stack([factors[1][:, :1], factors[1][:, 1:]])
            start = start[:, 1:] - start[:, :1]
        weights = (training / totals[:, None]).astype(np.float32)
        group = Group(x, targets, weights, factors.astype(np.float32), np.asarray(there), *moments(x))
        return cls(given, group, balanced, start.astype(np.float32)[:, None], correction)

    def choose(self, l2: float | None) -> tuple[Walked, int]:
        """The best strength: from the middle towards weaker ones, and towards stronger ones where that was no use."""
        if l2 is not None:
            return self.walk([l2])
        if self.passes < PASSES:
            with ThreadPoolExecutor(settings.threads().value) as pool:
                tries = list(pool.map(lambda cost: self.walk([1 / (cost * len(self.given.x))])[0], FEW))
            return min(tries, key=lambda one: one.judged), len(FEW)
        weaker, stronger = (
            [1 / (cost * START * self.given.classes * len(self.given.x)) for cost in costs]
            for costs in (COSTS, STRONGER)
        )
        best, tried = self.walk(weaker)
        if best.l2 == weaker[0]:
            other, more = self.walk(stronger)
            best, tried = (other if other.judged < best.judged else best), tried + more
        return best, tried

    def walk(self, strengths: Sequence[float], start: Array | None = None) -> tuple[Walked, int]:
        """The best of the strengths for the first folds, and how many were tried."""
        folds = self._judges()
        asked = np.isin(self.given.folds, folds)
        w, best, tried = self._begin(folds) if start is None else start, None, 0
        for l2 in strengths:
            tried += 1
            w = self._minimise(folds, w, l2, ON_THE_WAY)
            z = self._asked(folds, w)[asked]
            loss = losses(z, self.given.targets[asked], doubt_of(len(z)))
            judged = float(np.average(loss, weights=self.given.weight[asked]))
            if best is None or judged < best.judged:
                best = Walked(l2, w, judged)
            if judged > RISEN * best.judged:
                break
        assert best is not None
        return best, tried

    def solve(self, walked: Walked) -> tuple[Array, Array, Array]:
        """Held-out logits (N, C), and weight (D, C) and bias (C,) of the model of everything."""
        judges, F = self._judges(), self.given.n_folds
        folds = np.arange(F)
        w = self._begin(folds)
        w[judges] = walked.w
        left = folds if self.passes == PASSES else np.setdiff1d(folds, judges)  # those have had their passes
        w[left] = self._minimise(left, w[left], walked.l2, AT_THE_END) if len(left) else w[left]
        held_out = self._asked(folds, w)
        more = self.passes if self.passes == PASSES else LAST_PASSES
        w = self._minimise(np.array([F]), w.mean(axis=0, keepdims=True), walked.l2, AT_THE_END, more)
        w = self._corrected(np.array([F]), w)[0]
        return held_out, w[:-1], w[-1] - self.group.mean @ w[:-1]

    @property
    def passes(self) -> int:
        """Passes over the items that a model is given, at most."""
        return int(np.clip(WORK // max(1, self.group.x.nnz * self.start.shape[2]), LEAST_PASSES, PASSES))

    def _judges(self) -> NDArray[np.intp]:
        """The first folds that hold enough items between them."""
        held = np.cumsum(np.bincount(self.given.folds))
        return np.arange(min(len(held), int(np.searchsorted(held, JUDGED)) + 1))

    def _begin(self, models: NDArray[Any]) -> Array:
        w = np.zeros((len(models), self.group.x.shape[1] + 1, self.start.shape[2]), np.float32)
        w[:, -1:] = self.start[models]
        return w

    def _minimise(self, models: NDArray[Any], w: Array, l2: float, tolerance: float, most: int | None = None) -> Array:
        """These models from these starts: some side by side, such groups in threads; the groups are always the same."""
        strength = l2 / 2 if _is_binary(self.given) else l2
        per_turn = int(np.clip(COLUMNS // w.shape[2], 1, MODELS))
        turns = [slice(first, first + per_turn) for first in range(0, len(models), per_turn)]

        def solve(turn: slice) -> Array:
            return minimise(self.group.only(models[turn]), w[turn], strength, tolerance, most or self.passes)[0]

        if len(turns) == 1:
            return solve(turns[0])
        with ThreadPoolExecutor(settings.threads().value) as pool:
            return np.concatenate(list(pool.map(solve, turns)))

    def _asked(self, models: NDArray[Any], w: Array) -> Array:
        """Logits (N, C): those of the model that has not seen the item; zeros where none of these is it."""
        z = np.zeros((len(self.given.x), self.given.classes), np.float32)
        for model, one in zip(models, self._corrected(models, w), strict=True):
            rows = np.flatnonzero(self.given.folds == model)
            z[rows] = logits(self.group.x[rows], self.group.mean, one[None])[:, 0]
        return z

    def _corrected(self, models: NDArray[Any], w: Array) -> Array:
        """Two columns for two classes, biases without class weights, and one for a class that was never seen."""
        if _is_binary(self.given):
            w = np.concatenate([-w / 2, w / 2], axis=2)
        w = w.copy()
        w[:, -1] -= self.correction[models].astype(np.float32)
        if not self.given.multilabel:
            for one, seen in zip(w, self.given.counts()[models] > 0, strict=True):
                if not seen.all():
                    z = logits(self.group.x, self.group.mean, one[None])[:, 0, seen].astype(np.float64)
                    top = z.max(axis=1)
                    partition = np.log(np.exp(z - top[:, None]).sum(axis=1)) + top
                    one[:-1, ~seen] = 0
                    one[-1, ~seen] = partition.mean() - np.log(2 * len(z) + 1)
        return w


def _is_binary(given: Given) -> bool:
    return not given.multilabel and given.classes == 2


def _factors(
    given: Given, counts: NDArray[np.float64], totals: NDArray[np.float64], balanced: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Item weights (2, K, C) that make classes alike, and the shift (K, C) of the logits that they cause."""
    if not balanced:
        return np.ones((2, *counts.shape)), np.zeros_like(counts)
    seen = np.maximum(counts, 1e-12)
    if given.multilabel:
        rest = np.maximum(totals[:, None] - counts, 1e-12)
        both = np.stack([totals[:, None] / rest / 2, totals[:, None] / seen / 2])
        return both, np.log(rest / seen)
    factor = totals[:, None] / (np.maximum((counts > 0).sum(axis=1, keepdims=True), 1) * seen)
    factor = np.where(counts > 0, factor, 1.0)
    return np.stack([factor, factor]), np.log(factor)
