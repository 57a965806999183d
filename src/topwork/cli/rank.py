"""`topwork rank`: which backbone for these data, by measurement."""

from __future__ import annotations

from pathlib import Path

import typer

from topwork.cli.console import QUERY
from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(places("cache", "encrypt", "key_file")(rank))


def rank(
    data: str = typer.Argument(
        ...,
        help="Images or texts: a folder per class, a table (csv, tsv, json, jsonl, parquet), a database."
        " Also in a zip or tar, or at s3://, gs://, az://, https://.",
    ),
    query: str = QUERY,
    backbones: str = typer.Option("auto", help="Backbones, separated by commas. auto: all that are on this machine."),
    max_latency: str = typer.Option(
        None, help="Time for one image on one thread, e.g. 20ms: slower ones are left out."
    ),
    max_size: str = typer.Option(None, help="Size of the backbone, e.g. 20MB: larger ones are left out."),
    sample: int = typer.Option(1000, min=20, help="Images to measure on: more = surer, slower."),
    tolerance: float = typer.Option(0.25, min=0, help="Points of expected accuracy that a faster one may cost."),
    item_column: str = typer.Option(None, help="Column of a table that holds the images. Guessed and said otherwise."),
    label_column: str = typer.Option(None, help="Column of the labels, else guessed; A,B,C: 0 or 1 in each."),
    engine: str = typer.Option("auto", help="auto, onnxruntime or torch."),
    seed: int = typer.Option(0, help="One seed for everything."),
    out: Path = typer.Option(None, help="Write a page with the plot of accuracy against latency here: report.html."),
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
) -> None:
    """Measure backbones on a sample of the data and say which one to take."""
    from topwork import verbs
    from topwork.cli.console import show, watching
    from topwork.evaluation.ranking_report import render, terminal
    from topwork.evaluation.report import to_json
    from topwork.store.atomic import write_file

    with watching(as_json) as watch:
        numbers = verbs.rank(
            data,
            query=query,
            backbones=backbones,
            max_latency=max_latency,
            max_size=max_size,
            sample=sample,
            tolerance=tolerance,
            item_column=item_column,
            label_column=label_column,
            engine=engine,
            seed=seed,
            watch=watch,
        )
    if out is not None:
        write_file(out, render(numbers).encode())
    if as_json:
        typer.echo(to_json(numbers).decode())
    else:
        show(terminal(numbers, str(out or "")))
