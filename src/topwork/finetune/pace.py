"""How long a tuned step may take: epochs, folds, and whether to train on everything, from a measured pace."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topwork import processes
from topwork.adaptation import rehearsal
from topwork.adaptation.plan import Plan
from topwork.finetune.start import BATCH
from topwork.types import Choice

if TYPE_CHECKING:
    from topwork.finetune.bench import Bench

PRESENTATIONS = 12_000  # items shown in one training, if nothing else is said
EPOCHS = (3, 40)  # at least, at most
SPARE_SECONDS = 5.0  # for what comes after the training
RATES = {None: "usual for {}", "find": "a tenth of where the loss is smallest while the rate grows"}


@dataclass(frozen=True)
class Decided:
    """How a step is trained within its time."""

    plan: Plan
    folds: int  # that are left out in turn
    again: bool  # trained on everything afterwards; else the first fold's model is the one
    choices: tuple[Choice, ...]


def decide(bench: Bench, deadline: float, folds: int, again: bool = True, must: bool = False) -> Decided | str:
    """How long, how fast: what was asked for, or what the data and the time allow. Decided once per run.

    Where time is short fewer folds are asked, and at last the only fold's model is not trained again on everything.
    """
    scope, n = bench.scope, len(np.intersect1d(bench.ground.train, bench.readable))
    batch = scope.batch_of(n, BATCH)
    shown = int(PRESENTATIONS * scope.LONGER)
    wanted = scope.passes() or int(np.clip(shown // n, EPOCHS[0], EPOCHS[1] * scope.LONGER))
    plan = Plan(
        steps=math.ceil(n / batch / bench.own), batch=batch,
        optimizer=scope.optimizer,  # type: ignore[arg-type]
        rate=scope.usual_rate(bench.feed.modality) if scope.rate in (None, "find") else float(scope.rate),
        weight_decay=scope.weight_decay, ema=scope.ema, device=bench.device, seed=bench.seed,
    )  # fmt: skip
    why = "as asked" if scope.passes() else f"about {shown:,} items are shown, at least {EPOCHS[0]} times each"
    epochs = wanted
    with bench.remembered("plan", {"deadline": math.isfinite(deadline), "folds": folds, "again": again}) as run:
        before = processes.decided(lambda: run.decided if run is not None else {})
        if scope.rate == "find":
            plan = dataclasses.replace(plan, rate=before["rate"] if "rate" in before else found_rate(bench, plan))
        if "epochs" in before:
            epochs, folds, again = (before[name] for name in ("epochs", "folds", "again"))
            why = "as decided when this training was begun"
        elif math.isfinite(deadline):
            left = deadline - time.monotonic()
            method, feed = bench.method(bench.ground.train), bench.feed_of(bench.ground.train)
            each = rehearsal.pace(bench.trunk, [method], feed, plan, min(3.0, left / 20)) * plan.steps  # an epoch
            left = deadline - time.monotonic() - SPARE_SECONDS
            found = processes.decided(lambda: affordable_epochs(left, each, wanted, folds, again))
            if found is None and must:
                found = 1, 1, False
            if found is None:
                return (
                    f"left out: one epoch takes about {each:,.0f} s and the budget has {max(left, 0):,.0f} s left "
                    "(--budget)"
                )
            fitting, folds, again = found
            if fitting < wanted:
                epochs, why = fitting, f"{each:,.1f} s each, and {left:,.0f} s are left (--budget)"
        if run is not None:
            run.decide(epochs=epochs, folds=folds, again=again, rate=plan.rate)
    trainings = f"{folds} of the folds left out in turn" + (", then on everything" if again else "")
    choices = [
        *bench.said,
        Choice("epochs", epochs, why),
        Choice("trainings", folds + again, trainings if again else f"{trainings}; no time to train on everything"),
        Choice("learning rate", plan.rate, RATES.get(scope.rate, "as asked").format(type(scope).__name__)),
    ]
    return Decided(dataclasses.replace(plan, steps=plan.steps * epochs), folds, again, tuple(choices))


def found_rate(bench: Bench, plan: Plan) -> float:
    """A tenth of the rate at which the loss is smallest, on a copy that is thrown away."""
    rows = bench.ground.train
    return processes.decided(lambda: rehearsal.find_rate(bench.trunk, [bench.method(rows)], bench.feed_of(rows), plan))


def affordable_epochs(
    left: float, each: float, wanted: int, folds: int, again: bool = True
) -> tuple[int, int, bool] | None:
    """Epochs, folds and whether to train on everything afterwards, if an epoch on everything takes `each` seconds."""
    for least, count, whole in ((EPOCHS[0], folds, again), (EPOCHS[0], 1, again), (EPOCHS[0], 1, False), (1, 1, False)):
        fitting = int(left / (each * (0.8 * count + whole)))
        if fitting >= min(least, wanted):
            return min(fitting, wanted), count, whole
    return None
