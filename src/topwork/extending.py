"""Further classes for a saved model, without the data that it was made from.

    statistics.safetensors   -> items of the old classes, drawn     x ~ Normal(m_c, S), as many as there were
    new items                -> their features                      one forward pass each, by the model itself
    both                     -> a new head                          the backbone stays bit for bit what it is
    retention                -> every old class before and after    on --test, else on other drawn items, and so said

A linear head keeps its columns, and the new classes get columns beside them (`nn/columns.py`): among the old classes
nothing changes. Where old classes get new items, or the head is a bank of neighbours, all columns are solved anew, on
the drawn and the new items.

Measured with the bundled backbone, one class left out in turn and added, means over the turns, accuracy on held-out
items of the old classes / recall of the new one (2026-11-21): flowers5_small, 80 images a class: solved on all real
items 0.585 / 0.667, columns 0.573 / 0.642, all anew with S of rank 64 0.558 / 0.767, rank 256 0.537 / 0.708, linear
discriminant 0.498 / 0.567, class means with a diagonal S 0.567 / 0.533. sign_language_digits, 33 a class: 0.900 /
0.958, 0.889 / 0.958, 0.863 / 0.979, 0.847 / 0.979, 0.924 / 0.958, 0.780 / 0.854. flowers5_small, 10 images of the new
class: 0.652 / 0.030, 0.644 / 0.210, 0.640 / 0.200, 0.623 / 0.170, 0.548 / 0.070, 0.584 / 0.360.
Columns lose least of what was known, on average; the discriminant is best on one set and worst on the other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import account, plugins
from topwork.adaptation import probe as probes
from topwork.artefact import bundle, card, onnx, statistics, weights
from topwork.artefact.model import Model, load
from topwork.artefact.proof import prove
from topwork.artefact.snapshot import Snapshot
from topwork.data.overlap import overlap
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.errors import BadData, BadSetting
from topwork.evaluation import retention
from topwork.evaluation.calibrate import activate
from topwork.evaluation.report import render, to_json
from topwork.features.extract import extract
from topwork.ground import FOLDS, Ground
from topwork.nn.class_statistics import ClassStatistics, collect, more
from topwork.nn.columns import columns
from topwork.nn.heads import logits, probabilities
from topwork.nn.log_loss import fit_temperature
from topwork.rung import Rung
from topwork.store import Store
from topwork.store.atomic import new_folder
from topwork.types import Dataset, Head, Predictions, Skipped, Watch

Array = NDArray[Any]

DRAWN = 500  # items of an old class, at most; fewer count for more
ASKED = 200  # other drawn items of a class that measure
LEAST = 2  # items of a new class
UNKEPT = ("bundled:ngrams",)  # a mean of each of their many features, and directions among them, would be too much
ENOUGH = 2000  # items that statistics are taken from, at least, where features of a tuned backbone have to be computed


def of_fit(ground: Ground, rung: Rung, watch: Watch) -> bytes | None:
    """What a fit leaves for later: statistics of its training items' features; None for several labels, n-grams."""
    if ground.dataset.multilabel or ground.dataset.numeric or rung.backbone.card.spec in UNKEPT:
        return None
    from threadpoolctl import threadpool_limits

    rows = rung.rows[np.isin(rung.rows, rung.features.rows)]
    x = rung.x(rows)
    if not len(rows):  # a tuned backbone, of which only what was asked is known
        rows = ground.train[np.argsort(ground.folds[ground.train], kind="stable")]
        rows = np.sort(rows[:ENOUGH])
        features = extract(ground.dataset.take(rows), rung.backbone, None, progress=watch.progress)
        rows, x = rows[features.rows], features.x
    y, C = ground.dataset.targets(), len(ground.dataset.labels)
    with threadpool_limits(1):  # the same bits on any number of processors
        found = collect(x, y[rows], C, statistics.RANK)
    counts = np.where(found.counts > 0, np.bincount(y[ground.train], minlength=C), 0)
    return statistics.pack(dataclasses.replace(found, counts=counts))


