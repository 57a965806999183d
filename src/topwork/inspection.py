"""The account of an inspection: findings.json, with an action for every item, and the plan that it becomes again.

    tell(dataset, found, ...)      numbers of the page and of findings.json
    plan_of(told, dataset, found)  row -> what to do, from a findings.json that a user may have edited
    plan_of_kinds(found, kinds)    the same for `--drop KIND`

A findings.json belongs to the data that it was made of: their hash is compared, and every item is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.account import data_hash
from topwork.data import clean
from topwork.data.clean import Cleaned
from topwork.data.proposals import ACTIONS, Proposal, drops, propose, strongest
from topwork.data.write import SEPARATOR
from topwork.errors import BadData
from topwork.evaluation import inspection_report
from topwork.modalities import rows
from topwork.modalities.image import thumbnail
from topwork.types import VERSION, WRITTEN, Dataset, Finding, Findings, Watch

LABELLING = ("relabel", "group")
EXAMPLE_PX, STAMP_PX = 176, 88


def tell(dataset: Dataset, found: Findings, **facts: Any) -> dict[str, Any]:
    """Everything that was found in `dataset`, item by item; rows count the data as they were read."""
    place = rows_in(dataset, found.dataset)
    return {
        "topwork": VERSION,
        "kind": "findings",
        **facts,
        "modality": dataset.modality,
        "multilabel": dataset.multilabel,
        "data": {
            "name": dataset.name,
            "items": len(dataset),
            "readable": len(found.dataset),
            "labels": list(dataset.labels),
            "hash": data_hash(found.dataset),
            "notes": list(dataset.notes),
        },
        "facts": {name: value for name, value in found.facts.items() if name != "map"},
        "findings": [_finding(one, dataset, found, place) for one in found.findings],
        "skipped": [{"item": one.item, "reason": one.reason} for one in found.dataset.skipped],
        "map": _map(found, place),
    }


def _finding(finding: Finding, dataset: Dataset, found: Findings, place: NDArray[Any]) -> dict[str, Any]:
    items, proposals = found.dataset.table["item"], propose(finding, found.dataset)
    listed = [
        {
            "item": items[one.row].as_py(),
            "row": int(place[one.row]),
            "label": label_of(found.dataset, one.row),
            "action": one.action,
            "to": one.to,
            "score": one.score,
            "reason": one.reason,
        }
        for one in proposals
    ]
    if finding.kind == "unreadable":
        listed = _unreadable(dataset, found, place)
    counts = {action: sum(one["action"] == action for one in listed) for action in ACTIONS}
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "message": finding.message,
        "fix": finding.fix,
        "count": len(listed) or len(finding.rows),
        "actions": {action: count for action, count in counts.items() if count},
        "items": listed,
    }


def _unreadable(dataset: Dataset, found: Findings, place: NDArray[Any]) -> list[dict[str, Any]]:
    """Rows that are not among the inspected, with what was said of them, in the same order."""
    gone = np.setdiff1d(np.arange(len(dataset)), place)
    said = found.dataset.skipped[len(dataset.skipped) :]
    return [
        {
            "item": one.item, "row": int(row), "label": label_of(dataset, int(row)), "action": "drop", "to": "",
            "score": None, "reason": one.reason,
        }
        for row, one in zip(gone, said, strict=False)
    ]  # fmt: skip


def _map(found: Findings, place: NDArray[Any]) -> dict[str, Any] | None:
    """The places of the items, with what the page says of each."""
    told = found.facts.get("map")
    if not told:
        return None
    items = found.dataset.table["item"].take(told["rows"]).to_pylist()
    labels = [label_of(found.dataset, row) for row in told["rows"]]
    return {**told, "rows": place[told["rows"]].tolist(), "items": items, "labels": labels}


def page(told: Mapping[str, Any], dataset: Dataset, watch: Watch) -> str:
    """The page, with a small picture or the text of every item that it shows."""
    examples, drawn = inspection_report.rows_shown(told)
    if dataset.modality in WRITTEN:
        texts, say = dataset.inputs(), rows.shown if dataset.modality == "row" else str
        return inspection_report.render(told, {}, {row: say(texts[row]) for row in {*examples, *drawn}})
    pictures: dict[int, bytes] = {}
    sizes = dict.fromkeys(drawn, STAMP_PX) | dict.fromkeys(examples, EXAMPLE_PX)
    for done, (row, px) in enumerate(sizes.items()):
        watch.progress("page", done, len(sizes))
        try:
            pictures[row] = thumbnail(dataset.path(row), px)
        except BadData:
            continue  # the page says that there is no preview
    watch.progress("page", len(sizes), len(sizes))
    return inspection_report.render(told, pictures, {})


def read(path: str | Path) -> dict[str, Any]:
    """A findings.json, checked as far as it can be without the data."""
    try:
        told = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BadData(f"{path} is no JSON: {error}") from error
    if not isinstance(told, dict) or told.get("kind") != "findings" or not isinstance(told.get("findings"), list):
        raise BadData(f"{path} is no findings.json. Expected what topwork inspect DATA --out findings.json writes")
    for finding in told["findings"]:
        for one in finding.get("items") or ():
            if one.get("action") not in ACTIONS:
                said = f"{path}: {finding.get('kind')}, {one.get('item')}: there is no action {one.get('action')!r}"
                raise BadData(f"{said}. Expected one of: {', '.join(ACTIONS)}")
            if one["action"] in LABELLING and not one.get("to"):
                raise BadData(
                    f"{path}: {finding.get('kind')}, {one.get('item')}: {one['action']} to what? 'to' is empty"
                )
    return told


def plan_of(told: Mapping[str, Any], dataset: Dataset, found: Findings) -> dict[int, Proposal]:
    """Row of the inspected dataset -> what to do. BadData where the data are not those of the findings."""
    if (told.get("data") or {}).get("hash") != data_hash(found.dataset):
        raise BadData(f"The findings are of other data than {dataset.name} is now. Inspect again and apply those")
    place = {int(row): at for at, row in enumerate(rows_in(dataset, found.dataset))}
    items = dataset.table["item"]
    proposals = []
    for finding in told["findings"]:
        for one in finding.get("items") or ():
            row = one.get("row")
            if not isinstance(row, int) or not 0 <= row < len(dataset) or items[row].as_py() != one.get("item"):
                raise BadData(f"The findings say that row {row} is {one.get('item')}; it is not in {dataset.name}")
            if row in place:
                reason = str(one.get("reason") or finding.get("kind") or "as told")
                proposals.append(Proposal(place[row], one["action"], reason, str(one.get("to") or "")))
    return strongest(proposals)


def plan_of_kinds(found: Findings, kinds: Iterable[str]) -> dict[int, Proposal]:
    """Row -> drop, for every finding of these kinds."""
    kinds = set(kinds)
    plan: dict[int, Proposal] = {}
    for finding in found.findings:
        if finding.kind in kinds:
            for row, reason in drops(finding, found.dataset).items():
                plan.setdefault(row, Proposal(row, "drop", reason))
    return plan


def write_clean(
    found: Findings, plan: Mapping[int, Proposal], out: Path, *, link: bool, watch: Watch, **facts: Any
) -> Cleaned:
    """The new dataset, with what names the old one."""
    told = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
        "source_hash": data_hash(found.dataset),
    }
    return clean.write(found.dataset, plan, out, link=link, facts=told, hashed=data_hash, progress=watch.progress)


def rows_in(dataset: Dataset, inspected: Dataset) -> NDArray[np.int64]:
    """(M,) row of each inspected item in the dataset as it was read: one file, one fate, so their order tells."""
    there = set(inspected.table["item"].to_pylist())
    rows = np.flatnonzero([item in there for item in dataset.table["item"].to_pylist()])
    if len(rows) != len(inspected):
        raise BadData(
            f"{dataset.name}: {len(inspected):,} inspected items are not {len(rows):,} of those that were read"
        )
    return rows


def label_of(dataset: Dataset, row: int) -> str:
    """Its label in words, "" where there is none."""
    target = dataset.table["target"][row].as_py()
    if target is None:
        return ""
    if dataset.numeric:
        return f"{target:g}"
    return SEPARATOR.join(dataset.labels[c] for c in target) if dataset.multilabel else dataset.labels[target]
