"""Advice in words: what each step of the ladder was worth, and what to do next.

    last_stages gained 6.1 points [3.0, 9.2] over probe for 2 min 19 s (p < 0.001): worth it.

All of it is read off the report's numbers: gains by the ladder's paired test, steps that the budget left out, and what
the label curve expects of twice the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topwork.evaluation import wording

Numbers = Mapping[str, Any]

FLAT = 0.005  # a gain from twice the labels whose interval ends below half a point is none
SURER: dict[str, str] = dict.fromkeys(("r2", "mae", "rmse", "spearman"), "closer on average")
DONE = 0.995  # nothing is gained any more that anybody would notice


def advice(numbers: Numbers) -> dict[str, Any]:
    """{"steps": a sentence or null for each, "next": a sentence or null}."""
    steps = numbers.get("steps") or []
    names = wording.step_names(steps)
    return {
        "steps": [sentence(step, names[at], steps, names) for at, step in enumerate(steps)],
        "next": next_step(numbers),
    }


def sentence(step: Numbers, name: str, steps: Sequence[Numbers], names: Sequence[str]) -> str | None:
    """What one step was worth, its name and its time included; None where nothing was compared."""
    worth = gained(step, steps, names, f" for {wording.duration(step.get('seconds'))}")
    return f"{name} {worth}." if worth else None


def gained(step: Numbers, steps: Sequence[Numbers], names: Sequence[str], price: str = "") -> str | None:
    """'gained 6.1 points [3.0, 9.2] over probe: worth it'; with a price how sure that is, too."""
    gain = step.get("gain") or {}
    by, low, high = (gain.get(key) for key in ("difference", "low", "high"))
    if by is None or low is None or high is None:
        return None
    over = next((names[at] for at, one in enumerate(steps) if one.get("name") == gain.get("over")), gain.get("over"))
    did = "gained" if by >= 0 else "lost"
    key = str(gain.get("metric") or "accuracy")
    low, high = (low, high) if by >= 0 else (-high, -low)
    p = gain.get("p_value")
    sure = "" if p is None or not price else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
    surer = f" and is {SURER.get(key, 'surer of its answers')}" if gain.get("surer") and low <= 0 else ""
    worth = "worth it" if step.get("kept") else "not worth it"
    much = f"{_points(abs(by))} [{100 * low:.1f}, {100 * high:.1f}]"
    if not wording.words(key).share:  # in the unit of the numbers, or nats
        did = {"gained": "improved", "lost": "worsened"}[did]
        of = wording.in_line(key)
        much = f"{of} by {wording.number(key, abs(by))} [{wording.number(key, low)}, {wording.number(key, high)}]"
    return f"{did} {much} over {over}{price}{sure}{surer}: {worth}"


def next_step(numbers: Numbers) -> str | None:
    """The one thing to do now; None where there is no ladder to speak of."""
    steps = numbers.get("steps") or []
    used = wording.in_use(steps)
    if used is None:
        return None
    names = wording.step_names(steps)
    vain = [names[at] for at, step in enumerate(steps) if at > used and wording.taken(step)]
    late = [names[at] for at, step in enumerate(steps) if not wording.taken(step) and "--budget" in _verdict(step)]
    barred = [
        (names[at], _verdict(step).removeprefix("left out: "))
        for at, step in enumerate(steps)
        if not wording.taken(step) and "--budget" not in _verdict(step) and _verdict(step)
    ]
    labels, flat = _labels(numbers)
    thing = wording.thing(numbers)
    metric = (numbers.get("metrics") or {}).get("r2" if numbers.get("numeric") else "accuracy") or {}
    another = "--backbone" if numbers.get("multilabel") else "topwork rank"
    other, better = ("another backbone", "a better backbone") if thing != "row" else ("other columns",) * 2
    where = f" ({another})" if thing != "row" else ""
    if (metric.get("low") or 0.0) >= DONE:
        return "Next: use it. There is next to nothing left to gain."
    if any(f.get("kind") == "negative_transfer" for f in numbers.get("findings") or ()):
        more = f" More labels help, too: {labels}." if labels else ""
        return f"Next: try another backbone ({another}): this one does not help here.{more}"
    spent = f"{_list(vain)} did not pay" if vain else ""
    if late and not vain:
        besides = f", or label more {thing}s: {labels}" if labels else ""
        return f"Next: give it more time (--budget), {_list(late)} had none{besides}."
    if labels:
        return f"Next: label more {thing}s: {labels}" + (f", while {spent}." if spent else ".")
    if barred and not vain:
        return f"Next: let {barred[0][0]} try. {barred[0][1].rstrip('.')}."
    if spent:
        much = " and twice the labels would bring next to nothing" if flat else ""
        return f"Next: keep this model. {spent[0].upper()}{spent[1:]}{much}; {other} may{where}."
    if flat:
        return f"Next: more labels of the same kind bring next to nothing; {better} may{where}."
    return None


def _labels(numbers: Numbers) -> tuple[str, bool]:
    """What twice the labels would bring, where that is sure; and whether it is surely nothing."""
    gain = (numbers.get("label_curve") or {}).get("gain") or {}
    value, low, high = (gain.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "", False
    if high < FLAT:
        return "", True
    if low <= 0 or value < FLAT:
        return "", False
    return f"twice as many would bring about {_points(value)} [{100 * low:.1f}, {100 * high:.1f}]", False


def _points(share: float) -> str:
    shown = f"{100 * share:.1f}"
    return f"{shown} point" if shown == "1.0" else f"{shown} points"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verdict(step: Numbers) -> str:
    return str(step.get("verdict") or "")
