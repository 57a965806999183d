"""What in a text tells who somebody is: one file per kind, found by being here.

@dataclass(frozen=True)
class Email:
    rank: ClassVar[int] = 1                              # 0 checked, 1 by its form, 2 by what stands around it
    def find(self, text) -> Iterator[tuple[int, int]]    # stretches [start, end) of a folded text (text_folding.py)
    def canonical(self, found) -> str                    # the same for every spelling of the same one

Where a kind has a checksum it is checked. A recogniser may yield stretches that overlap; it takes time linear in the
text, whatever the text. Kinds that need something of the user's (a folder) are not among the default ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

Stretch = tuple[int, int]


class Recogniser(Protocol):
    """Finds one kind."""

    rank: ClassVar[int]
    """0: a checksum or the like says so, 1: the form does, 2: what stands around it. The lower is right."""

    def find(self, text: str) -> Iterator[Stretch]:
        """Stretches of a folded text."""
        ...

    def canonical(self, found: str) -> str:
        """One spelling for all spellings of the same."""
        ...
