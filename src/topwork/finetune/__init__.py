"""One tuned step of the ladder: learn from folds, ask about what was left out, and train on everything if it pays.

material          every image decoded once, every text read once                       images.py, texts.py
Stages.cut        what is frozen for good runs once per view, its results are cached   features.boundary, text_boundary
loop.train        on all folds but one, for one fold after the other                   RUN/fold-K, resumable
out-of-fold       logits of the folds that were asked: the paired test of the ladder
loop.train        on everything                                                        RUN/all
Tuned             the trunk with its new weights: exported, proven and shipped like any backbone
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.adaptation import Technique
from topwork.adaptation.graft import Scope, check_items, name_of, techniques
from topwork.backbones.tuned import Tuned
from topwork.errors import BadSetting
from topwork.finetune import pace
from topwork.finetune.bench import Bench, Trained
from topwork.finetune.clock import LEAST_SECONDS, OutOfTime, check_time
from topwork.finetune.start import Start
from topwork.ground import Ground, Rows
from topwork.terms import Terms
from topwork.types import Backbone, Choice, Head

__all__ = ["LEAST_SECONDS", "Bench", "Start", "Trained", "Tuning", "check", "tune"]
ENOUGH = 600  # out-of-fold items that a paired test wants where others measure


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a tuned step has found out."""

    rows: Rows  # training rows that were predicted by a model that had not seen them
    held_out: NDArray[np.float32]  # (len(rows), C) their logits
    held: NDArray[np.float32]  # (len(held rows), C) logits of the held-out rows, by the first fold's model
    readable: Rows  # rows whose item could be read
    reason: str  # one line: how it was trained
    choices: tuple[Choice, ...]
    again: Callable[[], tuple[Tuned, Head, dict[str, Any]]]  # train on everything: backbone, head, proofs


def tune(
    ground: Ground,
    spec: str,
    parts: Sequence[Technique],
    start: Start,
    terms: Terms,
    join: Callable[[Bench], Bench] = lambda bench: bench,
    asked: Sequence[int] | None = None,
    again: bool = True,
    must: bool = False,
) -> Tuning | str:
    """The folds' trainings; or, in words, why there is no time for them.

    `terms.run`: where trainings keep their checkpoints; None: nowhere, and nothing is taken up again. `join` puts more
    on the bench: other sources, which are learnt from whatever fold is asked. `asked`: folds to leave out in turn;
    None: as many as a paired test wants. `again` False: nobody will ask for a training on everything. `must`: however
    little time there is.
    """
    try:
        check_time(terms.deadline, must)
        bench = join(Bench.of(ground, spec, parts, start, terms.until(math.inf) if must else terms))
    except OutOfTime as reason:
        return f"left out: {reason} (--budget)"
    folds = ground.folds[ground.train]
    left_out = _asked(ground) if asked is None else list(asked)
    decided = pace.decide(bench, terms.deadline, len(left_out), again, must)
    if isinstance(decided, str):
        return decided
    plan, left_out = decided.plan, left_out[: decided.folds]
    for choice in decided.choices[1:]:
        terms.watch.say(str(choice))
    rows, logits, held = [], [], np.zeros((0, len(ground.dataset.labels)), np.float32)
    first: Callable[[], Trained] | None = None
    for number, fold in enumerate(left_out):
        own, name = ground.train[folds == fold], f"fold {number + 1} of {len(left_out)}"
        trained = bench.train(plan, np.setdiff1d(ground.train, own), name)
        rows.append(np.intersect1d(own, bench.readable))
        logits.append(bench.logits(trained.model, rows[-1]))
        bench.note(name, rows[-1], logits[-1])
        if number == 0:
            held = bench.logits(trained.model, np.intersect1d(ground.held, bench.readable))
            first = None if decided.again else (lambda kept=trained: kept)
    order = np.argsort(np.concatenate(rows), kind="stable")
    reason = f"{spec}: " + "; ".join(f"{choice.name} {choice.value}" for choice in decided.choices)
    final = first or (lambda: bench.train(plan, ground.train, "on everything"))
    return Tuning(
        np.concatenate(rows)[order], np.concatenate(logits)[order], held, bench.readable, reason,
        tuple(decided.choices), lambda: bench.shipped(final()),
    )  # fmt: skip


def check(spec: str, backbone: Backbone, numeric: bool | None = None) -> None:
    """What can be wrong with a tuned step on a backbone, before any work; `numeric`: whether targets are numbers."""
    parts = techniques(spec)
    check_items(parts, backbone.card.modality, numeric)
    scope, trunk = parts[0], backbone.module()
    assert isinstance(scope, Scope)
    if backbone.card.modality == "text":
        from topwork.finetune import texts

        texts.reader_of(backbone)
        stages = texts.stages_of(trunk, scope)
    else:
        from topwork.finetune.frozen_part import stages_of

        stages = stages_of(trunk, backbone.card.preprocess.crop_px, scope)
    frozen = scope.boundary(stages.shares) if stages is not None else 0
    if frozen and (needy := [name_of(part) for part in parts if part.whole]):
        raise BadSetting(
            f"{needy[0]} changes what goes into the backbone, of which '{spec}' caches the lower part. Take it with "
            "full, lp_ft or lora, or leave it out"
        )


def _asked(ground: Ground) -> list[int]:
    """Folds to leave out in turn: all where they measure, else enough for a paired test."""
    folds, counts = np.unique(ground.folds[ground.train], return_counts=True)
    if not len(ground.held):
        return folds.tolist()
    enough = int(np.searchsorted(np.cumsum(counts), ENOUGH)) + 1
    return folds[:enough].tolist()
