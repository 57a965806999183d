"""Losses on their way out of the loop: into the run's log, to whoever watches, and a line of words now and then."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from topwork import processes
from topwork.adaptation.plan import Plan
from topwork.errors import BadSetting
from topwork.store.runs import Run
from topwork.types import Watch

FLUSH_SECONDS = 1.0  # between two looks at the losses: each look waits for a GPU


@dataclass
class Log:
    """Loss terms on their way to the run's log and to whoever watches; a loss that is not finite ends the training."""

    run: Run | None
    watch: Watch
    plan: Plan
    first: int
    stage: str = ""
    lines: int = 10  # said on the way, evenly
    items: str = "images"
    _waiting: list[tuple[int, float, float, dict[str, Tensor]]] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)
    _said: int = 0

    def note(self, step: int, rate: float, terms: dict[str, Tensor], share: float) -> None:
        """Terms of one part of a step, and its share of the items; nothing is waited for."""
        self._waiting.append((step, rate, share, {name: value.detach() for name, value in terms.items()}))

    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._flushed >= FLUSH_SECONDS

    def flush(self, done: int, now: bool, last: bool = False) -> None:
        """Look at the losses of all processes, at times."""
        if not now:
            return
        own = [
            (step, rate, {name: value.item() * share for name, value in terms.items()})
            for step, rate, share, terms in self._waiting
        ]
        lines: dict[int, dict[str, Any]] = {}
        for step, rate, terms in (part for parts in processes.gathered(own) for part in parts):
            line = lines.setdefault(step, {"step": step, "rate": rate})
            for name, value in terms.items():
                line[name] = line.get(name, 0.0) + value
        seconds = self.run.elapsed() if self.run else time.monotonic() - self._began
        for step, line in lines.items():
            if not all(math.isfinite(value) for value in line.values()):
                raise BadSetting(
                    f"The loss was not finite any more at step {step} of {self.plan.steps}: the training diverged. "
                    f"A smaller learning rate than {self.plan.rate:g} (--rate) helps"
                )
            line["seconds"] = round(seconds, 3)
        if self.run and lines:
            self.run.log(list(lines.values()))
        for step, line in lines.items():
            self.watch.track(self.stage, step, {k: v for k, v in line.items() if k not in ("step", "seconds")})
        self._say(done, list(lines.values()), last)
        self._waiting, self._flushed = [], time.monotonic()

    def _say(self, done: int, lines: list[dict[str, Any]], last: bool) -> None:
        """A line per tenth of the way, or as often as was asked."""
        part = self.lines * done // self.plan.steps
        if not (last or part > self._said) or not lines:
            return
        self._said = part
        pace = (time.monotonic() - self._began) / max(1, done - self.first)
        shown = [name for name in lines[-1] if name not in ("step", "rate", "seconds")]
        means = ", ".join(f"{name} {sum(line[name] for line in lines) / len(lines):.3f}" for name in shown)
        left = "" if last else f", {_span(pace * (self.plan.steps - done))} left"
        speed = f"{self.plan.batch / pace:,.0f} {self.items}/s"
        self.watch.say(f"{self.stage}, step {done:,} of {self.plan.steps:,}: {means}; {speed}{left}")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
