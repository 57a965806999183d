"""`topwork inspect`, `split` and `extract`: the early rooms, each on its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import typer

_DATA = typer.Argument(..., help="Images or texts: a folder per class, or a table (csv, tsv, jsonl, parquet).")
_ITEM = typer.Option(None, help="Column of the images or texts; a pair: A,B. Guessed and said.")
_LABEL = typer.Option(None, help="Column of a table that holds the labels. Guessed and said otherwise.")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(inspect)
    app.command()(split)
    app.command()(extract)


def inspect(
    data: str = _DATA,
    item_column: str = _ITEM,
    label_column: str = _LABEL,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Look at the data: counts, sizes, unreadable files, duplicates, leaks, imbalance."""
    from topwork import verbs
    from topwork.cli.console import show, watching

    with watching(as_json) as watch:
        found = verbs.inspect(verbs.read(data, item_column=item_column, label_column=label_column), watch=watch)
    if as_json:
        skipped = [dataclasses.asdict(s) for s in found.dataset.skipped]
        findings = [dataclasses.asdict(f) for f in found.findings]
        typer.echo(json.dumps({"facts": found.facts, "findings": findings, "skipped": skipped}, ensure_ascii=False))
        return
    from rich.table import Table

    for note in found.dataset.notes:
        typer.echo(note)
    table = Table("", "finding", "what to do", box=None, header_style="bold", pad_edge=False)
    for finding in found.findings:
        table.add_row(finding.severity, finding.message, finding.fix)
    typer.echo(f"{len(found.dataset):,} readable items, {len(found.dataset.labels)} labels")
    show(table if found.findings else "Nothing to mend was found.")
    for skipped_item in found.dataset.skipped[:20]:
        typer.echo(f"skipped {skipped_item.item}: {skipped_item.reason}")
    if len(found.dataset.skipped) > 20:
        typer.echo(f"... and {len(found.dataset.skipped) - 20:,} more (--json lists all)")


def split(
    data: str = _DATA,
    out: Path = typer.Option(..., help="Table to write: path, label, split. csv or parquet."),
    rule: str = typer.Option("stratified(test=0.2)", help="stratified(test=0.2, val=0.1) or grouped(test=0.2)."),
    group: str = typer.Option(None, help="Column of a table: items of one group stay on one side."),
    item_column: str = _ITEM,
    label_column: str = _LABEL,
    seed: int = typer.Option(0, help="The same seed gives the same split."),
) -> None:
    """Write a table that says which item is in which split; copies of one item stay on one side."""
    from topwork import verbs
    from topwork.cli.console import watching
    from topwork.data.write import write_table

    with watching() as watch:
        dataset = verbs.read(data, item_column=item_column, label_column=label_column, group_column=group)
        done = verbs.split(verbs.inspect(dataset, watch=watch).dataset, rule, seed=seed)
        write_table(done, out)
    counts = {name: len(done.rows_of(name)) for name in ("train", "val", "test")}
    typer.echo(f"{out}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count))


def extract(
    data: str = _DATA,
    out: Path = typer.Option(..., help="File to write: parquet or npz."),
    backbone: str = typer.Option("auto", help="auto (the bundled one), timm:NAME, hf:NAME, local:FOLDER ..."),
    batch_size: int = typer.Option(None, min=1, help="Images or texts in one forward pass. Chosen and said otherwise."),
    engine: str = typer.Option("auto", help="auto, onnxruntime or torch."),
    item_column: str = _ITEM,
    label_column: str = _LABEL,
) -> None:
    """Write what a frozen backbone sees, for use elsewhere."""
    from topwork import verbs
    from topwork.cli.console import watching

    with watching() as watch:
        dataset = verbs.read(data, item_column=item_column, label_column=label_column)
        features = verbs.extract(dataset, backbone=backbone, out=out, batch_size=batch_size, engine=engine, watch=watch)
    n, d = features.x.shape
    typer.echo(
        f"{out}: {n:,} x {d:,}, {features.computed:,} forward passes, {features.seconds:.1f} s, {features.engine}"
    )
