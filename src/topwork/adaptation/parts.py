"""When memory runs out: the same step, worked on in twice as many parts.

    g = sum_p B_p / B  grad L_p        B: items of a step; B_p: of its part p, one after the other; L_p: their mean loss

Gradients add up, so the step is that of the whole batch, up to rounding, and less is remembered at any time. What
looks at several items at once sees those of a part only: batch norms, and losses that compare items with each other.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from topwork import processes
from topwork.adaptation import Batch, Method
from topwork.adaptation.feed import Feed, Setup
from topwork.errors import BadSetting
from topwork.store.runs import Run
from topwork.types import Choice

SAID = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "status_alloc_failed")
LENGTH = 120  # letters of what the allocator says


def ran_out(error: BaseException) -> str | None:
    """What the allocator said, where memory has run out; None for any other error."""
    said = " ".join(str(error).split())
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not known and not (isinstance(error, RuntimeError) and any(words in said.lower() for words in SAID)):
        return None
    first = said[max(0, said.find("DefaultCPUAllocator")) :].partition(". ")[0]
    return first[:LENGTH].rstrip(" .") or type(error).__name__


def twice(parts: int, items: int, why: str, least: int = 1) -> Choice:
    """Twice as many parts of so many items, with the reason; BadSetting where none could be smaller."""
    most = max(1, items // least)
    if parts >= most:
        raise BadSetting(
            f"Memory ran out even with {least} of a step's items at a time ({why}). Expected room for so many: free "
            "some, let less of the network learn, such as last_stages(1), or take a smaller backbone"
        )
    more = min(2 * parts, most)
    return Choice(
        "parts of a step",
        more,
        f"memory ran out with {parts} ({why}); the same step, but batch norms and losses that compare items see "
        f"{-(-items // more)} of {items} at a time",
    )


def free() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


@dataclass
class Supply:
    """The batches of the steps to come, in as many parts as there is memory for."""

    feed: Feed
    methods: Sequence[Method]
    setup: Setup
    run: Run | None = None
    least: int = 1  # items of a part: a batch norm cannot learn from one

    def __post_init__(self) -> None:
        decided = self.run.decided.get("parts", 0) if self.run else 0
        parts = processes.decided(lambda: max(self.setup.parts, decided))
        self.setup = dataclasses.replace(self.setup, parts=parts)
        self._batches: Iterator[tuple[int, list[list[Batch]]]] = iter(())

    def __iter__(self) -> Iterator[tuple[int, list[list[Batch]]]]:
        """(step, its parts), also after it was begun anew."""
        while (one := next(self._batches, None)) is not None:
            yield one

    def begin(self, first: int) -> None:
        """From this step on."""
        self.close()
        self._batches = self.feed.batches(self.methods, first, self.setup)

    def twice(self, why: str) -> Choice:
        """The same steps in twice as many parts, once they are begun; kept with the run."""
        self.close()
        choice = twice(self.setup.parts, self.setup.batch // self.setup.processes, why, self.least)
        self.setup = dataclasses.replace(self.setup, parts=choice.value)
        if self.run is not None:
            self.run.decide(parts=choice.value)
        free()
        return choice

    def close(self) -> None:
        """Nothing more is made ready."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = iter(())
