"""What runs a backbone: onnxruntime, or torch where it sees a GPU, is clearly faster, or is the only one that can.

On a processor, T threads each run whole batches through one onnxruntime session with one thread per run: nothing waits
for the slowest thread of every layer, decoding needs no threads of its own, and the result has the same bits whatever
the number of threads.

    pick(card, "auto", store, threads)          which engine, before anything is loaded: enough to look features up
    start(pick, backbone, store, sample, many)  the engine itself; where torch is loaded anyway, and there are many
                                                images, both are measured on a sample, and the decision is remembered
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadSetting, BadWeights, MissingExtra
from topwork.features import Engine
from topwork.nn.session import session
from topwork.store import Store
from topwork.types import Backbone, Card, digest

NAMES = ("onnxruntime", "torch")
MOST_WORKERS = 8  # each holds the activations of one batch
CLEARLY_FASTER = 1.1  # torch must beat onnxruntime by this much: every later run would have to load it


@dataclass(frozen=True)
class Pick:
    """An engine by name, with the reason."""

    kind: str  # one of NAMES
    device: str  # "cpu", or what torch calls its accelerator
    threads: int
    reason: str
    final: bool = True  # False: the other engine may still take over

    @property
    def key(self) -> str:
        """Cached features belong to one engine and version: others differ in the last bits."""
        return f"{self.kind}-{importlib.metadata.version(self.kind)}-{self.device.split(':')[0]}"

    @property
    def workers(self) -> int:
        """Threads that read, decode and run batches."""
        return min(self.threads, MOST_WORKERS)

    def __str__(self) -> str:
        where = f"CPU, {self.threads} threads" if self.device == "cpu" else self.device
        return f"{self.kind} {importlib.metadata.version(self.kind)} {where}"


class OnnxEngine:
    """onnxruntime on normalise + trunk as one graph."""

    def __init__(self, pick: Pick, backbone: Backbone) -> None:
        import onnx
        import onnxruntime as ort

        from topwork.modalities.image_graph import normalise
        from topwork.nn.onnx_graph import chain, to_bytes

        self.at_once = pick.workers
        trunk = onnx.load_model_from_string(backbone.graph())
        graph = to_bytes(chain(normalise(backbone.card.preprocess), trunk))
        self._session: Any = session(graph, threads=pick.threads // pick.workers)
        self._input = self._session.get_inputs()[0].name
        self._options: Any = ort.RunOptions()

    def forward(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops uint8 (B, S, S, 3) -> features float32 (B, D)."""
        return self._session.run(None, {self._input: crops}, self._options)[0]

    def stop(self) -> None:
        """End running and later calls."""
        self._options.terminate = True


