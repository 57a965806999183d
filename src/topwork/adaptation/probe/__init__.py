"""Probes: heads solved on frozen, cached features, with no training loop.

solve(x, targets, folds, classes, sample_weight=None) -> Probe        one file per method, found by being there
choose(x, targets, folds, classes, methods) -> best Probe, all Probes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork import plugins
from topwork.adaptation.probe._given import Goals
from topwork.adaptation.probe._judged import first_of_the_best, judge
from topwork.errors import BadSetting
from topwork.nn.principal import remembered
from topwork.types import Probe, Progress, silent

ROOM = "adaptation.probe"
AUTO = ("logistic", "ridge", "nearest_mean", "knn")  # a tie goes to the earlier one
AUTO_NUMBERS = ("ridge", "knn")
SMALL = 1e9  # multiply-adds of one pass over the items: below it one thread is as good


class Method(Protocol):
    """A way to solve a head."""

    goals: ClassVar[Goals]  # kinds of targets that it can learn

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Solve on features x (N, D), targets (N,) int, (N, C) bool or (N,) float, fold numbers (N,).

        The head predicts from raw features. `held_out` (N, C): row i comes from a head that never saw row i's fold.
        """
        ...


def choose(
    x: NDArray[np.float32],
    targets: NDArray[Any],
    folds: NDArray[Any],
    classes: int,
    methods: Sequence[str] = ("auto",),
    progress: Progress = silent,
) -> tuple[Probe, tuple[Probe, ...]]:
    """Solve by every method (specs such as "logistic(l2=0.1)", or "auto") and take the lowest held-out log loss.

    Each is judged at the temperature that suits its held-out logits, because only some methods have a scale of
    probability of their own. A lead below two standard errors of the paired difference, or below the cost of one item
    that is surely wrong, log(N + 2) / (N + 2), is a tie and goes to the method that comes first in `methods`. Methods
    that cannot work here (k-NN on very many items) are left out and the reason says so.

    Why logistic comes first in "auto": with few labels held-out losses are noisy, and the lowest is often the luckiest.
    Mean test accuracy / log loss over 21 settings (6 pairs of set and trunk, 5 to 100 labels per class, 6 draws,
    2026-11-21): the lowest loss wins 0.778 / 0.627; this rule 0.785 / 0.604.
    """
    numbers = targets.dtype.kind == "f"
    auto = AUTO_NUMBERS if numbers else AUTO
    specs = [spec for method in methods for spec in (auto if method == "auto" else (method,))]
    solvers = [(spec, plugins.make(ROOM, spec)) for spec in specs]
    probes, judged, missing = [], [], []
    with remembered(), _threads(np.size(x) * classes * len(np.unique(folds))):
        for done, (spec, solver) in enumerate(solvers):
            progress(f"probe {spec}", done, len(solvers))
            try:
                probe = solver.solve(x, targets, folds, classes)
            except BadSetting as error:
                if len(solvers) == 1:
                    raise
                missing.append((spec, error))
                continue
            probes.append(probe)
            judged.append(judge(probe.held_out, targets))
    progress("probe", len(solvers), len(solvers))
    if not probes:
        raise missing[0][1]
    at = first_of_the_best(judged)
    reason = "; ".join(
        [_in_words(probes, judged, at, numbers), *(f"{spec} left out: {error}" for spec, error in missing)]
    )
    best = Probe(probes[at].head, probes[at].held_out, probes[at].log_loss, reason)
    return best, tuple(probes)


@contextmanager
def _threads(work: float) -> Iterator[None]:
    """One thread for what is small: the same bits on any number of processors, and no waiting for a busy one.

    Two BLAS threads on two processors that others use too took 25 s where one took 3 s (4,317 x 1,280, 2026-11-21).
    """
    if work > SMALL:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _in_words(probes: list[Probe], judged: list[NDArray[np.float64]], at: int, numbers: bool) -> str:
    """Why this one."""
    if len(probes) == 1:
        return probes[0].reason
    scores = [float(loss.mean()) for loss in judged]
    measure, end = ("squared error over variance", "") if numbers else ("log loss", "; each at its best temperature")
    names = [probe.head.method.split("(")[0] for probe in probes]
    listing = ", ".join(f"{names[i]} {scores[i]:.3f}" for i in np.argsort(scores, kind="stable"))
    lowest = names[int(np.argmin(scores))]
    why = f"lowest held-out {measure}" if names[at] == lowest else f"{lowest} leads by no more than noise"
    return f"{names[at]}: {why} ({listing}{end}); {probes[at].reason}"
