"""The last stages learn; what lies below is frozen, runs once per view, and its activations are cached.

    frozen: stages 0 .. K - n - 1      or, with `share` q: as many as leave about q of the multiply-adds above

An epoch then costs 3 q of a pass through the whole network (forward and backward of what lies above) instead of
1 + 2 q (forward through everything, backward above). Yosinski et al., How transferable are features in deep neural
networks?, NeurIPS 2014: late layers are those that are special to a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from topwork.adaptation import Facts
from topwork.adaptation.graft import Grafted, Scope
from topwork.errors import BadSetting


@dataclass(frozen=True)
class LastStages(Scope):
    """The top of the trunk, from the probe's head."""

    n: int | None = None  # stages that learn
    share: float | None = field(default=None, kw_only=True)  # or: of the multiply-adds that learn

    def check(self) -> list[str]:
        """What is wrong with the options."""
        problems = super().check()
        if self.n is not None and (type(self.n) is not int or self.n < 1):
            problems.append(f"n={self.n!r}")
        if self.share is not None and not 0 < self.share < 1:
            problems.append(f"share={self.share!r}")
        if self.n is not None and self.share is not None:
            problems.append("n and share")
        return problems

    def boundary(self, shares: Sequence[Sequence[float]]) -> int:
        """Layers that are frozen: all but n stages, or those that leave the share nearest to `share` above them."""
        if self.share is not None:
            layers = [share for stage in shares for share in stage]
            above = [sum(layers[k:]) for k in range(1, len(layers))]
            return 1 + min(range(len(above)), key=lambda k: abs(above[k] - self.share))  # type: ignore[operator]
        n = self.n or 1
        if n >= len(shares):
            raise BadSetting(
                f"last_stages({n}): the backbone has {len(shares)} stages. Expected fewer, or lp_ft for all"
            )
        return sum(len(stage) for stage in shares[: len(shares) - n])

    def prepare(self, model: Grafted, facts: Facts) -> None:
        """Freeze what is below, where it is not cached and gone already."""
        super().prepare(model, facts)
        below = self.boundary(model.costs) if model.costs else 0
        for name in [name for stage in model.stages for name in stage][:below]:
            model.trunk.get_submodule(name).requires_grad_(False)