class TorchEngine:
    """torch on the module itself: (v / 255 - mean) / std, then the trunk."""

    at_once = 1

    def __init__(self, pick: Pick, backbone: Backbone) -> None:
        module = backbone.module()
        import torch

        p = backbone.card.preprocess
        self._device, self._lock, self._stopped = torch.device(pick.device), threading.Lock(), False
        self._module = module.eval().to(self._device)
        self._mean = torch.tensor(p.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(p.std, device=self._device).view(1, 3, 1, 1)

    def forward(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops uint8 (B, S, S, 3) -> features float32 (B, D)."""
        import torch

        with self._lock, torch.inference_mode():
            if self._stopped:
                raise RuntimeError("stopped")
            pixels = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2)  # (B, 3, S, S)
            images = (pixels.float() / 255 - self._mean) / self._std
            return self._module(images).float().cpu().numpy()

    def stop(self) -> None:
        """No batch begins any more."""
        self._stopped = True


def pick(card: Card, engine: str, store: Store | None, threads: int) -> Pick:
    """Which engine to use; loads no torch unless a GPU may be there."""
    if engine not in ("auto", *NAMES):
        raise BadSetting(f"No engine '{engine}'. Expected one of: auto, {', '.join(NAMES)}")
    if engine == "torch":
        return Pick("torch", _gpu() or "cpu", threads, "as asked")
    if engine == "onnxruntime":
        return Pick("onnxruntime", "cpu", threads, "as asked")
    device = _gpu() if _gpu_is_likely() else None
    if device:
        return Pick("torch", device, threads, f"torch sees a GPU ({device})", final=False)
    known = _recall(store, card, threads)
    if known and (known["engine"] == "onnxruntime" or _has_torch()):
        return Pick(known["engine"], "cpu", threads, f"{known['reason']} (measured in an earlier run)")
    return Pick("onnxruntime", "cpu", threads, "the faster one on nearly every CPU, and needs no torch", final=False)


def start(
    pick: Pick, backbone: Backbone, store: Store | None, sample: Callable[[], NDArray[np.uint8]], many: bool
) -> tuple[Engine, Pick]:
    """The engine that was picked, or the other one where the pick was not final and does worse."""
    if pick.kind == "torch":
        try:
            return TorchEngine(pick, backbone), pick
        except (BadSetting, MissingExtra) as error:  # an ONNX file has no torch module
            if pick.final:
                raise
            pick = Pick("onnxruntime", "cpu", pick.threads, f"torch cannot run it: {error}")
    other = dataclasses.replace(pick, kind="torch", final=True)
    try:
        engine: Engine = OnnxEngine(pick, backbone)
    except BadWeights as error:
        if pick.final or not _has_torch():
            raise
        other = dataclasses.replace(other, reason=f"onnxruntime cannot run it: {error}")
        rival: Engine = TorchEngine(other, backbone)
        _remember(store, backbone.card, other)
        return rival, other
    if pick.final or not many or "torch" not in sys.modules:
        return engine, pick
    try:
        rival = TorchEngine(other, backbone)
    except (BadSetting, MissingExtra):
        return engine, pick
    crops = sample()
    speed, torch_speed = images_per_second(engine, crops), images_per_second(rival, crops)
    torch_wins = torch_speed > CLEARLY_FASTER * speed
    reason = f"onnxruntime {speed:,.0f} images/s, torch {torch_speed:,.0f} on the first images"
    chosen = dataclasses.replace(other if torch_wins else pick, reason=reason, final=True)
    _remember(store, backbone.card, chosen)
    return (rival if torch_wins else engine), chosen


def images_per_second(engine: Engine, crops: NDArray[np.uint8]) -> float:
    """Throughput with as many batches at once as the engine takes, after one round to warm up."""
    batches = [crops] * engine.at_once
    with ThreadPoolExecutor(engine.at_once) as threads:
        list(threads.map(engine.forward, batches))
        began = time.perf_counter()
        list(threads.map(engine.forward, batches))
        seconds = time.perf_counter() - began
    return len(batches) * len(crops) / seconds


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _gpu_is_likely() -> bool:
    """Whether asking torch is worth the seconds that loading it takes."""
    named = os.environ.get("TOPWORK_DEVICE", "")
    return _has_torch() and named != "cpu" and bool(named or "torch" in sys.modules or os.path.exists("/dev/nvidiactl"))


def _gpu() -> str | None:
    """The accelerator that torch sees, if any and not forbidden."""
    if not _has_torch():
        raise MissingExtra.of("train", "The torch engine")
    import torch

    named = os.environ.get("TOPWORK_DEVICE", "")
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if named == "cpu" or found is None else named or found.type


def _memory_key(card: Card, threads: int) -> bytes:
    return digest([card.key, platform.node(), platform.machine(), threads]).encode()


def _recall(store: Store | None, card: Card, threads: int) -> dict[str, str] | None:
    value = store.get_many("engine", [_memory_key(card, threads)])[0] if store else None
    return json.loads(value) if value else None


def _remember(store: Store | None, card: Card, chosen: Pick) -> None:
    if store:
        note = json.dumps({"engine": chosen.kind, "reason": chosen.reason}).encode()
        store.put_many("engine", [(_memory_key(card, chosen.threads), note)])
