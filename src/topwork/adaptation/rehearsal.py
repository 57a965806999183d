"""Before a training: a copy that is thrown away trains for some steps, and tells the pace or a learning rate.

Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from topwork import processes
from topwork.adaptation import Method
from topwork.adaptation.feed import Feed, Setup, seed_of
from topwork.adaptation.loop import train
from topwork.adaptation.parts import free, ran_out, twice
from topwork.adaptation.plan import Plan, optimizer_of
from topwork.adaptation.together import Together
from topwork.types import Watch


def pace(
    build: Callable[[], nn.Module], methods: Sequence[Method], feed: Feed, plan: Plan, most_seconds: float
) -> float:
    """Seconds per step, measured on real steps of a copy that is thrown away; the first three are not counted."""
    ends: list[float] = []

    def tick(*_: object) -> None:
        ends.append(time.monotonic())
        if processes.decided(lambda: len(ends) >= 6 and ends[-1] - ends[0] > most_seconds):
            raise _Enough

    with contextlib.suppress(_Enough):
        train(build(), methods, feed, dataclasses.replace(plan, steps=200), None, Watch(progress=tick))
    return (ends[-1] - ends[2]) / (len(ends) - 3)


def find_rate(
    build: Callable[[], nn.Module],
    methods: Sequence[Method],
    feed: Feed,
    plan: Plan,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 80,
) -> float:
    """A peak learning rate: a tenth of where the loss is smallest while the rate grows from `low` to `high`.

    r(t) = low (high / low)^(t / T); losses are smoothed over about ten steps, and it ends where they are four times the
    smallest. Trains a copy that is thrown away.
    """
    plan = dataclasses.replace(plan, steps=steps)
    while True:
        try:
            return _rate_of(build(), methods, feed, plan, low, high)
        except (RuntimeError, MemoryError) as error:
            why = ran_out(error)
            if why is None:
                raise
        plan = dataclasses.replace(plan, parts=twice(plan.parts, plan.batch, why).value)
        free()


def _rate_of(trunk: nn.Module, methods: Sequence[Method], feed: Feed, plan: Plan, low: float, high: float) -> float:
    steps = plan.steps
    torch.manual_seed(seed_of(plan.seed, "heads"))
    whole = Together(trunk, methods, feed, plan).to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = optimizer_of(whole, plan, whole.rates())
    whole.train()
    smooth, best, chosen = 0.0, math.inf, low
    setup = Setup(steps, plan.batch, plan.seed, plan.parts, plan.device)
    with contextlib.closing(feed.batches(methods, 0, setup)) as batches:  # type: ignore[type-var]
        for step, parts in batches:
            rate = low * (high / low) ** (step / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["multiple"]
            total = 0.0
            for batch in parts:
                torch.manual_seed(seed_of(plan.seed, "dropout", step))
                loss = torch.stack(list(whole(batch).values())).sum() / len(parts)
                loss.backward()
                total += loss.item()
            nn.utils.clip_grad_norm_(whole.parameters(), plan.clip)
            optimizer.step()
            optimizer.zero_grad()
            smooth = 0.9 * smooth + 0.1 * total
            level = smooth / (1 - 0.9 ** (step + 1))
            if not level <= 4 * best:  # or not a number
                break
            if level < best:
                best, chosen = level, rate
    return chosen / 10


class _Enough(Exception):
    pass
