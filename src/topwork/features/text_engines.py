"""What runs a backbone of texts: ids int64 (B, L), weights float32 (B, L) -> features float32 (B, D).

As for images (`engines.py`): T threads each run whole batches through one onnxruntime session with one thread a run.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadWeights
from topwork.features.engines import Pick
from topwork.nn.session import session
from topwork.types import Backbone


class TextEngine(Protocol):
    """Runs a backbone of texts."""

    def forward(self, ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """One batch of windows."""
        ...

    def stop(self) -> None:
        """Make running and later calls of `forward` end soon, by any exception."""
        ...


class OnnxTexts:
    """onnxruntime on the backbone's graph."""

    def __init__(self, pick: Pick, backbone: Backbone) -> None:
        import onnxruntime as ort

        self._session: Any = session(backbone.graph(), threads=max(1, pick.threads // pick.workers))
        self._names = [given.name for given in self._session.get_inputs()]
        if len(self._names) != 2:
            raise BadWeights(f"{backbone.card.spec} takes {', '.join(self._names)}. Expected ids and weights of a text")
        self._options: Any = ort.RunOptions()

    def forward(self, ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """One batch of windows."""
        return self._session.run(None, dict(zip(self._names, (ids, weights), strict=True)), self._options)[0]

    def stop(self) -> None:
        """End running and later calls."""
        self._options.terminate = True


class TorchTexts:
    """torch on the module itself."""

    def __init__(self, pick: Pick, backbone: Backbone) -> None:
        module = backbone.module()
        import torch

        self._device, self._lock, self._stopped = torch.device(pick.device), threading.Lock(), False
        self._module = module.eval().to(self._device)

    def forward(self, ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """One batch of windows."""
        import torch

        with self._lock, torch.inference_mode():
            if self._stopped:
                raise RuntimeError("stopped")
            given = (torch.from_numpy(x).to(self._device) for x in (ids, weights))
            return self._module(*given).float().cpu().numpy()

    def stop(self) -> None:
        """No batch begins any more."""
        self._stopped = True


def start(pick: Pick, backbone: Backbone) -> TextEngine:
    """The engine that was picked."""
    return TorchTexts(pick, backbone) if pick.kind == "torch" else OnnxTexts(pick, backbone)
