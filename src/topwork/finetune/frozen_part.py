"""Below the boundary: what never changes runs once per view, and its activations are stored."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topwork import processes, settings
from topwork.adaptation import Technique
from topwork.adaptation.feed import Feed
from topwork.adaptation.graft import Scope
from topwork.backbones.stages import Stages, shapes
from topwork.backbones.trunk import export_below
from topwork.errors import BadSetting
from topwork.features import boundary
from topwork.features.frames import Frames
from topwork.finetune.clock import LEAST_SECONDS, OutOfTime, agreed
from topwork.finetune.views import shown
from topwork.ground import Rows
from topwork.nn.session import session
from topwork.nn.threads import on_threads
from topwork.store import weights
from topwork.types import Backbone, Choice, Watch, digest

VIEWS = 4  # cached per item
CACHE_SHARE = 0.3  # of the time that is left, for activations of the frozen part


def stages_of(trunk: nn.Module, size_px: int, scope: Technique) -> Stages | None:
    """The trunk's layers; None where they cannot be told apart and nobody needs them."""
    try:
        return Stages.of(trunk, size_px)
    except BadSetting:
        if type(scope).__name__ == "LastStages":
            raise
        return None


def cache(
    stages: Stages,
    below: int,
    images: Frames,
    feed: Feed,
    view: str,
    backbone: Backbone,
    scope: Scope,
    device: str,
    engine: str,
    seed: int,
    deadline: float,
    watch: Watch,
) -> tuple[boundary.Stored | None, Choice]:
    """What is frozen runs now, once per view."""
    card, dtype = backbone.card, scope.store
    lower = stages.cut(below)[0]
    crossing = shapes(lower, feed.size_px)
    choice = agreed(lambda: boundary.choose_views(len(images.index), crossing, dtype, scope.views or VIEWS))
    if choice.value == 0 or scope.views == 0:
        return None, choice if scope.views != 0 else Choice(
            "cached views", 0, "as asked: everything runs in every epoch"
        )
    forward, engine = _forward(lower, card.key, below, feed.size_px, device, engine)

    def make(rows: Rows, number: int) -> Sequence[NDArray[np.float32]]:
        rows = np.where(
            images.index[rows] >= 0, rows, np.flatnonzero(images.index >= 0)[0]
        )  # unread ones are not asked
        return forward(shown(images, feed, rows, max(number, 0), view if number >= 0 else "plain", seed))

    if math.isfinite(deadline) and not scope.views:
        most = choice
        choice = agreed(lambda: affordable_views(most, make, len(images.index), deadline))
        if choice.value < 0:
            raise OutOfTime(choice.reason)
    p = card.preprocess
    key = digest([card.key, below, stages.layers[below], dataclasses.asdict(feed.recipes[view]), seed, dtype, engine,
                  p.key, images.key])  # fmt: skip
    threads = settings.threads().value
    with on_threads(1):
        found = boundary.store(key, len(images.index), crossing, choice.value, make, dtype=dtype,
                               threads=threads, progress=watch.progress)  # fmt: skip
    return found, choice


def affordable_views(choice: Choice, make: boundary.Make, items: int, deadline: float) -> Choice:
    """Fewer views where they would eat up the time."""
    some = np.arange(min(boundary.AT_ONCE, items))
    make(some, 0)
    began = time.monotonic()
    make(some, 0)
    workers = settings.threads().value * processes.count()
    each = (time.monotonic() - began) / len(some) * items / workers  # seconds of a view of all items
    left = deadline - time.monotonic()
    views = int(CACHE_SHARE * left / each) - 1
    if views >= choice.value:
        return choice
    if 2 * each > left - LEAST_SECONDS:  # one view and the plain one
        return Choice(
            "cached views", -1, f"a view takes about {each:,.0f} s and the budget has {max(left, 0):,.0f} s left"
        )
    return Choice(
        "cached views", max(1, views), f"about {each:,.0f} s each, a part of the time that is left (--budget)"
    )


def _forward(
    lower: nn.Module, key: str, below: int, size_px: int, device: str, engine: str
) -> tuple[Callable[[Tensor], Sequence[NDArray[np.float32]]], str]:
    """What runs the frozen part: onnxruntime on a processor, torch elsewhere."""
    if device != "cpu" or engine == "torch":
        lower = lower.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def by_torch(images: Tensor) -> Sequence[NDArray[np.float32]]:
            with torch.no_grad():
                return [x.float().cpu().numpy() for x in lower(images.to(device))]

        return by_torch, f"torch {device.split(':')[0]}"
    name = digest([key, "below", below, 1])
    with processes.first():
        graph = weights.load_graph(name)
        if graph is None:
            graph = export_below(lower, size_px)
            weights.save_graph(name, graph)
    running = session(graph, threads=1)
    return lambda images: [np.asarray(x) for x in running.run(None, {"images": images.numpy()})], "onnxruntime"
