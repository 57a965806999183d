"""The k most similar training items vote; similarity is the cosine between features.

    s_c = mean over the k nearest of v_ic,      v_i = (1 - e) onehot(y_i) + e prior,      e = 1 / (k + 1)
    z = log s,   multi-label: z = log s - log(1 - s),   numbers: z = s, the mean of the neighbours' numbers

The prior counts as one more voter, so no label has probability 0 (and log s stays finite). k is chosen by held-out log
loss, each time with the temperature that suits it; only items of other folds vote.
The head carries the training features: with 20,000 items of 1,280 features it weighs 100 MB, and that is the limit.
Cover and Hart, Nearest neighbor pattern classification, 1967.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation.probe._given import BOTH, Given, Goals, check
from topwork.errors import BadSetting
from topwork.nn.heads import nearest, share_logits, unit_rows
from topwork.nn.log_loss import fit_temperature, log_priors, losses
from topwork.nn.principal import moments
from topwork.types import Head, Probe

LARGEST = 20_000  # items
SIZES = (1, 3, 5, 9, 15, 25, 45)
ROWS = 512


@dataclass(frozen=True)
class Knn:
    """k nearest neighbours; the head keeps all training features."""

    goals: ClassVar[Goals] = BOTH
    k: int | None = None  # None: chosen by held-out log loss

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Find every item's neighbours in the other folds."""
        given = check(x, targets, folds, classes, sample_weight, self.goals)
        sizes = self._sizes(given)
        moments(given.x, given.weight)  # raises where a value is not finite
        bank = unit_rows(given.x)
        priors = _priors(given)
        tried = []
        neighbours = _neighbours(bank, given.folds, max(sizes))
        for k in sizes:
            z = _held_out(given, neighbours[:, :k], priors)
            temperature = fit_temperature(z, given.targets)
            loss = np.average(losses(z / temperature, given.targets), weights=given.weight)
            tried.append((float(loss), k, z, temperature))
        loss, k, held_out, temperature = min(tried, key=lambda one: one[0])
        arrays = {"bank": bank, "votes": _votes(given, priors[-1], k, slice(None))}
        how = f"k = {k} of {len(sizes)} values by" if self.k is None else f"k = {k} as told,"
        return Probe(
            Head("knn", arrays, given.activation, temperature, f"knn(k={k})", {"k": k}),
            held_out,
            loss,
            f"{how} {given.score(loss)}" + ("" if given.numeric else f" at temperature {temperature:.2g}"),
        )

    def _sizes(self, given: Given) -> tuple[int, ...]:
        """Which k to try: at most as many as a training part has items."""
        N = len(given.x)
        if N > LARGEST:
            raise BadSetting(
                f"knn keeps every training item in the model: {N:,} are more than {LARGEST:,}. Use logistic"
            )
        if given.weighted:
            raise BadSetting("knn has no sample weights: every neighbour has one vote. Use logistic")
        smallest = N - int(np.bincount(given.folds).max())
        if self.k is not None and not 1 <= self.k <= smallest:
            raise BadSetting(
                f"knn(k={self.k}) needs 1 to {smallest} neighbours: the smallest training part has {smallest} items"
            )
        return (self.k,) if self.k is not None else tuple(k for k in SIZES if k <= max(1, smallest // 2))


def _priors(given: Given) -> NDArray[np.float32]:
    """Smoothed frequencies (F + 1, C), or means of the numbers (F + 1, 1), in every model's training part."""
    if given.numeric:
        training = given.training()
        return (training @ given.one_hot() / training.sum(axis=1, keepdims=True)).astype(np.float32)
    z = log_priors(given.counts(), given.training().sum(axis=1), given.multilabel)
    return (1 / (1 + np.exp(-z)) if given.multilabel else np.exp(z)).astype(np.float32)


def _votes(given: Given, prior: NDArray[np.float32], k: int, rows: Any) -> NDArray[np.float32]:
    """Smoothed votes (B, C) of training items."""
    doubt = np.float32(1 / (k + 1))
    return ((1 - doubt) * given.one_hot(rows) + doubt * prior).astype(np.float32)


def _neighbours(bank: NDArray[np.float32], folds: NDArray[np.intp], k: int) -> NDArray[np.int32]:
    """Row numbers (N, k) of the nearest items of other folds, nearest first."""
    found = np.empty((len(bank), k), np.int32)
    for start in range(0, len(bank), ROWS):
        rows = slice(start, start + ROWS)
        similarity = bank[rows] @ bank.T  # (B, N)
        similarity[folds[rows, None] == folds] = -2  # below every cosine
        found[rows] = nearest(similarity, k)
    return found


def _held_out(given: Given, neighbours: NDArray[np.int32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (N, C) from the votes of other folds' items."""
    N, k = neighbours.shape
    doubt = np.float32(1 / (k + 1))
    share = np.zeros((N, given.classes), np.float32)
    for column in neighbours.T:
        share += given.one_hot(column).astype(np.float32) / k
    share = ((1 - doubt) * share + doubt * priors[given.folds]).astype(np.float32)
    return share if given.numeric else share_logits(share, given.activation)
