"""What the command line shows while a verb works: one bar on stderr, lines above it, results on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from topwork.types import Watch


@contextlib.contextmanager
def watching(quiet: bool = False) -> Iterator[Watch]:
    """A Watch that draws with rich: a live bar on a terminal, plain lines anywhere else."""
    if quiet:
        yield Watch()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=8)
    tasks = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total, visible=done < total)

    def say(line: str) -> None:
        console.print(line, markup=False)

    with bar:
        yield Watch(progress, say)


def show(renderable: object) -> None:
    """A result on stdout."""
    from rich.console import Console

    Console(highlight=False).print(renderable)
