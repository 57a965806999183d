"""Asking a saved model about many items: its answers one by one, and how often they are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from topwork.artefact.model import Model, Prediction
from topwork.errors import BadData
from topwork.store import remote
from topwork.types import WRITTEN, Dataset, Predictions, Skipped, Watch


def stream(model: Model, inputs: Sequence[str], top: int) -> Iterator[Prediction | Skipped]:
    """Predictions for files and all inside folders, or for texts or rows, one by one; unreadable ones are Skipped."""
    from topwork.sources import items

    if model.modality in WRITTEN:
        return model.stream(inputs, top=top)
    named = [remote.welcome(name) for name in inputs]
    paths = [path for name in named for path in (items(name) if remote.isdir(name) else (name,))]
    return _fetching(paths, model.stream(paths, top=top))


def evaluate(model: Model, dataset: Dataset, source: str, watch: Watch) -> dict[str, Any]:
    """The numbers of a report, each with its interval; `source`: where the data come from, without secrets."""
    from topwork import account

    targets, inputs = in_labels_of(model, dataset), dataset.inputs()
    rows, answers, skipped = [], [], list(dataset.skipped)
    answered = model.rows(inputs)
    for row, answer in enumerate(answered if model.modality in WRITTEN else _fetching(inputs, answered)):
        watch.progress("predict", row + 1, len(dataset))
        if isinstance(answer, Skipped):
            skipped.append(answer)
        else:
            rows.append(row)
            answers.append(answer)
    if not rows:
        raise BadData(f"{dataset.name}: none of its {len(dataset):,} items could be read")
    items = dataset.table["item"].take(rows).to_pylist()
    said = Predictions(np.stack(answers), targets[rows], model.labels, items, model.multilabel)
    facts = {
        "task": model.task,
        "modality": model.modality,
        "multilabel": model.multilabel,
        "numeric": model.numeric,
        "data": {"name": dataset.name, "items": len(rows), "labels": list(model.labels), "source": source},
        "skipped": [{"item": s.item, "reason": s.reason} for s in skipped],
        "evaluated_on": {"kind": "test", "n": len(rows), "text": f"{len(rows):,} items of {dataset.name}"},
    }
    band = model.manifest["calibration"] if model.numeric else None
    return account.with_texts(account.score_saved(said, band, **facts), [inputs[row] for row in rows], model)


def in_labels_of(model: Model, dataset: Dataset) -> Any:
    """Targets in the model's order of labels."""
    if model.modality != dataset.modality:
        raise BadData(f"{dataset.name} holds {dataset.modality}s, but the model reads {model.modality}s")
    if model.numeric != dataset.numeric:
        kinds = ("classes", "numbers")
        raise BadData(f"{dataset.name} has {kinds[dataset.numeric]}, but the model gives {kinds[model.numeric]}")
    if model.numeric:
        return dataset.targets()
    if model.multilabel != dataset.multilabel:
        kinds = ("one label an item", "lists of labels")
        raise BadData(f"{dataset.name} has {kinds[dataset.multilabel]}, but the model gives {kinds[model.multilabel]}")
    unknown = sorted(set(dataset.labels) - set(model.labels))
    if unknown:
        known = ", ".join(map(repr, model.labels[:10]))
        raise BadData(f"{dataset.name} has labels that the model does not know: {unknown[:5]}. It knows: {known}")
    order = [model.labels.index(label) for label in dataset.labels]
    targets = dataset.targets()
    if not dataset.multilabel:
        return np.asarray(order, np.int32)[targets]
    moved = np.zeros((len(dataset), len(model.labels)), bool)
    moved[:, order] = targets
    return moved


def _fetching(paths: Sequence[str], answers: Iterator[Any]) -> Iterator[Any]:
    """The answers, while the files of the next ones are fetched where they are remote."""
    with remote.ahead(paths):
        yield from answers
