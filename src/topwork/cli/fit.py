"""`topwork fit`: from a folder of photos or a table of texts to a proven model."""

from __future__ import annotations

from pathlib import Path

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fit)


def fit(
    data: str = typer.Argument(..., help="Images or texts: a folder per class, or a table (csv, tsv, jsonl, parquet)."),
    test: str = typer.Option(None, help="Test data of the same kind, if it is not a split of DATA."),
    source: list[str] = typer.Option([], help="Other labelled data that may help; may be given several times."),
    source_how: str = typer.Option("intermediate", help="How: intermediate (before), joint (at the same time), both."),
    task: str = typer.Option("auto", help="auto: as the data are; image-classification or text-classification."),
    backbone: str = typer.Option(
        "auto", help="auto, bundled, timm:NAME, torchvision:NAME, local:FOLDER; of texts bundled:text_small, hf:NAME."
    ),
    steps: str = typer.Option("auto", help="auto, or some of majority, pixels, ngrams, probe, last_stages(1) + l2_sp."),
    budget: str = typer.Option("5m", help="Time for the optional steps: 90s, 5m, 2h."),
    metric: str = typer.Option("accuracy", help="What a step must improve: accuracy, balanced_accuracy, macro_f1 ..."),
    split: str = typer.Option("auto", help="auto, stratified(test=0.2), grouped(test=0.2) or kfold(folds=5)."),
    group: str = typer.Option(None, help="Column of a table: items of one group stay on one side of every split."),
    item_column: str = typer.Option(None, help="Column of the images or texts; a pair: A,B. Guessed and said."),
    label_column: str = typer.Option(None, help="Column of a table that holds the labels. Guessed and said otherwise."),
    split_column: str = typer.Option(None, help="Column of a table that holds train / val / test."),
    keep_leaks: bool = typer.Option(False, "--keep-leaks", help="Train on items that are in the test data, too."),
    batch_size: int = typer.Option(None, min=1, help="Images or texts in one forward pass. Chosen and said otherwise."),
    engine: str = typer.Option("auto", help="auto, onnxruntime or torch."),
    seed: int = typer.Option(0, help="One seed for everything."),
    track: str = typer.Option(None, help="Where loss curves go besides the report: tensorboard or mlflow."),
    out: Path = typer.Option(None, help="Where the model goes. Default: models/NAME."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only the result."),
) -> None:
    """Train, prove and save a model."""
    from topwork import processes, verbs
    from topwork.cli.console import show, watching
    from topwork.evaluation.report import terminal

    processes.together()
    with watching(quiet or processes.rank() > 0) as watch:
        model = verbs.fit(
            data,
            test=test,
            sources=source,
            source_how=source_how,
            task=task,
            backbone=backbone,
            steps=steps,
            budget=budget,
            metric=metric,
            split=split,
            group=group,
            item_column=item_column,
            label_column=label_column,
            split_column=split_column,
            keep_leaks=keep_leaks,
            batch_size=batch_size,
            engine=engine,
            seed=seed,
            track=track,
            out=out,
            watch=watch,
        )
    if processes.rank():
        return  # the first process tells
    show(terminal(model.report))
    what = '"some text"' if model.modality == "text" else "FILE"
    typer.echo(
        f"\nmodel   {model.folder}\nreport  {model.folder / 'report.html'}\n"
        f"use     topwork predict {model.folder} {what}"
    )
