"""`topwork predict` and `topwork evaluate`: what a saved model says, and how often it is right."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from topwork.artefact.model import Prediction
    from topwork.types import Skipped


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(predict)
    app.command()(evaluate)


def predict(
    model: str = typer.Argument(..., help="Folder of a saved model."),
    inputs: list[str] = typer.Argument(
        ...,
        help="Images: files, folders, or - for paths on standard input. Texts: a text in quotation marks, a file that "
        "is one text, a folder of .txt files, a table (csv, tsv, jsonl, parquet), or - for a text a line.",
    ),
    item_column: str = typer.Option(None, help="Column of a table that holds the texts. Guessed and said otherwise."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list of {input, label, probability, top}."),
    as_csv: bool = typer.Option(False, "--csv", help="Print input,label,probability."),
    top: int = typer.Option(5, min=1, help="How many labels to show of each."),
) -> None:
    """Say what is in pictures, or what texts are about."""
    from topwork import verbs
    from topwork.cli import texts
    from topwork.errors import BadData, BadSetting
    from topwork.types import Skipped

    if as_json and as_csv:
        raise BadSetting("--json and --csv exclude each other")
    skipped: list[Skipped] = []
    seen = 0

    def skip(one: Skipped) -> None:
        skipped.append(one)
        typer.echo(f"topwork: skipped {one.item}: {one.reason}", err=True)

    def note(line: str) -> None:
        typer.echo(f"topwork: {line}", err=True)

    def good(results: Iterable[Prediction | Skipped]) -> Iterator[Prediction]:
        nonlocal seen
        for result in results:
            if isinstance(result, Skipped):
                skip(result)
            else:
                seen += 1
                if result.cut:
                    note(f"{result.input}: too long, its end was not read")
                yield result

    opened = verbs.load(model)
    if opened.modality == "text":
        predictions = good(opened.stream(texts.asked(inputs, item_column, skip, note), top=top))
    else:
        paths = (line for name in inputs for line in ((x.rstrip("\n") for x in sys.stdin) if name == "-" else (name,)))
        predictions = good(verbs.stream(opened, [path for path in paths if path], top=top))
    (_json if as_json else _csv if as_csv else _table)(predictions)
    if not seen:
        raise BadData(f"None of the {len(skipped)} inputs could be used")


def _json(predictions: Iterator[Prediction]) -> None:
    before = "["
    for prediction in predictions:
        typer.echo(before + json.dumps(prediction.to_json(), ensure_ascii=False), nl=False)
        before = ",\n "
    typer.echo("]" if before != "[" else "[]")


def _csv(predictions: Iterator[Prediction]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["input", "label", "probability"])
    for prediction in predictions:
        writer.writerow([prediction.input, prediction.label, f"{prediction.probability:.6f}"])


def _table(predictions: Iterator[Prediction]) -> None:
    for prediction in predictions:
        others = "  ".join(f"{label} {p:.3f}" for label, p in prediction.top if label != prediction.label)
        typer.echo(f"{prediction.input}\t{prediction.label} {prediction.probability:.3f}\t{others}")


def evaluate(
    model: str = typer.Argument(..., help="Folder of a saved model."),
    data: str = typer.Argument(..., help="Labelled data: a folder per class, or a table."),
    item_column: str = typer.Option(None, help="Column of a table that holds the images or texts."),
    label_column: str = typer.Option(None, help="Column of a table that holds the labels."),
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
    report: str = typer.Option(None, help="Write a report.html here as well."),
) -> None:
    """Measure a saved model on labelled data, every number with its interval."""
    from pathlib import Path

    from topwork import verbs
    from topwork.account import thumbnails
    from topwork.cli.console import show, watching
    from topwork.evaluation.report import render, terminal, to_json
    from topwork.store.atomic import write_file

    opened = verbs.load(model)
    with watching(as_json) as watch:
        dataset = verbs.read(data, item_column=item_column, label_column=label_column)
        numbers = verbs.evaluate(opened, dataset, watch=watch)
    if report:
        write_file(Path(report), render(numbers, thumbnails(dataset.root, numbers)).encode())
    if as_json:
        typer.echo(to_json(numbers).decode())
    else:
        show(terminal(numbers))
