"""`topwork sweep`: a list of fits over worker processes, and one table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(places("cache", "encrypt", "key_file")(sweep))


def sweep(
    specs: Path = typer.Argument(..., help="A .jsonl file with a fit per line, or a .toml file with [[fit]] tables."),
    workers: int = typer.Option(2, min=1, help="Fits at the same time: they share the processors and the cache."),
    out: Path = typer.Option(None, help="Folder of the models. Default: sweeps/NAME."),
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only the result."),
) -> None:
    """Run many fits; what is done already is left out. Exit code 1 if any failed."""
    from topwork import verbs
    from topwork.cli.console import show, watching
    from topwork.evaluation.report import to_json

    with watching(quiet or as_json) as watch:
        rows = verbs.sweep(specs, workers=workers, out=out, watch=watch)
    if as_json:
        typer.echo(to_json({"fits": rows}).decode())
    else:
        show(table(rows))
    failed = [row for row in rows if row["state"] == "failed"]
    if failed:
        typer.echo("\n".join(f"{row['name']} failed: {row['reason']}" for row in failed), err=True)
        raise typer.Exit(1)


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Name, score with its interval, seconds and folder of every fit."""
    from rich.table import Table
    from rich.text import Text

    from topwork.evaluation.wording import words

    drawn = Table(box=None, pad_edge=False)
    measures = dict.fromkeys(row["measure"] for row in rows if "measure" in row)
    score = " or ".join(words(name).name.lower() for name in measures) or "accuracy"
    for name in ("name", score, "95 % interval", "step", "seconds", "folder"):
        drawn.add_column(name, justify="right" if name in (score, "seconds") else "left", overflow="fold")
    for row in rows:
        metric = row.get("metric")
        value = f"{metric['value']:.1%}" if metric else "failed"
        interval = f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f} %" if metric else ""
        seconds = f"{row['seconds']:,.0f}" + (" (before)" if row["state"] == "known" else "")
        cells = (row["name"], value, interval, row.get("step", ""), seconds, row["folder"])
        drawn.add_row(*map(Text, cells))
    return drawn
