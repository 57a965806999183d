"""`topwork list`: what there is, by looking into the rooms; `topwork list backbones` adds the catalogue."""

from __future__ import annotations

import json

import typer

ROOMS = {
    "sources": "sources",
    "splits": "data.split",
    "recognisers": "modalities.recognisers",
    "backbones": "backbones.sources",
    "probes": "adaptation.probe",
    "reductions": "adaptation.reduction",
    "pretraining": "adaptation.pretraining",
    "checks": "evaluation.checks",
    "scores": "ranking",
}


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("list")(list_)


def list_(
    room: str = typer.Argument(None, help=f"One of: {', '.join(ROOMS)}."),
    max_params: str = typer.Option("", help="backbones: at most so many parameters, e.g. 10M."),
    max_size: str = typer.Option("", help="backbones: weights of at most this size, e.g. 20MB."),
    license_: str = typer.Option("", "--license", "--licence", help="backbones: of this licence, e.g. apache-2.0."),
    modality: str = typer.Option("", help="backbones: that read image, text or audio."),
    local: bool = typer.Option(False, "--local", help="backbones: usable without a download."),
    depthwise: bool = typer.Option(False, "--depthwise", help="backbones: depthwise-separable ones."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List data sources, split rules, places of backbones, probes and checks; `list backbones` filters a catalogue."""
    from topwork import plugins
    from topwork.errors import BadSetting, UnknownName

    filters = (max_params, max_size, license_, modality, local, depthwise)
    if any(filters) and room != "backbones":
        raise BadSetting("These options narrow a list of backbones. Write: topwork list backbones ...")

    if room and room not in ROOMS:
        raise UnknownName.among(room, "the rooms that can be listed", ROOMS)
    if room == "backbones":
        from topwork.backbones.catalogue import Wanted
        from topwork.cli.backbones import table

        if not any(filters) and not as_json:
            for place, summary in plugins.summaries(ROOMS[room]).items():
                typer.echo(f"{place:<14} {summary}")
            typer.echo()
        table(Wanted(*filters), as_json)
        return
    found = {name: plugins.summaries(place) for name, place in ROOMS.items() if room in (None, name)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, entries in found.items():
        typer.echo(name)
        for entry, summary in entries.items():
            typer.echo(f"  {entry:<14} {summary}")
