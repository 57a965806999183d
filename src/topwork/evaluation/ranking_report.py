"""A ranking of backbones as a page and as lines for the terminal; the numbers are those of `choosing.tell`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from topwork.evaluation import report, wording
from topwork.evaluation.pareto import pareto
from topwork.evaluation.plain_json import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

SCORES = {  # in the order of the table: name, what it says
    "probe": ("Probe", "accuracy of a logistic head, cross-validated"),
    "knn": ("k-NN", "accuracy of the five nearest, each item left out"),
    "logme": ("LogME", "evidence of a Bayesian linear model per item (You et al., 2021)"),
    "hscore": (
        "H-score",
        "variance between classes over all variance, shrunk (Bao et al., 2019; Ibrahim et al., 2021)",
    ),
    "transrate": (
        "TransRate",
        "coding rate of all less that of each class (Huang et al., 2022); widths differ, so with care",
    ),
    "leep": ("LEEP", "log likelihood of the labels through the backbone's own classes (Nguyen et al., 2020)"),
    "nce": ("NCE", "how sure the labels are, given the backbone's own class (Tran et al., 2019)"),
}
_SECTIONS = (
    ("pareto", "Accuracy and latency"),
    ("table", "Candidates"),
    ("scores", "Scores"),
    ("costs", "Costs"),
    ("left", "Left out"),
    ("provenance", "Provenance"),
)


def render(numbers: Mapping[str, Any]) -> str:
    """The page."""
    n = clean(numbers)
    candidates = n["candidates"]
    chart = pareto(candidates)
    shown = {
        "pareto": bool(chart),
        "left": bool(n.get("left_out")),
    }
    style, script = report.asset("report.css"), report.asset("report.js")
    return (
        report.environment()
        .get_template("ranking.html")
        .render(
            n=n,
            pick=next(one for one in candidates if one["pick"]),
            other=next((one for one in candidates if one["runner_up"]), None),
            sentences=sentences(n),
            sections=[(name, title) for name, title in _SECTIONS if shown.get(name, True)],
            chart=chart,
            names=[name for name in [*SCORES, *_unknown(candidates)] if any(name in c["scores"] for c in candidates)],
            scores=SCORES,
            words=wording.words,
            thing=wording.thing(n),
            a_thing=wording.a_thing(n),
            style=style,
            style_hash=report.sha256_of(style),
            script=script,
            script_hash=report.sha256_of(script),
        )
    )


def sentences(n: Mapping[str, Any]) -> list[str]:
    """What to take, why, how sure, and what the next one would cost."""
    pick = next(one for one in n["candidates"] if one["pick"])
    other = next((one for one in n["candidates"] if one["runner_up"]), None)
    accuracy = pick["metrics"]["accuracy"]
    best = max(n["candidates"], key=lambda one: one["expected"]["value"])
    said = [
        f"Take {pick['spec']}: right on {wording.percent(accuracy['value'])} of the sample, cross-validated "
        f"(95\u202f% interval {wording.interval('accuracy', accuracy)}), at "
        f"{wording.milliseconds(pick['latency']['single'])} {wording.a_thing(n)} on one thread."
    ]
    if other is None:
        return [*said, "Nothing else was measured, so there was nothing to choose from."]
    why = "It is expected to be the most accurate"
    if best is not pick:
        gap = 100 * (best["expected"]["value"] - pick["expected"]["value"])
        why = f"{best['spec']} is expected to be {gap:.2f} points better, too little to pay for its time"
    said.append(
        f"{why}; it is the best of all with probability {pick['chance']:.2f}, and taking it is expected to cost "
        f"{100 * pick['regret']:.1f} points against knowing which one is."
    )
    d = n["difference"]
    ratio = other["latency"]["single"] / pick["latency"]["single"]
    pace = f"takes {ratio:.1f} times as long" if ratio >= 1 else f"takes {100 * ratio:.0f}\u202f% of the time"
    worse = "costs" if d["value"] >= 0 else "gains"
    ends = sorted((100 * d["low"], 100 * d["high"])) if d["value"] >= 0 else sorted((-100 * d["high"], -100 * d["low"]))
    said.append(
        f"The runner-up, {other['spec']}, {worse} {abs(100 * d['value']):.1f} points "
        f"[{ends[0]:.1f}, {ends[1]:.1f}] and {pace}."
    )
    return said


def terminal(numbers: Mapping[str, Any], path: str = "") -> RenderableType:
    """A table of candidates, the decision in words, what was left out."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    n = clean(numbers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
    table.add_column("backbone", overflow="fold")
    for name in ("accuracy", "95\u202f% interval", "best?", wording.a_thing(n), "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in n["candidates"]:
        cells = (
            f"{one['spec']}{'' if one['front'] else ' *'}",
            wording.percent(one["metrics"]["accuracy"]["value"]),
            wording.interval("accuracy", one["metrics"]["accuracy"]),
            f"{one['chance']:.2f}",
            wording.milliseconds(one["latency"]["single"]),
            f"{one['bytes'] / 1e6:.1f}\u202fMB",
        )
        table.add_row(*(Text(wording.plain(cell)) for cell in cells), style="bold green" if one["pick"] else "")
    parts: list[Any] = [table]
    if not all(one["front"] for one in n["candidates"]):
        parts.append(Text("* another one is at least as accurate and no slower", style="dim"))
    first, *rest = sentences(n)
    parts += [Text(wording.plain(first), style="bold"), *(Text(wording.plain(line)) for line in rest)]
    parts += [Text(wording.plain(f"left out  {one['item']}: {one['reason']}"), style="yellow") for one in n["left_out"]]
    if path:
        parts.append(Text(f"report  {path}", style="cyan"))
    return Group(*parts)


def _unknown(candidates: list[dict[str, Any]]) -> list[str]:
    """Scores of other packages."""
    return sorted({name for one in candidates for name in one["scores"]} - SCORES.keys())
