"""Options are checked when a method is made, before any work; all problems are told together."""

from __future__ import annotations

from numbers import Real

from topwork.adaptation import Facts
from topwork.errors import BadSetting


class Check:
    """Collects what is wrong with the options of one method.

    check = Check("simclr"); check.number("temperature", 0, above=0); check.done()
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.problems: list[str] = []

    def number(self, name: str, value: object, *, above: float, below: float = float("inf")) -> None:
        """A finite number strictly between two bounds."""
        if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < below:
            bounds = f"above {above:g}" + (f" and below {below:g}" if below < float("inf") else "")
            self.problems.append(f"{name}={value!r} is not a number {bounds}")

    def share(self, name: str, value: object) -> None:
        """A number from 0 to 1, both allowed."""
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            self.problems.append(f"{name}={value!r} is not a number from 0 to 1")

    def whole(self, name: str, value: object, *, least: int) -> None:
        """A whole number of at least `least`."""
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.problems.append(f"{name}={value!r} is not a whole number of at least {least}")

    def that(self, good: bool, problem: str) -> None:
        """Anything else."""
        if not good:
            self.problems.append(problem)

    def done(self) -> None:
        """Raise BadSetting if there was a problem."""
        if self.problems:
            raise BadSetting(f"{self.method}: {'; '.join(self.problems)}")


def pairs(method: str, facts: Facts) -> None:
    """Stop where a method that compares images with each other has nothing to compare."""
    if facts.items < 2:
        raise BadSetting(f"{method} compares images with each other: {facts.items} is too few, at least 2 are needed")
