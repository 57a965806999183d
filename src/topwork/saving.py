"""A model's way to the disk: written beside its place, proven there, told about, and only then put in place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topwork import account, extending
from topwork.account import Measured
from topwork.artefact import bundle, card, onnx, weights
from topwork.artefact.model import load
from topwork.artefact.proof import Proof, prove
from topwork.artefact.snapshot import Snapshot
from topwork.evaluation.calibrate import calibration_of
from topwork.evaluation.report import render, to_json
from topwork.ground import Ground
from topwork.nn.heads import probabilities
from topwork.rung import Climb, Rung
from topwork.store import Remembering
from topwork.store.atomic import new_folder
from topwork.types import Dataset, Findings, Watch
from topwork.wishes import Stopwatch


def save(
    target: Path,
    found: Findings,
    ground: Ground,
    climbed: Climb,
    measured: Measured,
    store: Remembering,
    clock: Stopwatch,
    watch: Watch,
    facts: Mapping[str, Any],
) -> None:
    """Write, prove, tell. `facts`: what the report holds beside the numbers."""
    rung, dataset = climbed.best, ground.dataset
    with new_folder(target, bundle.MARKER) as folder:
        with clock("export"):
            manifest = _write(folder, target.name, ground, rung, watch, facts)
        with clock("prove"):
            proof = _prove(folder, dataset, rung, store, watch)
        with clock("report"):
            numbers = account.tell(
                found=found,
                ground=ground,
                climbed=climbed,
                measured=measured,
                proof=proof,
                seconds=clock.total(),
                **facts,
            )
            numbers = account.with_texts(numbers, dataset.inputs(), load(folder))
            page = render(numbers, account.thumbnails(dataset.root, numbers))
            readme = card.render(
                manifest,
                measured.metrics,
                measured_on=ground.text,
                recall=measured.recall,
                proof=proof.fact,
                folder=str(target),
            )
            files = {"report.html": page.encode(), "report.json": to_json(numbers), "README.md": readme.encode()}
            bundle.add(folder, files)


def _write(
    folder: Path, name: str, ground: Ground, rung: Rung, watch: Watch, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The model as it will be loaded; returns its manifest."""
    head, dataset = rung.probe.head, ground.dataset
    return bundle.write(
        folder,
        onnx=onnx.compose(rung.backbone, head, dataset.labels, account.task_of(dataset)),
        weights=weights.tensors(rung.backbone.graph(), head),
        card=rung.backbone.card,
        head=head,
        labels=dataset.labels,
        task=account.task_of(dataset),
        multilabel=dataset.multilabel,
        name=name,
        calibration=calibration_of(head),
        data={"name": dataset.name, "items": len(dataset), "hash": account.data_hash(dataset)},
        history=(*dataset.history, f"kept step {rung.plan.name}: {rung.spec}", account.code_version()),
        statistics=extending.of_fit(ground, rung, watch),
        snapshot=Snapshot.of(dataset, ground.held).pack(),
        redact=facts.get("redact"),
        reader=reader.files() if (reader := getattr(rung.backbone, "reader", None)) else None,
    )


def _prove(folder: Path, dataset: Dataset, rung: Rung, store: Remembering, watch: Watch) -> Proof:
    """What was written says the same as what was measured, in a new process."""
    head = rung.probe.head
    rows = rung.held if len(rung.held) else rung.rows
    asked = dataset.take(rows)
    proof = prove(
        folder,
        asked.inputs(),
        probabilities(head, rung.x(rows)),
        contents=asked.table["content"].to_pylist(),
        store=store,
        progress=watch.progress,
    )
    watch.say(f"proof: {proof.text}")
    return proof
