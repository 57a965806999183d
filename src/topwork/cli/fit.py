"""`topwork fit`: from a folder of photos or a table of texts to a proven model."""

from __future__ import annotations

from pathlib import Path

import typer

from topwork.cli.console import QUERY
from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(places("cache", "encrypt", "key_file")(fit))


def fit(
    data: str = typer.Argument(
        ...,
        help="Images, texts or rows: a folder per class, a table (csv, tsv, json, jsonl, parquet), a database."
        " Also in a zip or tar, or at s3://, gs://, az://, https://.",
    ),
    query: str = QUERY,
    since: str = typer.Option(
        None, help="A model of earlier data: extract what is new, refit, compare both on old and new items."
    ),
    test: str = typer.Option(None, help="Test data of the same kind, if no split of DATA; of a database, a query."),
    source: list[str] = typer.Option([], help="Other labelled data that may help; may be given several times."),
    source_how: str = typer.Option("intermediate", help="How: intermediate (before), joint (at the same time), both."),
    task: str = typer.Option("auto", help="auto, or {image,text,tabular}-{classification,regression}."),
    backbone: str = typer.Option(
        "auto", help="auto, bundled, timm:NAME, torchvision:NAME, local:FOLDER; of texts bundled:text_small, hf:NAME."
    ),
    steps: str = typer.Option("auto", help="auto, or some of majority, pixels, ngrams, probe, last_stages(1) + l2_sp."),
    reduce: str = typer.Option(
        None, help="Fewer features before the head: pca(64), whitening(64), random_projection(256)."
    ),
    budget: str = typer.Option("5m", help="Time for the optional steps: 90s, 5m, 2h."),
    metric: str = typer.Option("auto", help="What a step must improve: accuracy, balanced_accuracy, macro_f1, r2 ..."),
    split: str = typer.Option(
        "auto", help="auto, stratified(test=0.2), grouped, by_time, by_domain, few_shot(k=5), kfold(folds=5)."
    ),
    group: str = typer.Option(None, help="Column of a table: items of one group stay on one side of every split."),
    item_column: str = typer.Option(None, help="Column of images or texts, a pair: A,B, or those of rows. Guessed."),
    label_column: str = typer.Option(None, help="Column of the labels, else guessed; A,B,C: 0 or 1 in each."),
    split_column: str = typer.Option(None, help="Column of a table that holds train / val / test."),
    time_column: str = typer.Option(None, help="Column of a table that says when an item came to be, for by_time."),
    domain_column: str = typer.Option(None, help="Column of a table that says where an item is from, for by_domain."),
    redact: bool = typer.Option(False, "--redact", help="Mask addresses and numbers of people before texts are kept."),
    redact_kinds: str = typer.Option(None, help="Only these: email,phone ... (with --redact)."),
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
    from topwork.cli.console import show, watching, whereabouts
    from topwork.evaluation import growth
    from topwork.evaluation.report import terminal

    processes.together()
    with watching(quiet or processes.rank() > 0) as watch:
        model = verbs.fit(
            data,
            query=query,
            since=since,
            test=test,
            sources=source,
            source_how=source_how,
            task=task,
            backbone=backbone,
            steps=steps,
            reduce=reduce,
            budget=budget,
            metric=metric,
            split=split,
            group=group,
            item_column=item_column,
            label_column=label_column,
            split_column=split_column,
            time_column=time_column,
            domain_column=domain_column,
            redact=(redact_kinds or True) if redact else False,
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
    if model.report.get("growth"):
        show(growth.lines(model.report["growth"]))
    typer.echo(f"\n{whereabouts(model)}")
