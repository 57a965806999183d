"""A model's way to the disk: written beside its place, proven there, told about, and only then put in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topwork import account, extending
from topwork.account import Measured
from topwork.artefact import bundle, card, onnx, weights
from topwork.artefact.model import load
from topwork.artefact.proof import prove
from topwork.artefact.snapshot import Snapshot
from topwork.evaluation.calibrate import calibration_of
from topwork.evaluation.report import render, to_json
from topwork.ground import Ground
from topwork.ladder import Climb
from topwork.nn.heads import probabilities
from topwork.store import Remembering
from topwork.store.atomic import new_folder
from topwork.types import Findings, Watch
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
    facts: dict[str, Any],
) -> None:
    """Write, prove, tell. `facts`: what the report holds beside the numbers."""
    rung, dataset = climbed.best, ground.dataset
    head = rung.probe.head
    with new_folder(target, bundle.MARKER) as folder:
        with clock("export"):
            manifest = bundle.write(
                folder,
                onnx=onnx.compose(rung.backbone, head, dataset.labels, account.task_of(dataset)),
                weights=weights.tensors(rung.backbone.graph(), head),
                card=rung.backbone.card,
                head=head,
                labels=dataset.labels,
                task=account.task_of(dataset),
                multilabel=dataset.multilabel,
                name=target.name,
                calibration=calibration_of(head),
                data={"name": dataset.name, "items": len(dataset), "hash": account.data_hash(dataset)},
                history=(*dataset.history, f"kept step {rung.plan.name}: {rung.spec}", account.code_version()),
                statistics=extending.of_fit(ground, rung, watch),
                snapshot=Snapshot.of(dataset, ground.held).pack(),
                redact=facts.get("redact"),
                reader=reader.files() if (reader := getattr(rung.backbone, "reader", None)) else None,
            )
        with clock("prove"):
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
