"""`topwork list`: what there is, by looking into the rooms."""

from __future__ import annotations

import json

import typer

ROOMS = {
    "sources": "sources",
    "splits": "data.split",
    "backbones": "backbones.sources",
    "probes": "adaptation.probe",
    "checks": "evaluation.checks",
}


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("list")(list_)


def list_(
    room: str = typer.Argument(None, help=f"One of: {', '.join(ROOMS)}."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List data sources, split rules, places of backbones, probes and checks."""
    from topwork import plugins
    from topwork.errors import UnknownName

    if room and room not in ROOMS:
        raise UnknownName.among(room, "the rooms that can be listed", ROOMS)
    found = {name: plugins.summaries(place) for name, place in ROOMS.items() if room in (None, name)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, entries in found.items():
        typer.echo(name)
        for entry, summary in entries.items():
            typer.echo(f"  {entry:<14} {summary}")
