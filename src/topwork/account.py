"""The account of a fit: one set of numbers, which report.json, report.html and the terminal show.

Where nothing was held out, the kept step is measured by repeated, nested cross-validation: every fold in turn is left
out, and everything that was chosen (method, strength, temperature) is chosen again without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import probe as probes
from topwork.artefact.model import Model
from topwork.artefact.proof import Proof
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadData
from topwork.evaluation import checks, occlusion
from topwork.evaluation.advice import advice
from topwork.evaluation.calibrate import activate
from topwork.evaluation.score import per_class, score, score_repeats, widening
from topwork.ground import Ground
from topwork.modalities.image import thumbnail
from topwork.nn.heads import logits
from topwork.nn.log_loss import fit_temperature, log_priors
from topwork.rung import Climb, Rung, held_out, out_of_fold
from topwork.transfer import alarms
from topwork.types import VERSION, WRITTEN, Dataset, Findings, Metric, Predictions, Watch

REPEATS = 2
THUMBNAIL_PX = 192


@dataclass(frozen=True, eq=False)
class Measured:
    """How good the kept step is."""

    metrics: Mapping[str, Metric]
    recall: Mapping[str, Metric]  # by label
    answers: Mapping[str, Any]  # of the checks
    predictions: Predictions


def measure(ground: Ground, rung: Rung, seed: int, watch: Watch) -> Measured:
    """Metrics, per-class numbers and every check, on items that the model has not seen."""
    targets, head, curve = ground.dataset.targets(), rung.probe.head, rung.frozen or rung
    training = {  # of features that have not seen the labels
        "train_x": curve.x(curve.rows),
        "train_targets": targets[curve.rows],
        "train_folds": ground.folds[curve.rows],
        "temperature": head.temperature,
        "band": head.settings if "low" in head.settings else None,
        "seed": seed,
    }
    if len(rung.held):
        said = held_out(ground, rung)
        metrics, classes = score(said), per_class(said)
        context = checks.Context(said, rung.held, logits(head, rung.x(rung.held)), **training)
    elif rung.plan.tuned:  # nothing was chosen on the folds but whether to keep the step
        said, folds = out_of_fold(ground, rung), [ground.folds[rung.rows]]
        metrics, classes = score_repeats([said], folds), per_class(said, widening([said], folds))
        context = checks.Context(said, rung.rows, rung.probe.held_out, folds=folds[0], **training)
    else:
        repeats, folds, z = nested(ground, rung, seed, watch)
        said = repeats[0]
        metrics, classes = score_repeats(repeats, folds), per_class(said, widening(repeats, folds))
        context = checks.Context(said, rung.rows, z, folds=folds[0], **training)
    recall = {row["label"]: Metric(**row["recall"]) for row in classes}
    return Measured(metrics, recall, {"per_class": classes, **checks.run(context)}, said)


def nested(
    ground: Ground, rung: Rung, seed: int, watch: Watch
) -> tuple[list[Predictions], list[NDArray[np.int32]], NDArray[np.float32]]:
    """Predictions and folds of each repeat, and the first repeat's logits: everything chosen without the asked fold."""
    x, y, together = rung.x(rung.rows), ground.dataset.targets()[rung.rows], keep_together(ground.dataset)[rung.rows]
    labels = len(ground.dataset.labels)
    count = len(np.unique(ground.folds[rung.rows]))
    predictions, assigned, first = [], [], np.empty((len(y), labels), np.float32)
    repeats = REPEATS if ground.drawn else 1
    for repeat in range(repeats):
        outer = make_folds(y, together, count, seed + 1 + repeat) if ground.drawn else ground.folds[rung.rows]
        p = np.empty((len(y), labels))
        for number, fold in enumerate(np.unique(outer)):
            watch.progress("measure", repeat * count + number, repeats * count)
            own = outer == fold
            inner = None if ground.drawn or count < 3 else outer[~own]
            z, temperature = _chosen_without(x, y, own, together, count, labels, rung.plan.methods, seed, inner)
            p[own] = activate(z, ground.dataset.activation, temperature)
            if repeat == 0:
                first[own] = z
        predictions.append(ground.predictions(rung.rows, p))
        assigned.append(outer)
    watch.progress("measure", 1, 1)
    return predictions, assigned, first


