"""Negative transfer: a pretrained backbone that does worse than none.

A step that uses a pretrained backbone is compared, on the same items and by the ladder's own paired test, with raw
pixels and with the same architecture from random weights, where those steps were taken. Rosenstein et al., To Transfer
or Not To Transfer, NIPS 2005 workshop; Wang et al., Characterizing and Avoiding Negative Transfer, CVPR 2019.
"""

from __future__ import annotations

from topwork.evaluation.wording import step_names
from topwork.ground import Ground
from topwork.rung import Climb, Rung, compare
from topwork.types import Finding

PIXELS = "bundled:pixels"
SCRATCH = "scratch"


def alarms(ground: Ground, climbed: Climb) -> tuple[Finding, ...]:
    """A warning for each way without pretraining that beats a way with it."""
    names = dict(zip(climbed.rungs, step_names([{"name": rung.plan.name} for rung in climbed.rungs]), strict=True))
    pretrained = [rung for rung in climbed.rungs if rung.plan.backbone != PIXELS and not _is_scratch(rung)]
    found = []
    for other in (rung for rung in climbed.rungs if _is_scratch(rung) or _is_pixels(rung)):
        said = [(rung, *compare(ground, rung, other)) for rung in pretrained]
        worse = [(names[rung], gain) for rung, better, _, gain in said if better]
        rest = [names[rung] for rung, better, _, _ in said if not better]
        if worse:
            found.append(_finding(worse, rest, "raw pixels" if _is_pixels(other) else _scratch_of(names[other])))
    return tuple(found)


def _finding(worse: list[tuple[str, dict[str, float]]], rest: list[str], than: str) -> Finding:
    how = "; ".join(f"{name} is {_worse(gain)}" for name, gain in worse)
    message = f"negative transfer: {how} than {than}."
    fix = "Try another backbone (topwork rank), or label more items."
    if rest:
        one = len(rest) == 1
        fix = f"{', '.join(rest)} {'is' if one else 'are'} not: what is frozen does not fit these items. " + fix
    return Finding("negative_transfer", "warning", message, fix)


def _worse(gain: dict[str, float]) -> str:
    if gain["surer"] and gain["low"] <= 0:  # as often right
        return "less sure of what is right"
    return f"{100 * gain['difference']:.1f} points [{100 * gain['low']:.1f}, {100 * gain['high']:.1f}] worse"


def _scratch_of(name: str) -> str:
    return f"the same architecture from random weights ({name})"


def _is_scratch(rung: Rung) -> bool:
    return rung.plan.tuned and rung.plan.name.partition("+")[0].partition("(")[0].strip() == SCRATCH


def _is_pixels(rung: Rung) -> bool:
    return rung.plan.backbone == PIXELS and rung.plan.methods != ("majority",)
