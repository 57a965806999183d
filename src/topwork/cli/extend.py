"""`topwork extend`: further classes for a saved model, without the data that it was made from."""

from __future__ import annotations

from pathlib import Path

import typer

from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(places("cache", "encrypt", "key_file")(extend))


def extend(
    model: str = typer.Argument(..., help="Folder of a saved model."),
    data: str = typer.Argument(..., help="Items of the new classes: a folder per class, or a table."),
    out: Path = typer.Option(..., help="Where the new model goes."),
    test: str = typer.Option(None, help="Test items of old (and new) classes: what was kept? Without: drawn items."),
    item_column: str = typer.Option(None, help="Column of a table that holds the images or texts."),
    label_column: str = typer.Option(None, help="Column of a table that holds the labels."),
    seed: int = typer.Option(0, help="One seed for everything."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only the result."),
) -> None:
    """Teach a saved model further classes; the old data are not needed."""
    from topwork import verbs
    from topwork.cli.console import show, watching, whereabouts
    from topwork.evaluation import retention
    from topwork.evaluation.report import terminal

    with watching(quiet) as watch:
        made = verbs.extend(
            model, data, out=out, test=test, item_column=item_column, label_column=label_column, seed=seed, watch=watch
        )
    show(retention.lines(made.report["retention"]))
    show(terminal(made.report))
    typer.echo(f"\n{whereabouts(made)}")