def _chosen_without(
    x: NDArray[np.float32],
    y: NDArray[Any],
    own: NDArray[np.bool_],
    together: NDArray[Any],
    count: int,
    labels: int,
    methods: Sequence[str],
    seed: int,
    inner: NDArray[np.int32] | None = None,
) -> tuple[NDArray[np.float32], float]:
    """Logits of the items of one fold, and their temperature, from a head that was chosen on all others."""
    rest = y[~own]
    if y.ndim == 1 and (rest == rest[0]).all():  # nothing can be learnt from a single class or number
        if y.dtype.kind == "f":
            return np.full((int(own.sum()), 1), rest[0], np.float32), 1.0
        n = np.bincount(rest, minlength=labels).astype(float)
        return np.tile(log_priors(n, n.sum(), False).astype(np.float32), (int(own.sum()), 1)), 1.0
    inner = make_folds(rest, together[~own], count, seed) if inner is None else inner
    best, _ = probes.choose(x[~own], rest, inner, labels, methods=methods)
    return logits(best.head, x[own]), fit_temperature(best.held_out, rest)


def tell(
    *,
    found: Findings,
    ground: Ground,
    climbed: Climb,
    measured: Measured,
    proof: Proof,
    seconds: Mapping[str, float],
    **settings: Any,
) -> dict[str, Any]:
    """Everything that report.json holds; `settings` (created, command, seed, source, choices) go in as they are."""
    dataset, rung = ground.dataset, climbed.best
    did = list(
        {id(r.features): r.features for r in climbed.rungs if r.plan.backbone == rung.plan.backbone}.values()
    )  # a tuned step that does not pay has those of its probe
    source, choices = settings.pop("source"), settings.pop("choices")
    numbers = {
        "topwork": VERSION,
        "task": task_of(dataset),
        "modality": dataset.modality,
        "multilabel": dataset.multilabel,
        "numeric": dataset.numeric,
        **settings,
        "data": {
            "name": dataset.name,
            "source": source,
            "items": len(dataset),
            "classes": len(dataset.labels),
            "labels": list(dataset.labels),
            "counts": counts(ground),
            "hash": data_hash(dataset),
            "notes": list(dataset.notes),
        },
        "findings": [
            {**dataclasses.asdict(f), "rows": None, "count": len(f.rows)}
            for f in (*found.findings, *alarms(ground, climbed))
        ],
        "skipped": [dataclasses.asdict(s) for s in (*dataset.skipped, *rung.features.skipped)],
        "choices": [dataclasses.asdict(c) for c in (*choices, *rung.features.choices)],
        "backbone": dataclasses.asdict(rung.backbone.card),
        "head": {"method": rung.probe.head.method, "reason": rung.probe.reason},
        "extraction": {
            f"{dataset.modality}s": len(rung.features.rows),
            "forward_passes": sum(f.computed for f in did),
            "cached": rung.features.cached,
            "seconds": sum(f.seconds for f in did),
            "engine": rung.features.engine,
            f"{dataset.modality}s_per_second": _rate(sum(f.computed for f in did), sum(f.seconds for f in did)),
        },
        "steps": [
            {
                "name": s.name,
                "spec": s.spec,
                "metrics": plain(s.metrics),
                "seconds": s.seconds,
                "kept": s.kept,
                "verdict": s.verdict,
                "gain": dict(s.gain) if s.gain else None,
            }
            for s in climbed.steps
        ],
        **({"tuning": dict(rung.facts)} if rung.facts else {}),
        "evaluated_on": {"kind": ground.kind, "n": len(measured.predictions.targets), "text": ground.text},
        "metrics": plain(measured.metrics),
        **measured.answers,
        "proof": {**dataclasses.asdict(proof), "agreement": proof.agreement, "text": proof.text},
        "hashes": {"data": data_hash(dataset), "backbone": rung.backbone.card.weights, "code": code_version()},
        "seconds": dict(seconds),
    }
    return {**numbers, "advice": advice(numbers)}


