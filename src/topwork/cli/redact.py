"""`topwork redact`: a new dataset without what tells who is meant."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from topwork.cli.console import QUERY


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(redact)


def redact(
    data: str = typer.Argument(
        ..., help="Images or texts: a folder per class, or a table (csv, tsv, json, jsonl, parquet)."
    ),
    out: Path = typer.Option(
        ..., help="New folder; of texts also a table (csv, parquet). The old data stay as they are."
    ),
    how: str = typer.Option("mask", help="mask: [EMAIL]; pseudonym: [EMAIL_5b2c...], the same for the same person."),
    kinds: str = typer.Option(None, help="email,phone,card ...; otherwise all of topwork list recognisers but names."),
    key: Path = typer.Option(None, help="File with the secret key of pseudonyms; or TOPWORK_REDACT_KEY."),
    names: str = typer.Option(None, help="A model that tells names of people: local:FOLDER or hf:ORG/NAME."),
    faces: str = typer.Option(None, help="A detector of faces, which are blurred: local:detector.onnx."),
    query: str = QUERY,
    item_column: str = typer.Option(None, help="Column of the images or texts; a pair: A,B. Guessed and said."),
    label_column: str = typer.Option(None, help="Column of a table that holds the labels. Guessed and said otherwise."),
    group: str = typer.Option(None, help="Column of a table: items of one group belong together."),
    time_column: str = typer.Option(None, help="Column of a table that says when an item came to be."),
    domain_column: str = typer.Option(None, help="Column of a table that says where an item is from."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """Write a new dataset: texts without addresses and numbers of people, images without metadata and faces."""
    from topwork import verbs
    from topwork.cli.console import show, watching
    from topwork.data.redact import summary

    with watching(as_json) as watch:
        told = verbs.redact(
            data, out, how=how, kinds=kinds, key=key, names=names, faces=faces, query=query, item_column=item_column,
            label_column=label_column, group_column=group, time_column=time_column, domain_column=domain_column,
            watch=watch,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    from rich.table import Table

    typer.echo(f"{out}: {summary(told)[0]}")
    table = Table("found", "times", "items", box=None, header_style="bold", pad_edge=False)
    for kind, fact in told["found"].items():
        table.add_row(kind, f"{fact['count']:,}", f"{fact['items']:,}")
    show(table if told["found"] else "Nothing was found.")
