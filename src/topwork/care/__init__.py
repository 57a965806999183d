"""What only shows in the features: wrong labels, items unlike all others, groups that leak, splits that differ.

    cheap inspection -> features of a backbone (through the cache) -> what each item's fellows say of its label
        wrong_labels    confident learning; how many are wrong, and what they look like
        outliers        far from their nearest neighbours
        groups          groups that names and cameras suggest: are they close, and does the score drop without company?
        shifts          can a classifier tell one split from the other?
        places          a map of it all

Every answer is an opinion of the backbone: none changes anything by itself, and what measures (val, test) is only
looked at. What does not apply (numbers, items without labels, too few of them) is left out in words.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from topwork.backbones import fitted
from topwork.care import groups, outliers, shifts, wrong_labels
from topwork.care.cut_out import join_crops, remembered
from topwork.care.judged import Judged, judge
from topwork.care.pace import seconds_needed
from topwork.care.places import places
from topwork.care.sight import Sight
from topwork.data.findings import words_of
from topwork.data.outliers import unit
from topwork.errors import BadSetting
from topwork.features.extract import extract
from topwork.store import Store
from topwork.types import Backbone, Dataset, Finding, Findings, Watch

_SEVERITY = ("error", "warning", "note")


def examine(
    found: Findings,
    backbone: Backbone,
    store: Store | None,
    *,
    seed: int = 0,
    watch: Watch | None = None,
    **extraction: Any,
) -> Findings:
    """The findings of a cheap inspection, and those that need features; facts hold `deep` and `map`."""
    watch, began = watch or Watch(), time.monotonic()
    backbone = _ready(backbone, found.dataset)
    features = extract(found.dataset, backbone, store, progress=watch.progress, **extraction)
    facts = remembered(found.dataset, store)
    whole, new = join_crops(found.dataset, features.rows, features.x, facts, seed, watch)
    dataset = whole.take(features.rows)
    known = [facts[row] for row in features.rows] if facts else None
    sight = Sight(dataset, features.rows, features.x, unit(features.x), backbone.card.spec, known, seed, watch)
    judged = judge(sight)
    looks: tuple[Callable[[Sight, Judged | None], Iterator[Finding]], ...] = (
        wrong_labels.look, outliers.look, groups.look, shifts.look,
    )  # fmt: skip
    for number, look in enumerate(looks):
        watch.progress("care", number, len(looks))
        new += [_in_rows(one, sight) for one in look(sight, judged)]
    watch.progress("care", len(looks), len(looks))
    findings = sorted((*found.findings, *new), key=lambda one: _SEVERITY.index(one.severity))
    told = {
        **found.facts,
        "deep": {
            "backbone": backbone.card.spec,
            "items": len(dataset),
            "accuracy": judged.accuracy if judged else None,
            "seconds": time.monotonic() - began,
            "not_done": sight.not_done,
        },
        "map": places(sight, findings),
    }
    said = f"deep inspection by {backbone.card.spec}: {len(new)} more findings"
    return Findings(whole.replace(history=(*whole.history, said)), tuple(findings), told)


def deepen(
    found: Findings, backbone: Backbone, store: Store | None, budget: float, *, watch: Watch, **options: Any
) -> Findings:
    """`examine`, if it takes no longer than `budget` seconds; how long it will take is said first."""
    began = time.monotonic()
    backbone = _ready(backbone, found.dataset)
    needed = seconds_needed(found.dataset, backbone, store)
    many = f"{len(found.dataset):,} {words_of(found.dataset).many}"
    if needed + (time.monotonic() - began) > budget:
        said = f"deep inspection left out: the features of {many} would take about {needed:,.0f} s (--deep takes it)"
        watch.say(said)
        return dataclasses.replace(found, facts={**found.facts, "deep": None, "left_out": said})
    if needed > 1:
        watch.say(f"deep inspection: the features of {many} take about {needed:,.0f} s (--quick leaves them out)")
    return examine(found, backbone, store, watch=watch, **options)


def _ready(backbone: Backbone, dataset: Dataset) -> Backbone:
    """The backbone, that of rows fitted to all of them; BadSetting for another that knows nothing before."""
    if hasattr(backbone, "fitted") and dataset.modality != "row":
        raise BadSetting(f"{backbone.card.spec} knows nothing before it is fitted. Name another --backbone")
    return backbone if backbone.card.features else fitted(backbone, dataset.inputs)


def _in_rows(finding: Finding, sight: Sight) -> Finding:
    """Rows of the sight become rows of the inspected dataset."""
    return dataclasses.replace(finding, rows=tuple(sight.rows[list(finding.rows)].tolist()))
