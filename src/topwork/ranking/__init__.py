"""Scores of a backbone's features on labelled items: how well they will serve, without training anything on them.

score(features (N, D), targets (N,), given) -> float, higher is better        one file per score, found by being there
compute(specs, features, targets, given)    -> values by name, and what was left out, with the reason

`Given` is what else is known of the items. A score that reads what the backbone's own classifier says of them declares
`needs_source = True`; where there is no classifier it is left out, and `compute` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork import plugins

ROOM = "ranking"


@dataclass(frozen=True, eq=False)
class Given:
    """What else is known of the items; a score takes what it needs."""

    source: NDArray[np.floating[Any]] | None = None  # (N, Z) probabilities of the backbone's own classes
    folds: NDArray[np.integer[Any]] | None = None  # (N,) parts for cross-validation
    together: NDArray[np.integer[Any]] | None = None  # (N,) equal: same picture or group, must not vouch for each other


NOTHING = Given()


class Score(Protocol):
    """A number that grows with how well features serve a task."""

    needs_source: ClassVar[bool]

    def score(
        self,
        features: NDArray[np.float32],
        targets: NDArray[Any],
        given: Given = NOTHING,
    ) -> float:
        """Score features (N, D) for targets (N,), class numbers from 0; raises BadData where it cannot."""
        ...


def names() -> tuple[str, ...]:
    """All scores of the room."""
    return plugins.names(ROOM)


def compute(
    features: NDArray[np.float32],
    targets: NDArray[Any],
    given: Given,
    specs: Sequence[str] | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Every score of `specs` (default: all of the room), and those that could not be computed, with the reason."""
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for spec in specs or names():
        scorer: Score = plugins.make(ROOM, spec)
        if scorer.needs_source and given.source is None:
            missing[spec] = "the backbone has no classifier of its own"
            continue
        values[spec] = scorer.score(features, targets, given)
    return values, missing
