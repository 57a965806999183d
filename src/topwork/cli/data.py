"""`topwork inspect`, `clean`, `split` and `extract`: the early rooms, each on its own."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from topwork.cli.console import QUERY
from topwork.cli.places import places

_DATA = typer.Argument(
    ..., help="Images, texts or rows: a folder per class, a table (csv, tsv, json, jsonl, parquet), a database."
)
_ITEM = typer.Option(None, help="Column of images or texts, a pair: A,B, or those of rows. Guessed.")
_LABEL = typer.Option(
    None, help="Column of the labels, guessed and said otherwise; A,B,C: zeros and ones, one column for each label."
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(places("cache", "encrypt", "key_file")(inspect))
    app.command()(places("cache", "encrypt", "key_file")(clean))
    app.command()(split)
    app.command()(places("cache", "encrypt", "key_file")(extract))


def inspect(
    data: str = _DATA,
    query: str = QUERY,
    quick: bool = typer.Option(False, "--quick", help="Only what the files tell: no backbone, no features."),
    deep: bool = typer.Option(False, "--deep", help="Features of all items, however long that takes."),
    budget: str = typer.Option("10m", help="Time for features; where they take longer the look is quick."),
    out: Path = typer.Option(
        None, help="findings.json: every finding, item by item, with an action that you may edit."
    ),
    report: Path = typer.Option(None, help="A page: findings, examples, a map of the items."),
    backbone: str = typer.Option(
        "auto", help="Whose features tell: auto (the bundled one), timm:NAME, local:FOLDER ..."
    ),
    item_column: str = _ITEM,
    label_column: str = _LABEL,
    seed: int = typer.Option(0, help="Of folds and samples."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Look at the data: unreadable files, copies, leaks, wrong labels, outliers; a proposed fix for each finding."""
    from topwork import inspection, verbs
    from topwork.cli.console import show, watching
    from topwork.errors import BadSetting
    from topwork.store.atomic import write_file

    if quick and deep:
        raise BadSetting("--quick and --deep: give one of them")
    for file, suffix in ((out, ".json"), (report, ".html")):
        if file is not None and file.suffix != suffix:
            raise BadSetting(f"{file}: expected a name that ends in {suffix}")
    with watching(as_json) as watch:
        dataset = verbs.read(data, query=query, item_column=item_column, label_column=label_column)
        look = False if quick else True if deep else None
        found = verbs.inspect(
            dataset, deep=look, drop_leaks=False, backbone=backbone, budget=budget, seed=seed, watch=watch
        )
        told = verbs.told(dataset, found, data, query, seed=seed)
        if report is not None:
            write_file(report, inspection.page(told, dataset, watch).encode("utf-8", "backslashreplace"))
    if out is not None:
        write_file(out, json.dumps(told, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    from topwork.evaluation.inspection_report import terminal

    show(terminal(told, *(str(path) for path in (out, report) if path is not None)))


def clean(
    data: str = _DATA,
    out: Path = typer.Option(..., help="New folder, or a table (csv, parquet) that names the old files."),
    drop: str = typer.Option(
        None, help="Kinds of findings, e.g. duplicates,unreadable. Default: what is a fact of the files, no opinions."
    ),
    apply: Path = typer.Option(None, help="A findings.json of topwork inspect; its actions may have been edited."),
    link: bool = typer.Option(False, "--link", help="Hard links instead of copies: no space, but shared bytes."),
    query: str = QUERY,
    backbone: str = typer.Option("auto", help="Whose features tell of wrong labels and outliers."),
    item_column: str = _ITEM,
    label_column: str = _LABEL,
    seed: int = typer.Option(0, help="Of folds and samples."),
) -> None:
    """Write a new dataset without what is wrong; the old one is never touched, and every change is listed."""
    from topwork import verbs
    from topwork.cli.console import watching

    with watching() as watch:
        done = verbs.clean(
            data, out, drop=drop, apply=apply, link=link, query=query, item_column=item_column,
            label_column=label_column, backbone=backbone, seed=seed, watch=watch,
        )  # fmt: skip
    for line in done.lines():
        typer.echo(line)


def split(
    data: str = _DATA,
    query: str = QUERY,
    out: Path = typer.Option(..., help="Table to write: path, label, split. csv or parquet."),
    rule: str = typer.Option(
        "stratified(test=0.2)",
        help="stratified(test=0.2, val=0.1), grouped, by_time(test=0.2), by_domain(test='a,b'), few_shot(k=5).",
    ),
    group: str = typer.Option(None, help="Column of a table: items of one group stay on one side."),
    time_column: str = typer.Option(None, help="Column of a table that says when an item came to be, for by_time."),
    domain_column: str = typer.Option(None, help="Column of a table that says where an item is from, for by_domain."),
    item_column: str = _ITEM,
    label_column: str = _LABEL,
    seed: int = typer.Option(0, help="The same seed gives the same split."),
) -> None:
    """Write a table that says which item is in which split; copies of one item stay on one side."""
    from topwork import verbs, wishes
    from topwork.cli.console import watching
    from topwork.data.write import write_table

    with watching() as watch:
        rule, named = wishes.carried(rule, group_column=group, time_column=time_column, domain_column=domain_column)
        dataset = verbs.read(data, query=query, item_column=item_column, label_column=label_column, **named)
        done = verbs.split(verbs.inspect(dataset, watch=watch).dataset, rule, seed=seed)
        typer.echo(done.history[-1])
        write_table(done, out)
    counts = {name: len(done.rows_of(name)) for name in ("train", "val", "test")}
    typer.echo(f"{out}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count))


def extract(
    data: str = _DATA,
    query: str = QUERY,
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
        dataset = verbs.read(data, query=query, item_column=item_column, label_column=label_column)
        features = verbs.extract(dataset, backbone=backbone, out=out, batch_size=batch_size, engine=engine, watch=watch)
    n, d = features.x.shape
    typer.echo(
        f"{out}: {n:,} x {d:,}, {features.computed:,} forward passes, {features.seconds:.1f} s, {features.engine}"
    )
