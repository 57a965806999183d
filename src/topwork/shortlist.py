"""Which backbones are worth measuring: what is here, what may cost how much, and what is known of each beforehand.

Nothing here opens a backbone that the limits or the time already rule out.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topwork.backbones import catalogue, find
from topwork.errors import BadSetting
from topwork.store import weights
from topwork.types import DEFAULTS, Backbone, Card

FIRST_EXPORT_SECONDS = 30.0  # loading torch and writing a graph; on a busy machine more
PERCENT_PER_DECADE = 9.0  # of ImageNet top-1 for ten times the multiply-adds, where top-1 is not known
TYPICAL = (60.0, 20e6)  # top-1 at so many multiply-adds
PER_PARAMETER = 80  # multiply-adds of a convolutional network at 224 px; only where they are not known


@dataclass(frozen=True)
class Limits:
    """What a backbone may cost."""

    latency_seconds: float = math.inf  # one image, one thread
    bytes: float = math.inf

    @classmethod
    def of(cls, latency: str | float | None, size: str | float | None) -> Limits:
        """From "20ms" (or seconds) and "20MB" (or bytes); BadSetting where they mean nothing."""
        seconds = math.inf if latency is None else seconds_of_latency(latency)
        return cls(seconds, math.inf if size is None else catalogue.amount(str(size), "--max-size"))


def seconds_of_latency(text: str | float) -> float:
    """Seconds of "20ms", "0.02s" or a number of seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", str(text).strip().lower())
    if not match or not float(match[1]) > 0:
        raise BadSetting(f"--max-latency {text}: expected a time for one image such as 20ms or 0.5s")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1)


def available(pixels: bool = True, modality: str = "image") -> tuple[str, ...]:
    """Specs of the backbones that need no download, cheapest first; read from cards, nothing is opened."""
    entries = [entry for entry in catalogue.here() if entry.modality == modality]
    first = DEFAULTS[modality]
    ordered = sorted(entries, key=lambda e: (e.spec != first, e.multiply_adds or math.inf, e.bytes or math.inf))
    return (*(("bundled:pixels",) if pixels and modality == "image" else ()), *(entry.spec for entry in ordered))


def beyond_card(facts: catalogue.Entry | None, limits: Limits) -> str:
    """Why the card alone is enough to leave it out; "" where it is not."""
    size = 4 * facts.parameters if facts and facts.parameters else 0
    if size > limits.bytes:
        return f"{size / 1e6:.1f} MB by its card, the limit is {limits.bytes / 1e6:g} MB (--max-size)"
    return ""


def foreign(card: Card, facts: Mapping[str, Any]) -> str:
    """Why a text backbone cannot know most of these inspected texts; "" where it can, or where nobody has said."""
    shares = facts.get("languages", {})
    known = sum(share for language, share in shares.items() if language in card.languages)
    if not card.languages or not shares or known >= 0.5:
        return ""
    listed = ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:3])
    return f"{card.spec} knows {', '.join(card.languages)}, these texts are {listed}"


def late(spec: str, share: float) -> str:
    """Why there is no time left even to begin."""
    left = share - time.monotonic()
    if left <= 0:
        return "the share of the budget for choosing is used up (--budget)"
    if not math.isinf(share) and left < FIRST_EXPORT_SECONDS and not _opens_at_once(spec):
        return f"opening it for the first time takes torch and some {FIRST_EXPORT_SECONDS:.0f} s, {left:.0f} s are left"
    return ""


def _opens_at_once(spec: str) -> bool:
    """Whether neither its card nor its graph needs torch; hub weights do the first time that their card is read."""
    if spec.partition(":")[0] not in ("bundled", "local") and weights.recall(spec) is None:
        return False
    return bool(getattr(find(spec), "ready", lambda: True)())


def prior_of(backbone: Backbone, facts: catalogue.Entry | None) -> float | None:
    """ImageNet top-1 where the catalogue knows it; else what networks of its size reach, unless it has no weights."""
    if facts and facts.top1:
        return facts.top1
    if backbone.card.modality != "image":
        return None
    known = (backbone.card, facts) if facts else (backbone.card,)
    adds = next((one.multiply_adds for one in known if one.multiply_adds), None)
    adds = adds or next((PER_PARAMETER * one.parameters for one in known if one.parameters), None)
    if not adds or not backbone.card.weights:
        return None
    return TYPICAL[0] + PERCENT_PER_DECADE * math.log10(adds / TYPICAL[1])
