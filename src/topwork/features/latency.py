"""How long a backbone takes for an item on this machine, and how large its graph is: measured once, remembered.

On onnxruntime, as saved models run: normalise and trunk as one graph, one thread a run; a text has 32 tokens. `single`:
an item by itself; `batch`: an item in a batch of 16. Decoding is not counted: it costs much the same for every
backbone. Medians of runs within half a second each, after one to warm up, in processor time of the thread that runs: on
an idle machine that is the time on the clock, and on a busy one it does not count what others do (10 ms became 270 ms
on the clock where nine programs shared a core, 2026-11-21).
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from topwork.modalities.image_graph import normalise
from topwork.nn.session import session
from topwork.store import Store
from topwork.types import WRITTEN, Backbone, Card, digest

BATCH = 16
TOKENS = 32  # of a text
SECONDS, LEAST_RUNS, MOST_RUNS = 0.5, 3, 50


@dataclass(frozen=True)
class Latency:
    """Seconds an item, and bytes of the graph."""

    single: float
    batch: float
    bytes: int


def known(card: Card, store: Store | None) -> Latency | None:
    """What an earlier run measured on this machine."""
    value = store.get_many("latency", [_key(card)])[0] if store else None
    return Latency(**json.loads(value)) if value else None


def measure(backbone: Backbone, store: Store | None) -> Latency:
    """Measured now, or remembered."""
    found = known(backbone.card, store)
    if found:
        return found
    import onnx

    from topwork.nn.onnx_graph import chain, to_bytes

    random = np.random.Generator(np.random.Philox(key=0))
    if backbone.card.modality in WRITTEN:
        graph = backbone.graph()
        running: Any = session(graph, threads=1)
        noise = {
            "ids": random.integers(0, min(100, backbone.card.features or 100), (BATCH, TOKENS)),
            "weights": np.ones((BATCH, TOKENS), np.float32),
        }
    else:
        trunk = onnx.load_model_from_string(backbone.graph())
        graph = to_bytes(chain(normalise(backbone.card.preprocess), trunk))
        running = session(graph, threads=1)
        side = backbone.card.preprocess.crop_px
        noise = {running.get_inputs()[0].name: random.integers(0, 256, (BATCH, side, side, 3), np.uint8)}
    single, batch = (
        _median(running, {name: values[:size] for name, values in noise.items()}) / size for size in (1, BATCH)
    )
    found = Latency(single, batch, len(graph))
    if store:
        store.put_many("latency", [(_key(backbone.card), json.dumps(asdict(found)).encode())])
    return found


def _median(running: Any, items: dict[str, Any]) -> float:
    running.run(None, items)
    times: list[float] = []
    while len(times) < LEAST_RUNS or (sum(times) < SECONDS and len(times) < MOST_RUNS):
        began = time.thread_time()
        running.run(None, items)
        times.append(time.thread_time() - began)
    return float(np.median(times))


def _key(card: Card) -> bytes:
    where = [platform.node(), platform.machine(), version("onnxruntime"), BATCH, "thread time"]
    return digest([card.key, *where]).encode()
