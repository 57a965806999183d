"""The page of a training that is not over: how far it is, its losses, and what the ladder has found until now.

Like the report it is one file that needs nothing else and in which nothing of the user's could run; it reloads itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topwork.evaluation import charts, report, wording
from topwork.evaluation.plain_json import clean

NAMES = {"rate": "learning rate"}
LAST = NAMES.__contains__  # after the losses


def render(numbers: Mapping[str, Any]) -> str:
    """The page; the numbers are those of `live.Page.numbers`."""
    n = {**numbers, "steps": clean(numbers["steps"])}  # the rest is plain
    trainings = {t["name"]: t for t in n["trainings"]}
    now = trainings.get(n["now"]) or next(reversed(trainings.values()), None)
    style = report.asset("report.css")
    return (
        report.environment()
        .get_template("live.html")
        .render(
            n=n,
            now=now,
            busy=next((o for o in n["others"] if o["name"] == n["now"]), None),
            loss_charts=charts.losses(_beside(trainings, now), now["name"], now["total"]) if now else [],
            trainings=[{**t, "says": losses(t["last"])} for t in reversed(trainings.values())],
            names=wording.step_names(n["steps"]),
            used=wording.in_use(n["steps"]),
            words=wording.words,
            style=style,
            style_hash=report.sha256_of(style),
        )
    )


def _beside(trainings: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Curves of the step that is being taken: its trainings differ in the fold that they leave out."""
    return {
        name: {"steps": t["steps"], "terms": {NAMES.get(k, k): t["terms"][k] for k in sorted(t["terms"], key=LAST)}}
        for name, t in trainings.items()
        if family(name) == family(now["name"])
    }


def family(training: str) -> str:
    """'lp_ft' of 'lp_ft fold 2 of 5' and of 'lp_ft on everything'."""
    return training.partition(" fold ")[0].removesuffix(" on everything").removesuffix(" all items")


def losses(last: Mapping[str, float]) -> str:
    """'task 0.412, l2_sp 0.003'."""
    return ", ".join(f"{name} {value:.3g}" for name, value in last.items() if name != "rate")