@dataclass(frozen=True, eq=False)
class Items:
    """New or asked items and what the model's backbone sees of them."""

    dataset: Dataset
    x: NDArray[np.float32]  # (N, D)
    y: NDArray[np.int64]  # (N,) in the new order of labels
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, eq=False)
class Old:
    """What is known of a saved model."""

    model: Model
    head: Head
    known: ClassStatistics

    @classmethod
    def of(cls, model: Model) -> Old:
        """Raises BadSetting where classes cannot be added."""
        if model.numeric:
            raise BadSetting(f"{model.folder} gives a number, so there are no classes to add to. Use topwork fit")
        if model.multilabel:
            raise BadSetting(f"{model.folder} gives several labels. Classes can be added where each item has one")
        if model.card.spec in UNKEPT:
            raise BadSetting(
                f"{model.folder} tells texts apart by their n-grams, of which it keeps no statistics. Fit again on all "
                "data, or extend a model with another --backbone"
            )
        known = statistics.read(model.folder, model.seal)
        head = weights.head_of(model.contents(bundle.CHECKED[1]), model.manifest["head"])
        return cls(model, head, known)


def extend(
    model: Model,
    found: Dataset,
    test: Dataset | None,
    out: Path,
    *,
    seed: int,
    store: Store | None,
    watch: Watch,
    facts: Mapping[str, Any],
) -> None:
    """Write to `out` a model that knows the classes of `found` (inspected) beside its own, and prove it."""
    began, old = time.monotonic(), Old.of(model)
    for given in (found, *([test] if test is not None else [])):
        if given.modality != model.modality:
            raise BadData(f"{given.name} holds {given.modality}s, but {model.folder} is a model of {model.modality}s")
    labels = (*model.labels, *(label for label in found.labels if label not in model.labels))
    if test is not None:
        found = _without_asked(found, test, labels, store, watch)
    _check(found, model.labels)
    new = _items(model, found, labels, watch)
    asked = _items(model, test, labels, watch) if test is not None else None
    C, fresh = len(labels), len(labels) - len(model.labels)
    head, held_out, way = _solved(old, new, C, seed)
    z, y = _drawn(old.known, ASKED, seed, turn=1)
    temperature = fit_temperature(
        np.concatenate([held_out, logits(head, z)]).astype(np.float32), np.concatenate([new.y, y])
    )
    head = dataclasses.replace(head, temperature=temperature)
    table = _retention(old, head, (z, y), new, held_out, asked, labels)
    watch.say(table["text"])
    if asked is not None:
        said = _predictions(probabilities(head, asked.x), asked, labels)
        on = {"kind": "test", "n": len(asked.y), "text": f"{len(asked.y):,} items of {asked.dataset.name}"}
    else:
        said = _predictions(activate(held_out, "softmax", temperature), new, labels)
        on = {"kind": "cross-validation", "n": len(new.y),
              "text": f"the {len(new.y):,} new items, each asked of a head that had not seen it"}  # fmt: skip
    grown = more(old.known, new.x, new.y, statistics.RANK)
    manifest = model.manifest
    with new_folder(out, bundle.MARKER) as folder:
        written = bundle.write(
            folder,
            onnx=onnx.regraft(model.contents(bundle.CHECKED[0]), head, labels),
            weights=weights.with_head(model.contents(bundle.CHECKED[1]), head),
            card=model.card,
            head=head,
            labels=labels,
            task=model.task,
            name=out.name,
            calibration={"temperature": temperature, "fitted_on": "out-of-fold new items and drawn old ones"},
            data={"name": f"{manifest['data'].get('name', '')} + {found.name}",
                  "items": int(grown.counts.sum()), "hash": account.data_hash(found)},
            history=(*manifest["history"], f"{fresh} classes and {len(new.y):,} items of {found.name} added: {way}",
                     account.code_version()),
            statistics=statistics.pack(grown),
            snapshot=_snapshot(model, found),
            redact=manifest.get("redact"),
            reader=bundle.reader_files(model.folder, manifest, model.seal),
            encrypt=model.seal is not None,
        )  # fmt: skip
        proof = prove(
            folder,
            new.dataset.inputs(),
            probabilities(head, new.x),
            contents=new.dataset.table["content"].to_pylist(),
            store=store,
            progress=watch.progress,
        )
        watch.say(f"proof: {proof.text}")
        numbers = {
            **account.score_saved(
                said,
                task=model.task,
                modality=model.modality,
                multilabel=False,
                data={"name": found.name, "items": len(new.y), "labels": list(labels), "classes": C,
                      "hash": account.data_hash(found)},
                skipped=[dataclasses.asdict(s) for s in (*found.skipped, *new.skipped)],
                evaluated_on=on,
                **facts,
            ),
            "headline": table["text"],
            "retention": table,
            "head": {"method": head.method, "reason": way},
            "proof": {**dataclasses.asdict(proof), "agreement": proof.agreement, "text": proof.text},
            "seconds": {"total": time.monotonic() - began},
        }  # fmt: skip
        shown = (asked or new).dataset
        numbers = account.with_texts(numbers, shown.inputs(), load(folder))
        metrics = account.metrics_of(numbers)
        files = {
            "report.json": to_json(numbers),
            "report.html": render(numbers, account.thumbnails(shown.root, numbers)).encode(),
            "README.md": card.render(
                written, metrics, measured_on=on["text"], proof=proof.fact, folder=str(out)
            ).encode(),
        }
        bundle.add(folder, files)


