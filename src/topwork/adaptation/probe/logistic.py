"""Logistic regression: multinomial, or one label against the rest; its strength by cross-validation.

    min_W,b  mean_i loss(y_i, W z_i + b) + l2/2 ||W||^2         z: standardised features (never the bias)

In scikit-learn's words C = 1 / (l2 N) on features standardised as in `nn.principal` (2 / (l2 N) for two classes, where
one column stands for two; 1 / (l2 N) again for each label of a multi-label task). The strengths are walked from strong
to weak, each starting where the last one ended, all folds and the final fit at once (`nn.softmax_regression`), and the
walk ends when the held-out log loss has risen clearly. Standardisation uses all rows, no labels.

Which strength. The lowest held-out log loss asks a strength for two things, a direction and a scale; the scale can be
had from a temperature afterwards. With many classes and few items of each the two part: logits of the best direction
are too small, and a weaker penalty is bought only to stretch them. So the neighbours of the chosen strength on the path
are judged at their best temperatures, and where one leads clearly (`_judged`) it takes the place and the head has its
temperature. Only the neighbours: over the whole path noise wins when labels are few. Test accuracy / log loss of the
lowest loss alone -> with this, means over draws (2026-11-21): banking77 10 per class 84.75 / 0.553 -> 84.80 / 0.548,
all 92.65 / 0.270 -> 92.78 / 0.266; trec 50 per class 70.06 / 0.836 -> 70.18 / 0.832; 13 other sets: the same choice.

Class weights. `balanced` counts every class alike while solving, n / (C n_c), and then takes the weights back out of
the bias (z_c - log weight_c, King and Zeng, 2001), so that probabilities stay those of the data as it comes. `none` is
the plain likelihood. `auto`: `none`, and where the rarest class has less than a third of the items of the most frequent
one also `balanced`, at strengths around the chosen one; the lower held-out log loss wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import CLASSES, Given, Goals, check
from topwork.adaptation.probe._judged import first_of_the_best, judge
from topwork.errors import BadSetting
from topwork.nn.log_loss import doubt_of, fit_temperature, log_priors, losses
from topwork.nn.principal import Principal, principal
from topwork.nn.softmax_regression import Stack, minimise
from topwork.types import Head, Probe

STRENGTHS = tuple(10 ** (e / 2) for e in range(2, -11, -1))  # 10 ... 0.00001
RISEN = 1.02  # the walk ends where the held-out log loss is 2 % above its lowest value
IMBALANCE = 3.0  # most frequent / rarest class
ON_THE_WAY = 1e-4  # relative distance to the optimum at which a strength is judged
AT_THE_END = 1e-7  # and for what is kept
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """Logistic regression with a squared penalty on standardised features."""

    goals: ClassVar[Goals] = CLASSES
    l2: float | None = None  # None: chosen by held-out log loss; higher = smoother
    class_weight: Literal["auto", "none", "balanced"] = "auto"

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Walk the path of strengths."""
        check_options(self.l2, self.class_weight)
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        basis = principal(given.x, given.weight if given.weighted else None)
        problem = Problem.of(given, basis, balanced=self.class_weight == "balanced")
        best, near, tried = problem.walk(STRENGTHS if self.l2 is None else (self.l2,))
        note = ", classes weighted alike" if self.class_weight == "balanced" else ""
        if self.class_weight == "auto" and not given.multilabel and imbalance(given) > IMBALANCE:
            other_problem = Problem.of(given, basis, balanced=True)
            around = tuple(best.l2 * f for f in (10**0.5, 1, 10**-0.5)) if self.l2 is None else (self.l2,)
            other, near_other, _ = other_problem.walk(around)
            if other.judged < best.judged:
                note = f", classes weighted alike (log loss {best.loss:.3f} without)"
                problem, best, near = other_problem, other, near_other
            else:
                note = f", classes not weighted (log loss {other.loss:.3f} if they were)"
        best, moved = problem.directed(best, near)
        chosen = f"l2 = {best.l2:.2g} of {tried} values by" if self.l2 is None else f"l2 = {best.l2:.2g} as told,"
        best = problem.solve(best.w, best.l2, AT_THE_END)
        temperature = fit_temperature(best.held_out, given.targets) if moved else 1.0
        loss = problem.loss(best.held_out / temperature) if moved else best.loss
        at = f" at temperature {temperature:.2g}" if moved else ""
        weight, bias = basis.head(problem.corrected(best.w)[-1])
        spec = f"logistic(l2={best.l2:.2g}" + (", class_weight='balanced')" if problem.balanced else ")")
        return Probe(
            Head("linear", {"weight": weight, "bias": bias}, given.activation, temperature, spec),
            best.held_out,
            loss,
            f"{chosen} {given.n_folds}-fold log loss {loss:.3f}{at}{note}",
        )


@dataclass(frozen=True, eq=False)
class Solved:
    """All models at one strength."""

    l2: float
    w: Array  # (F + 1, C, R)
    held_out: NDArray[np.float32]  # (N, C)
    loss: float  # held out
    judged: float  # the same with an item's worth of doubt


