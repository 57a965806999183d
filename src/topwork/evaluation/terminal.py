"""The short form of the report, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from topwork.evaluation import wording
from topwork.evaluation.advice import gained
from topwork.evaluation.plain_json import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "blue"}


def terminal(numbers: Mapping[str, Any], path: str = "") -> RenderableType:
    """Steps, scores, findings, proof, and where the report lies: a rich renderable."""
    from rich.console import Group

    numbers = clean(numbers)
    parts: list[Any] = []
    steps, key = numbers.get("steps") or [], wording.main_metric(numbers)
    if steps and key:
        parts.append(_steps(numbers, key))
    said = [numbers["headline"]] if numbers.get("headline") else wording.verdict(numbers)
    parts += [_line(sentence, "bold") for sentence in said[:1]]
    parts += [_line(sentence, "yellow") for sentence in wording.doubts(numbers)]
    parts += _scores(numbers, key)
    parts += [
        _line(
            _finding(f),
            _COLOURS.get(f.get("severity", ""), ""),
            f.get("severity", ""),
        )
        for f in numbers.get("findings") or ()
    ]
    if numbers.get("skipped"):
        parts.append(
            _line(f"{len(numbers['skipped']):,} items could not be used; the report names them.", "yellow", "left out")
        )
    if (numbers.get("tuning") or {}).get("proofs"):
        parts.append(_line(wording.weights_proven(numbers["tuning"]["proofs"]), "green", "tuning"))
    if numbers.get("proof"):
        parts.append(_proof(numbers["proof"]))
    if (numbers.get("advice") or {}).get("next"):
        parts.append(_line(numbers["advice"]["next"], "bold"))
    if path:
        parts.append(_line(path, "cyan", "report"))
    return Group(*parts)


def _steps(numbers: Mapping[str, Any], key: str) -> RenderableType:
    from rich import box
    from rich.table import Table

    steps = numbers["steps"]
    used, names = wording.in_use(steps), wording.step_names(steps)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
    table.add_column("step", max_width=16, overflow="fold")
    for name in (wording.in_line(key), "95\u202f% interval", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worth it?", ratio=1, overflow="fold")
    for at, step in enumerate(steps):
        metric = (step.get("metrics") or {}).get(key) or {}
        cells = (
            names[at],
            wording.number(key, metric.get("value")),
            wording.interval(key, metric),
            wording.duration(step.get("seconds")),
            gained(step, steps, names) or step.get("verdict") or "",
        )
        table.add_row(*(_text(cell) for cell in cells), style="bold green" if at == used else "")
    return table


def _scores(numbers: Mapping[str, Any], main: str | None) -> list[Text]:
    metrics = numbers.get("metrics") or {}
    keys = [key for key in wording.ordered(metrics) if key != main and metrics[key]]
    return [
        _line(
            f"{wording.number(key, metrics[key]['value'])}  ({wording.interval(key, metrics[key])})",
            "",
            wording.in_line(key),
        )
        for key in keys
    ]


def _proof(proof: Mapping[str, Any]) -> Text:
    numeric = bool(proof.get("numeric"))
    what, of = ("number", "one, in standard deviations,") if numeric else ("label", "a probability")
    said = proof.get("text") or (
        f"the saved model, loaded in a new process, gives the same {what} for {wording.same_labels(proof)}; "
        f"the largest difference of {of} is {wording.tiny(proof.get('max_difference'))}."
    )
    return _line(said, "green" if wording.proven(proof) else "bold red", "proof")


def _finding(found: Mapping[str, Any]) -> str:
    """'12 images have two labels; at least one is wrong.'"""
    message, fix = str(found.get("message", "")), str(found.get("fix", ""))
    between = " " if message.endswith((".", "?", "!")) else "; "
    return f"{message}{between}{fix}" if fix else message


def _line(said: str, style: str, name: str = "") -> Text:
    line = _text("")
    if name:
        line.append(f"{name}: ", style=style)
        return line.append_text(_text(said))
    return line.append_text(_text(said, style))


def _text(value: str, style: str = "") -> Text:
    """Never markup: a label may hold brackets; narrow spaces become plain ones."""
    from rich.text import Text

    return Text(wording.plain(value).replace("\u202f", " ").replace("\xa0", " "), style=style, overflow="fold")
