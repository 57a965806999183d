"""New items shared with other workers, on this machine or others, through a store that knows claims.

    wanted -> claimed in parts as the work goes on -> computed, put, released
           -> claimed by others                    -> awaited; computed here where their claims expire without a value

Parts are a share of what is left, within bounds: large ones first, which fill batches, and small ones at the end, which
nobody waits for long (guided self-scheduling: Polychronopoulos and Kuck, 1987).
Every item is computed by one worker, unless one is suspended for longer than a claim lives. An item that nobody can
read is tried by every worker: there is no value to find. Where the server goes away everything is ours again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from topwork.features.matrix import Matrix
from topwork.store import Store, claims_of
from topwork.types import Progress, silent

LEFT = 4  # a part is what is left over this
AWAITED = 256  # contents of others to ask for at once
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between two looks at what others do

Work = Callable[[Iterable[list[int]]], dict[int, str]]
"""work(parts of contents) -> those that could not be read, with the reason."""


def share(
    store: Store | None,
    namespace: str,
    matrix: Matrix,
    wanted: list[int],
    work: Work,
    least: int,
    most: int,
    progress: Progress = silent,
) -> tuple[dict[int, str], int]:
    """Fill the matrix with `wanted`; returns what could not be read and how many came from others.

    `least`, `most`: contents to claim at once.
    """
    claims = claims_of(store)
    if claims is None:
        return work([wanted]), 0
    keys = matrix.contents.keys
    held: set[int] = set()
    left, reasons, received, wait = wanted, dict[int, str](), 0, SHORTEST_WAIT
    there: list[int] = []
    theirs: list[int] = []

    def ours(some: list[int], least: int) -> Iterator[list[int]]:
        start = 0
        while start < len(some):
            asked = some[start : start + max(least, min(most, (len(some) - start) // LEFT))]
            start += len(asked)
            said = claims.claim(namespace, [keys[u] for u in asked])
            mine = [u for u, answer in zip(asked, said, strict=True) if answer == "ours"]
            there.extend(u for u, answer in zip(asked, said, strict=True) if answer == "there")
            theirs.extend(u for u, answer in zip(asked, said, strict=True) if answer == "theirs")
            held.update(mine)
            if mine:
                yield mine

    try:
        while left:
            there.clear()
            theirs.clear()
            reasons |= work(ours(left, least if left is wanted else max(least, AWAITED)))
            unfit = set(matrix.recall(store, namespace, there)) if there else set()
            received += len(there) - len(unfit)
            progress("extract", matrix.filled + len(reasons), len(keys))
            if unfit:  # damaged, or of another length
                reasons |= work([sorted(unfit)])
            wait = SHORTEST_WAIT if len(theirs) < len(left) else min(LONGEST_WAIT, 1.5 * wait)
            left = list(theirs)
            if left:
                time.sleep(wait)
    finally:  # Ctrl-C as well: others need not wait until they expire
        claims.release(namespace, [keys[u] for u in held])
    return reasons, received
