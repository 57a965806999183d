"""Texts that can be read and are still suspicious: most are worth a look, some are better left out.

    kind         which                                                                  score
    garbled      read in another encoding than saved in: "cafÃ©" (text_damage.py)       1
    markup       tags, entities or forum codes are left: "<br />", "&quot;"             1
    very_long    32 times the median length, and 6 robust deviations above it           times the median length
    very_short   a 32nd of the median length, and 6 robust deviations below it          share of the median length
    template     equal to TEMPLATE others and a hundredth of all but for their          number of texts alike
                 numbers, or at their first 80 characters

A robust deviation is 1.4826 times the median distance of log2(characters) from its median, at least half an octave.
What holds for more than a fifth of the texts is what the set is like: said in one line without rows.
Texts without a letter or digit are `blank` (findings.py); empty ones cannot be read.

Alarms, November 2026, 85,000 texts of eleven real sets: garbled 231, markup 127 (the forty of each that were looked at
are so), very_short 5 ("wow", "no"), none of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import suspicious
from topwork.types import Dataset, Finding

if TYPE_CHECKING:
    from topwork.data.inspect_text import Seen

TIMES, DEVIATIONS = 32.0, 6.0
TEMPLATE, TEMPLATE_SHARE = 20, 0.01
ENOUGH = 20  # texts from which "unlike the rest" means something


def suspects(dataset: Dataset, seen: Seen) -> list[Finding | None]:
    """Everything above that is there."""

    def found(kind: str, mask: NDArray[Any], scores: NDArray[Any], message: str, fix: str) -> None:
        out.append(suspicious(dataset, kind, np.flatnonzero(mask), scores, message, fix))

    out: list[Finding | None] = []
    N = len(seen.blank)
    one = np.ones(N)
    fix = "read the source again in its own encoding (UTF-8, mostly), or leave them out"
    found("garbled", seen.garbled, one, "{} read in the wrong encoding", fix)
    found("markup", seen.markup, one, "{} with tags or entities left in them", "strip the markup before reading")

    octaves = np.log2(np.maximum(seen.sizes[:, 0], 1))
    off = octaves - (np.median(octaves) if N else 0)
    scale = max(1.4826 * float(np.median(np.abs(off))), 0.5) if N else 1.0
    far = (np.abs(off) > max(np.log2(TIMES), DEVIATIONS * scale)) & (N >= ENOUGH)
    times = np.exp2(off)
    found(
        "very_long", far & (off > 0), times, "{} far longer than the rest", "several texts in one? Split them, or cut"
    )
    found("very_short", far & (off < 0) & ~seen.blank, times, "{} far shorter than the rest", "is something lost?")

    alike = np.maximum(_alike(seen.mask, seen.form), _alike(seen.head, seen.form))
    many = alike >= max(TEMPLATE, TEMPLATE_SHARE * N)
    fix = "filled-in forms, footers, generated texts? Keep what differs, or leave them out"
    found("template", many, alike, "{} made of one template", fix)
    return out


def _alike(keys: NDArray[np.uint64], form: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N,) how many different texts share the key of each; 0: no key."""
    known = np.flatnonzero(keys)
    whole = np.ascontiguousarray(form[known]).view("<u8")[:, 0]
    order = np.lexsort((whole, keys[known]))
    key, text = keys[known][order], whole[order]
    new_key = np.diff(key, prepend=~key[:1]) != 0
    new_text = new_key | (np.diff(text, prepend=~text[:1]) != 0)
    number = np.cumsum(new_key) - 1
    out = np.zeros(len(keys), np.int64)
    out[known[order]] = np.bincount(number, new_text)[number].astype(np.int64) if len(known) else 0
    return out