def _snapshot(model: Model, found: Dataset) -> bytes | None:
    """With the new items, if the model keeps one."""
    kept = bundle.SNAPSHOT in model.manifest["files"]
    return Snapshot.read(model.folder, model.seal).more(found).pack() if kept else None


def _check(found: Dataset, known: Sequence[str]) -> None:
    sizes = np.bincount(found.targets(), minlength=len(found.labels))
    few = [label for label, n in zip(found.labels, sizes, strict=True) if label not in known and n < LEAST]
    if few:
        named = ", ".join(map(repr, few[:5]))
        raise BadData(
            f"{found.name}: too few {found.modality}s of new classes ({named}). Expected at least {LEAST} each"
        )


def _without_asked(found: Dataset, test: Dataset, labels: Sequence[str], store: Store | None, watch: Watch) -> Dataset:
    """New items that are no test items."""
    if unknown := sorted(set(test.labels) - set(labels)):
        raise BadData(f"{test.name} has labels that the model will not know: {unknown[:5]}")
    shared = overlap(test, found, store)
    if shared.any():
        watch.say(f"note: {int(shared.sum()):,} of the new {found.modality}s are in the test data, too: left out")
    return found.take(np.flatnonzero(~shared))


def _items(model: Model, dataset: Dataset, labels: Sequence[str], watch: Watch) -> Items:
    """Features of all that can be read."""
    rows, x, skipped = [], [], []
    for row, answer in enumerate(model.features(dataset.inputs())):
        watch.progress("extract", row + 1, len(dataset))
        if isinstance(answer, Skipped):
            skipped.append(answer)
        else:
            rows.append(row)
            x.append(answer)
    if not rows:
        raise BadData(f"{dataset.name}: none of its {len(dataset):,} {dataset.modality}s can be read")
    order = np.array([labels.index(label) for label in dataset.labels])
    dataset = dataset.take(rows)
    return Items(dataset, np.stack(x), order[dataset.targets()], tuple(skipped))


