"""What follows an encoder's states: one vector for a window of text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Head:
    """From the last states of a transformer to one vector."""

    pooling: tuple[str, ...] = ("mean",)  # of cls, max, mean, root, last; several stand side by side
    unit: bool = False  # brought to length 1

    def __str__(self) -> str:
        return "+".join(self.pooling) + (" unit" if self.unit else "")