def score_saved(predictions: Predictions, band: Mapping[str, float] | None = None, **facts: Any) -> dict[str, Any]:
    """The account of a saved model on labelled data; `band`: what it says lies about its numbers."""
    answers = checks.run(checks.Context(predictions, band=band))
    return {
        "topwork": VERSION,
        **facts,
        "metrics": plain(score(predictions)),
        "per_class": per_class(predictions),
        **answers,
    }


def with_texts(
    numbers: dict[str, Any], texts: Sequence[str], model: Model, seconds: float = occlusion.SECONDS
) -> dict[str, Any]:
    """The numbers of a model with the texts or rows that the gallery shows, and which words or values mattered to it.

    `texts`: those that the rows of the gallery count, all of a dataset.inputs(). Numbers about images stay as they are.
    `seconds`: for the words; texts that come later are shown without them.
    """
    if numbers.get("modality") not in WRITTEN or not numbers.get("gallery"):
        return numbers
    apart = occlusion.cells if numbers["modality"] == "row" else occlusion.words
    shelves = {name: shelf[: occlusion.SHOWN] for name, shelf in numbers["gallery"].items()}
    entries = [entry for shelf in shelves.values() for entry in shelf]
    shown = [str(texts[entry["row"]]) for entry in entries]
    scale = (numbers["metrics"]["rmse"]["value"] or 1.0) if model.numeric else None
    told = iter(occlusion.explain(entries, shown, model.labels, model.rows, seconds, scale, apart))
    return {**numbers, "gallery": {name: [next(told) for _ in shelf] for name, shelf in shelves.items()}}


def thumbnails(root: str, numbers: Mapping[str, Any]) -> dict[str, bytes]:
    """Small pictures, without metadata, of every item in the gallery that can still be read; none of texts."""
    if numbers.get("modality") in WRITTEN:
        return {}
    pictures: dict[str, bytes] = {}
    for entry in (entry for shelf in numbers.get("gallery", {}).values() for entry in shelf):
        try:
            path = entry["item"] if "://" in entry["item"] else os.path.join(root, entry["item"])
            pictures[entry["item"]] = thumbnail(path, THUMBNAIL_PX)
        except BadData:
            continue  # deleted since it was read: the page shows its name
    return pictures


def counts(ground: Ground) -> dict[str, dict[str, int]]:
    """Items of each label on each side; none of numbers."""
    targets, labels = ground.dataset.targets(), ground.dataset.labels
    sides: dict[str, Sequence[int] | NDArray[Any]] = {"train": ground.train, ground.kind: ground.held}
    found = {}
    for side, rows in sides.items():
        if len(rows) and not ground.dataset.numeric:
            of = targets[rows]
            each = of.sum(0) if ground.dataset.multilabel else np.bincount(of, minlength=len(labels))
            found[side] = dict(zip(labels, each.tolist(), strict=True))
    return found


def task_of(dataset: Dataset) -> str:
    """What is learnt from it: "image-classification", "text-regression", "tabular-classification"."""
    about = "tabular" if dataset.modality == "row" else dataset.modality
    return f"{about}-{'regression' if dataset.numeric else 'classification'}"


def data_hash(dataset: Dataset) -> str:
    """Names this content with these labels, whatever its order and wherever it lies."""
    targets = dataset.table["target"].to_pylist()
    lines = sorted(
        content.hex() + repr(target)
        for content, target in zip(dataset.table["content"].to_pylist(), targets, strict=True)
    )
    text = "\n".join([repr(dataset.labels), *lines])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def code_version() -> str:
    """Names the code that ran: the version and a hash of every source file."""
    house = Path(__file__).parent
    hashed = hashlib.blake2b(digest_size=8)
    for path in sorted(house.rglob("*.py")):
        hashed.update(path.relative_to(house).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{VERSION}+{hashed.hexdigest()}"


def metrics_of(numbers: Mapping[str, Any]) -> dict[str, Metric]:
    """Undo `plain`."""
    return {name: Metric(**metric) for name, metric in numbers["metrics"].items()}


def plain(metrics: Mapping[str, Metric]) -> dict[str, dict[str, float | int]]:
    """Metrics as plain JSON."""
    return {name: dataclasses.asdict(metric) for name, metric in metrics.items()}


def _rate(items: int, seconds: float) -> float | None:
    return items / seconds if items and seconds > 0 else None
