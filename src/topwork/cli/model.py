"""`topwork predict` and `topwork evaluate`: what a saved model says, and how often it is right."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from topwork.cli.console import QUERY
from topwork.cli.places import places

if TYPE_CHECKING:
    from topwork.artefact.model import Prediction
    from topwork.types import Skipped

SAME = "sql"  # --to: the database that the query reads


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(places("key_file")(predict))
    app.command()(places("key_file")(evaluate))


def predict(
    model: str = typer.Argument(..., help="Folder of a saved model."),
    inputs: list[str] = typer.Argument(
        ...,
        help="Images: files, folders, addresses (s3://, https:// ...), or - for paths on standard input. Texts: a text "
        "in quotation marks, a file that is one text, a folder of .txt files, a table (csv, json, parquet ...), "
        "or - for a text a line. Rows: a table, a row as JSON in quotation marks, or - for one a line. Of all: a "
        "database (sqlite:///file.db, postgresql://...) with --query.",
    ),
    query: str = typer.Option(None, help='Rows of a database to judge: "select id, text from reviews".'),
    key: str = typer.Option(None, help="Column of the query that names a row: id. Guessed and said otherwise."),
    to: str = typer.Option(None, help="Write answers to a table: sql (where the query reads), or another database."),
    table: str = typer.Option(None, help="Name of that table: made if absent, appended to if it fits. All or nothing."),
    item_column: str = typer.Option(None, help="Column of a table that holds the texts. Guessed and said otherwise."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list of {input, label, probability, top}."),
    as_csv: bool = typer.Option(False, "--csv", help="Print input,label,probability; of numbers input,value,low,high."),
    top: int = typer.Option(5, min=1, help="How many labels to show of each."),
) -> None:
    """Say what is in pictures, what texts are about, what a row stands for, or the number that is measured."""
    from topwork import verbs, writing_back
    from topwork.cli import rows, texts
    from topwork.errors import BadData, BadSetting
    from topwork.store.database import is_database
    from topwork.types import Skipped

    if bool(as_json) + bool(as_csv) + bool(to) > 1:
        raise BadSetting("--json, --csv and --to exclude each other")
    place = next((name for name in inputs if is_database(name)), None)
    if place is not None and len(inputs) > 1:
        raise BadSetting("a database is asked alone. Expected one address and a --query")
    if place is None and (query or key or to == SAME):
        raise BadSetting(
            "--query, --key and --to sql are for rows of a database. Expected sqlite:///file.db or the like"
        )
    if table and not to:
        raise BadSetting("--table names where --to writes. Add --to sql, or --to and the address of a database")
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
    if place is not None:
        opening: Any = writing_back.judged(opened, place, query, key, item_column, top)
    else:
        if opened.modality == "text":
            results = opened.stream(texts.asked(inputs, item_column, skip, note), top=top)
        elif opened.modality == "row":
            results = opened.stream(rows.asked(inputs, opened.columns, skip), top=top)
        else:
            paths = (x for name in inputs for x in ((y.rstrip("\n") for y in sys.stdin) if name == "-" else (name,)))
            results = verbs.stream(opened, [path for path in paths if path], top=top)
        opening = contextlib.nullcontext(writing_back.Judged.by_input(results))
    if to:
        where = place if place and to == SAME else to
        count = writing_back.write_back(opened, opening, where, table, listen=lambda one: list(good([one])), say=note)
        typer.echo(f"{table}: {count:,} rows written")
    else:
        with opening as found:
            for line in found.notes:
                note(line)
            predictions = good(one for _, one in found.answers)
            if as_csv:
                _csv(predictions, opened.numeric)
            else:
                (_json if as_json else _table)(predictions)
    if not seen:
        raise BadData(f"None of the {len(skipped)} inputs could be used")


def _json(predictions: Iterator[Prediction]) -> None:
    before = "["
    for prediction in predictions:
        typer.echo(before + json.dumps(prediction.to_json(), ensure_ascii=False), nl=False)
        before = ",\n "
    typer.echo("]" if before != "[" else "[]")


def _csv(predictions: Iterator[Prediction], numeric: bool) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["input", "value", "low", "high"] if numeric else ["input", "label", "probability"])
    for one in predictions:
        told = [one.value, one.low, one.high] if numeric else [one.label, f"{one.probability:.6f}"]
        writer.writerow([one.input, *(f"{x:.6g}" if isinstance(x, float) else x for x in told)])


def _table(predictions: Iterator[Prediction]) -> None:
    from topwork.tasks.regression import written

    for prediction in predictions:
        if prediction.value is not None:
            low, high = prediction.low or 0.0, prediction.high or 0.0
            value, low, high = (written(x, high - low) for x in (prediction.value, low, high))
            about = f"{prediction.probability:.0%} between {low} and {high}"
            typer.echo(f"{prediction.input}\t{prediction.label} {value}\t{about}")
            continue
        others = "  ".join(f"{label} {p:.3f}" for label, p in prediction.top if label != prediction.label)
        typer.echo(f"{prediction.input}\t{prediction.label} {prediction.probability:.3f}\t{others}")


def evaluate(
    model: str = typer.Argument(..., help="Folder of a saved model."),
    data: str = typer.Argument(..., help="Labelled data: a folder per class, or a table."),
    query: str = QUERY,
    item_column: str = typer.Option(None, help="Column of a table that holds the images or texts."),
    label_column: str = typer.Option(None, help="Column of a table that holds the labels."),
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
    report: str = typer.Option(None, help="Write a report.html here as well."),
) -> None:
    """Measure a saved model on labelled data, every number with its interval."""
    from pathlib import Path

    from topwork import verbs, wishes
    from topwork.account import thumbnails
    from topwork.cli.console import show, watching
    from topwork.evaluation.report import render, terminal, to_json
    from topwork.store.atomic import write_file

    opened = verbs.load(model)
    with watching(as_json) as watch:
        columns = {"item_column": item_column, "label_column": label_column}
        dataset = verbs.read(data, query=query, **columns, **wishes.options_of(opened))
        numbers = verbs.evaluate(opened, dataset, watch=watch)
    if report:
        write_file(Path(report), render(numbers, thumbnails(dataset.root, numbers)).encode())
    if as_json:
        typer.echo(to_json(numbers).decode())
    else:
        show(terminal(numbers))