def _drawn(known: ClassStatistics, most: int, seed: int, turn: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Items (M, D) of the known classes, and which they are (M,)."""
    sizes = [(label, min(int(n), most)) for label, n in enumerate(known.counts) if n]
    x = np.concatenate([known.sample(label, size, seed, turn) for label, size in sizes])
    return x, np.repeat([label for label, _ in sizes], [size for _, size in sizes])


def _solved(old: Old, new: Items, classes: int, seed: int) -> tuple[Head, NDArray[np.float32], str]:
    """The new head, logits (N, C) of the new items by heads that had not seen them, and how it was made."""
    x, y = _drawn(old.known, DRAWN, seed, turn=0)
    weight = (old.known.counts / np.maximum(np.bincount(y, minlength=len(old.known.counts)), 1))[y]
    beside = old.head.kind == "linear" and (new.y >= len(old.known.counts)).all()
    folds = make_folds(new.y, keep_together(new.dataset), FOLDS, seed)

    def solve(rows: Array) -> tuple[Array, Array]:
        """On the drawn items and these new ones."""
        whole, labels = np.concatenate([x, new.x[rows]]), np.concatenate([y, new.y[rows]])
        counted = np.concatenate([weight, np.ones(len(rows))])
        if beside:
            return _columns(old, whole, labels, counted, classes)
        return _anew(whole, labels, counted, classes, seed)

    held_out = np.empty((len(new.y), classes), np.float32)
    for fold in np.unique(folds):
        w, b = solve(np.flatnonzero(folds != fold))
        held_out[folds == fold] = new.x[folds == fold] @ w + b
    w, b = solve(np.arange(len(new.y)))
    arrays = {"weight": np.ascontiguousarray(w, np.float32), "bias": b.astype(np.float32)}
    way = "columns beside those that were there" if beside else "all columns anew, on drawn items of the old classes"
    base = old.head.method.partition(" + ")[0]
    return Head("linear", arrays, method=f"{base} + columns" if beside else "logistic on drawn items"), held_out, way


def _columns(old: Old, x: NDArray[np.float32], y: Array, weight: Array, classes: int) -> tuple[Array, Array]:
    """Those of the old classes stay."""
    T = np.float32(old.head.temperature)
    fresh = classes - len(old.known.counts)
    V, b = columns(logits(old.head, x) / T, x, y, weight, fresh)
    return (
        np.concatenate([old.head.arrays["weight"] / T, V], 1),
        np.concatenate([old.head.arrays["bias"] / T, b]),
    )


def _anew(x: NDArray[np.float32], y: Array, weight: Array, classes: int, seed: int) -> tuple[Array, Array]:
    """All of them."""
    solver = plugins.make(probes.ROOM, "logistic")
    folds = make_folds(y.astype(np.int32), np.arange(len(y)), FOLDS, seed)
    head = solver.solve(x, y, folds, classes, sample_weight=weight).head
    return head.arrays["weight"], head.arrays["bias"]


def _retention(
    old: Old,
    head: Head,
    drawn: tuple[NDArray[np.float32], Array],
    new: Items,
    held_out: NDArray[np.float32],
    asked: Items | None,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Right or wrong before and after, item by item, for the table."""
    known = len(old.known.counts)
    if asked is not None:
        x, y, on = asked.x[asked.y < known], asked.y[asked.y < known], f"items of {asked.dataset.name}"
    else:
        x, y = drawn
        on = "items drawn from what the model remembers of its classes, easier than real ones: --test asks those"
    before, after = logits(old.head, x).argmax(1) == y, logits(head, x).argmax(1) == y
    later = held_out.argmax(1) == new.y
    fresh = {labels[c]: later[new.y == c] for c in range(len(labels)) if (new.y == c).any()}
    if asked is not None:
        said = logits(head, asked.x).argmax(1) == asked.y
        fresh |= {labels[c]: said[asked.y == c] for c in range(known, len(labels)) if (asked.y == c).any()}
    return retention.table(
        labels[:known],
        y,
        before,
        after,
        {label: hits for label, hits in fresh.items() if label not in labels[:known]},
        on,
    )


def _predictions(p: Array, items: Items, labels: Sequence[str]) -> Predictions:
    return Predictions(
        p.astype(np.float32), items.y, tuple(labels), items.dataset.table["item"].to_pylist(), multilabel=False
    )
