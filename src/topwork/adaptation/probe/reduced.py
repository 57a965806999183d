"""A linear probe behind a linear reduction: fewer numbers to learn from, one plain head to ship.

    z = (x - mean) A          fitted to all rows without their labels (`adaptation/reduction`)
    head of z: W, b           solved by another probe
    head of x: A W, b - mean A W

The map sees the features of the rows that the folds hold out, never their labels, as standardisation in `nn.principal`
does; nested cross-validation fits it anew without the asked fold.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork import plugins
from topwork.adaptation.probe._given import BOTH, Goals, refuse
from topwork.adaptation.reduction import ROOM as REDUCTIONS
from topwork.errors import BadSetting
from topwork.types import Probe


@dataclass(frozen=True)
class Reduced:
    """Another probe on reduced features."""

    goals: ClassVar[Goals] = BOTH

    by: str = "pca(64)"  # pca(k), whitening(k), random_projection(k)
    probe: str = "auto"  # a linear one with its options; auto: logistic, for numbers ridge

    def solve(
        self,
        x: NDArray[np.float32],
        targets: NDArray[Any],
        folds: NDArray[Any],
        classes: int,
        sample_weight: NDArray[Any] | None = None,
    ) -> Probe:
        """Fit the map, solve behind it, fold it in."""
        y = np.asarray(targets)
        refuse(y, self.goals)
        probe = self.probe if self.probe != "auto" else "ridge" if y.dtype.kind == "f" else "logistic"
        if plugins.parse(probe)[0] == "reduced":
            raise BadSetting(f"probe={probe!r}: a reduction of a reduction is one reduction")
        linear = plugins.make(REDUCTIONS, self.by).fit(x, sample_weight)
        found = plugins.make("adaptation.probe", probe).solve(linear(x), targets, folds, classes, sample_weight)
        if found.head.kind != "linear":
            raise BadSetting(f"probe={probe!r} has no weights that a reduction could be folded into")
        weight, bias = linear.folded(found.head.arrays["weight"], found.head.arrays["bias"])
        head = dataclasses.replace(
            found.head,
            arrays={**found.head.arrays, "weight": weight, "bias": bias},
            method=f"reduced(by={self.by!r}, probe={found.head.method!r})",
        )
        return dataclasses.replace(found, head=head, reason=f"{linear.said}; {found.reason}")