@dataclass(frozen=True, eq=False)
class Problem:
    """The stacked regressions of one data set under one way to weight the classes."""

    given: Given
    stack: Stack
    balanced: bool
    start: Array  # (F + 1, C, R)
    correction: Array  # (F + 1, C) what class weights add to the logits, and what absent classes have instead

    @classmethod
    def of(cls, given: Given, basis: Principal, balanced: bool) -> Problem:
        """One model per fold left out, and the last on all items."""
        training = given.training()  # (K, N)
        counts, totals = given.counts(), training.sum(axis=1)  # (K, C), (K,)
        priors = log_priors(counts, totals, given.multilabel)
        present = (counts > 0) & (counts < totals[:, None]) if given.multilabel else counts > 0
        correction = np.zeros_like(priors)
        weights = (training / totals[:, None])[:, None]  # (K, 1, N)
        if balanced:
            weights, correction = _balance(given, weights, counts, totals)
        start = np.zeros((*priors.shape, basis.scores.shape[1]))
        start[:, :, -1] = priors + correction
        stack = Stack(basis.scores, given.targets, weights.astype(np.float32), present, basis.variances)
        return cls(given, stack, balanced, start, correction)

    def walk(self, strengths: tuple[float, ...]) -> tuple[Solved, list[Solved], int]:
        """The strength with the lowest held-out log loss, its neighbours on the path, and how many were tried."""
        best, near, last, tried = None, [], None, 0
        for l2 in strengths:
            tried += 1
            solved = self.solve(self.start if last is None else last.w, l2, ON_THE_WAY)
            if best is None or solved.judged < best.judged:
                best, near = solved, [] if last is None else [last]
            elif last is best:
                near.append(solved)
            last = solved
            if solved.judged > RISEN * best.judged:
                break
        assert best is not None
        return best, near, tried

    def directed(self, best: Solved, near: list[Solved]) -> tuple[Solved, bool]:
        """The best, or a neighbour that leads clearly when both have their temperatures; and whether it is one."""
        if not near:
            return best, False
        both = [best, *near]
        at = first_of_the_best([judge(one.held_out, self.given.targets) * self.given.weight for one in both])
        return both[at], at > 0

    def solve(self, start: Array, l2: float, tolerance: float) -> Solved:
        """All models at one strength, and what they say about the items they have not seen."""
        w, _ = minimise(self.stack, start, l2, tolerance)
        z = np.empty((len(self.given.x), self.given.classes), np.float32)
        heads = self.corrected(w)[:-1]
        for rows in self.stack.blocks():
            z[rows] = self.stack.logits(heads, rows)[self.given.folds[rows], :, np.arange(rows.stop - rows.start)]
        return Solved(l2, w, z, self.loss(z), self.loss(z, doubt_of(len(z))))

    def loss(self, z: NDArray[np.float32], doubt: float = 0.0) -> float:
        """Weighted log loss of logits (N, C)."""
        return float(np.average(losses(z, self.given.targets, doubt), weights=self.given.weight))

    def corrected(self, w: Array) -> Array:
        """Biases without class weights; a class that a model has never seen gets its smoothed frequency."""
        w = w.copy()
        w[:, :, -1] -= self.correction
        if not self.given.multilabel:
            for one, there in zip(w, self.stack.present, strict=True):
                if not there.all():
                    seen = np.mean([_log_partition(one[there], self.stack.scores[r]) for r in self.stack.blocks()])
                    one[~there, -1] = seen - np.log(2 * len(self.given.x) + 1)
        return w


def _log_partition(w: Array, scores: NDArray[np.float32]) -> float:
    """Mean log sum of exponentials over items."""
    return float(np.logaddexp.reduce(scores @ w.T.astype(np.float32), axis=1).mean())


def check_options(l2: float | None, class_weight: str) -> None:
    """Refuse options that mean nothing."""
    if class_weight not in ("auto", "none", "balanced"):
        raise BadSetting(f"class_weight={class_weight!r} is none of: auto, none, balanced")
    if l2 is not None and not (np.isfinite(l2) and l2 > 0):
        raise BadSetting(f"l2={l2} must be a number above zero; separable classes have no finite optimum without it")


def imbalance(given: Given) -> float:
    """Most frequent over rarest class, of those that are there."""
    counts = given.counts()[-1]
    return float(counts.max() / counts[counts > 0].min())


def _balance(given: Given, weights: Array, counts: Array, totals: Array) -> tuple[Array, Array]:
    """Item weights (K, 1 or C, N) that make classes alike, and the shift (K, C) of the logits that they cause."""
    seen = np.maximum(counts, 1e-12)
    if given.multilabel:
        rest = np.maximum(totals[:, None] - counts, 1e-12)
        factor = np.where(
            given.targets.T, (totals[:, None] / seen / 2)[:, :, None], (totals[:, None] / rest / 2)[:, :, None]
        )
        return weights * factor, np.log(rest / seen)
    factor = totals[:, None] / (np.maximum((counts > 0).sum(axis=1, keepdims=True), 1) * seen)  # (K, C)
    return weights * factor[:, given.targets][:, None], np.where(counts > 0, np.log(factor), 0.0)
