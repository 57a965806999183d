"""The one training loop: methods ask, accelerate runs, the run remembers.

    L(step) = sum over methods and terms          AdamW or SGD, warm-up and cosine, clipped, perhaps averaged weights

A step depends on its number alone: order, views, dropout and learning rate are functions of (seed, step), and
everything else that lasts is a tensor in the checkpoint. So a training that was killed and taken up again gives the
bits of one that was not (one process, the same machine and number of threads).

Several processes (torchrun, accelerate launch) share every batch: the loss of each counts by its items, batch norms
see the items of all, and gradients are averaged, so that a step is that of one process with the whole batch, up to
rounding. What is drawn inside a loss (dropout, mixing) is drawn anew in each. The first process keeps the run; the
others take from it what it remembers.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from topwork import processes
from topwork.adaptation import Method
from topwork.adaptation.feed import Feed
from topwork.adaptation.loss_log import Log
from topwork.adaptation.parts import Supply
from topwork.adaptation.patience import Judge
from topwork.adaptation.plan import Plan
from topwork.adaptation.work import Work
from topwork.store.runs import Run
from topwork.types import Watch


def train(
    trunk: nn.Module,
    methods: Sequence[Method],
    feed: Feed,
    plan: Plan,
    run: Run | None = None,
    watch: Watch | None = None,
    judge: Judge | None = None,
    stage: str = "pretrain",
    lines: int = 10,
) -> nn.Module:
    """Train `trunk`, (B, 3, S, S) -> (B, D), by all methods at once, from where `run` was left.

    Gives back what the first method makes of it: the trunk, or a trunk with a head. With a judge, the weights of the
    moment that it liked best. `lines`: how often it says on the way how it does; 1: at its end alone.
    """
    processes.together()
    watch, work = watch or Watch(), Work.of(trunk, methods, feed, plan, judge)
    first = work.memory.restore(run)
    work.model.train()
    supply = Supply(feed, methods, work.setup, run, least=1 + work.norms_learn)
    with (
        processes.losing(),
        warnings.catch_warnings(),
        _stop_between_steps() as stop,
        contextlib.closing(supply),
    ):
        warnings.filterwarnings("ignore", "Grad strides", UserWarning)  # of 1 x 1 convolutions, where they are the same
        if supply.setup.processes > 1 and work.final is work.whole and first < plan.steps:
            while (why := work.short(supply, first)) is not None:
                watch.say(f"{stage}, {supply.twice(why)}")
            first = work.memory.restore(run)
        log = Log(run, watch, plan, first, stage, lines, f"{feed.modality}s")
        supply.begin(first)
        for step, parts in supply if not work.patience.over else ():
            why = work.step(step, parts, log)
            if why is not None:  # memory ran out: from the last state again, in smaller parts
                watch.say(f"{stage}, {supply.twice(why)}")
                first = work.memory.restore(run)
                log = Log(run, watch, plan, first, stage, lines, f"{feed.modality}s")
                supply.begin(first)
                continue
            work.whole.after(parts[-1])
            work.average.update(step)
            watch.progress(stage, step + 1, plan.steps)
            enough = work.patience.enough(step)
            last = enough or step + 1 == plan.steps
            stopped, save, due = processes.agreed(stop.asked, last or bool(run and run.due()), log.due())
            log.flush(step + 1, stopped or save or due, last)
            if stopped or save:
                kept = work.memory.tensors()
                if run:
                    run.save(step + 1, kept)
            if stopped:
                raise KeyboardInterrupt
            if enough:
                break
    return work.result()


@dataclass
class _Stop:
    asked: bool = False


@contextlib.contextmanager
def _stop_between_steps() -> Iterator[_Stop]:
    """Ctrl-C waits for the end of the step, so that a checkpoint can be written; a second one does not."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(*_: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
