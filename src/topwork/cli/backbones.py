"""`topwork list backbones`, `topwork backbones show NAME`: what is known, what lies here, what would be fetched."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from topwork.backbones.catalogue import Entry, Wanted


def add_to(app: typer.Typer) -> None:
    """Add the group to the application."""
    group = typer.Typer(no_args_is_help=True, help="Facts about pretrained backbones.")
    group.callback()(lambda: None)  # a group, although it has one command
    group.command()(show)
    app.add_typer(group, name="backbones")


def show(
    name: str = typer.Argument(..., help="A spec such as timm:resnet18.a1_in1k, local:FOLDER, bundled."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print what is known about a backbone, and whether it is here."""
    from topwork.backbones.catalogue import record

    entry = record(name)
    if as_json:
        typer.echo(json.dumps(facts(entry)))
        return
    typer.echo(entry.spec)
    rows = {
        "is": "here" if entry.here else "not here: it would be downloaded",
        "lies at" if entry.here else "comes from": entry.here or entry.origin,
        "reads": f"{entry.modality}{f', {entry.input_px} x {entry.input_px} px' if entry.input_px else ''}",
        "mean, std": f"{_numbers(entry.mean)}; {_numbers(entry.std)}" if entry.mean else "",
        "family": entry.family + (f", {entry.year}" if entry.year else ""),
        "architecture": entry.architecture,
        "depthwise": {True: "yes", False: "no", None: ""}[entry.depthwise],
        "parameters": _whole(entry.parameters),
        "multiply-adds": _whole(entry.multiply_adds),
        "features": _whole(entry.features),
        "weights": f"{entry.bytes / 1e6:,.1f} MB{'' if entry.here else ' as float32'}" if entry.bytes else "",
        "trained on": entry.trained_on + (f", {entry.trained_items:,} items" if entry.trained_items else ""),
        "ImageNet top-1": f"{entry.top1:.1f} %" if entry.top1 else "",
        "licence": entry.licence or "not stated: ask its authors before you use it",
        "pickle": "yes: opened with weights_only after its hash was checked" if ".pth" in entry.here else "",
    }
    for title, text in rows.items():
        if text:
            typer.echo(f"  {title:<14} {text}")


def table(wanted: Wanted, as_json: bool) -> None:
    """Backbones that pass, those that are here first."""
    from topwork.backbones.catalogue import listing

    found = listing(wanted)
    if as_json:
        typer.echo(json.dumps([facts(entry) for entry in found]))
        return
    if not found:
        typer.echo("None passes. Facts that are not known do not pass: ask for less")
        return
    wide = max(len(entry.spec) for entry in found)
    title = f"{'':4} {'':{wide}} {'params':>8} {'mult-adds':>9} {'D':>5} {'px':>4} {'top-1':>6}      reads  licence"
    typer.echo(title)
    for entry in found:
        typer.echo(f"{'here' if entry.here else '':4} {entry.spec:{wide}} {_row(entry)}".rstrip())
    lying = sum(bool(entry.here) for entry in found)
    typer.echo(f"{len(found)} backbones, {lying} of them here and usable without a download; dw: depthwise-separable")


def facts(entry: Entry) -> dict[str, Any]:
    """An entry as plain JSON; facts that are not known are left out."""
    known = {k: v for k, v in dataclasses.asdict(entry).items() if v not in (None, "", ())}
    return {**known, "here": bool(entry.here), "where": entry.here or entry.origin}


def _row(entry: Entry) -> str:
    top1 = f"{entry.top1:.1f}" if entry.top1 else ""
    mark = "dw" if entry.depthwise else ""
    return (
        f"{_short(entry.parameters):>8} {_short(entry.multiply_adds):>9} {entry.features or '':>5} "
        f"{entry.input_px or '':>4} {top1:>6} {mark:2}  {entry.modality:>5}  {entry.licence[:24]}"
    )


def _short(value: int | None) -> str:
    if value is None:
        return ""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return str(value)


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
