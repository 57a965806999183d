"""What the command line shows while a verb works: one bar on stderr, lines above it, results on stdout.

last_stages fold 2 of 5 ━━━━━━━━╸━━━ 310/480 task 0.412 l2_sp 0.003 0:00:21
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

from topwork.types import Watch

if TYPE_CHECKING:
    from topwork.artefact.model import Model

QUERY = typer.Option(
    None, help='Of a database (DATA is sqlite:///file.db, postgresql://...): "select path, label ...".'
)
LOSSES = 3  # loss terms that the bar has room for


@contextlib.contextmanager
def watching(quiet: bool = False) -> Iterator[Watch]:
    """A Watch that draws with rich: a live bar on a terminal, plain lines anywhere else."""
    if quiet:
        yield Watch()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
    columns = (
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(bar_width=None),  # what is left of the line
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}", markup=False),
        TimeRemainingColumn(),
    )
    bar = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=8, expand=True
    )
    tasks = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total, losses="")
        bar.update(tasks[stage], completed=done, total=total, visible=done < total)

    def say(line: str) -> None:
        console.print(line, markup=False)

    def track(training: str, _: int, numbers: Mapping[str, float]) -> None:
        if training in tasks:
            bar.update(tasks[training], losses=losses(numbers))

    with bar:
        yield Watch(progress, say, track)


def losses(numbers: Mapping[str, float]) -> str:
    """'task 0.412 l2_sp 0.003': the first terms, without the learning rate."""
    shown = [f"{name} {value:.3f}" for name, value in numbers.items() if name != "rate"]
    return " ".join(shown[:LOSSES])


def show(renderable: object) -> None:
    """A result on stdout."""
    from rich.console import Console

    Console(highlight=False).print(renderable)


def whereabouts(model: Model) -> str:
    """Where a new model and its report lie, and how they are used."""
    what = {"text": '"some text"', "row": "TABLE.csv"}.get(model.modality, "FILE")
    report = f"topwork decrypt {model.folder} --out FOLDER" if model.seal else str(model.folder / "report.html")
    return f"model   {model.folder}\nreport  {report}\nuse     topwork predict {model.folder} {what}"
