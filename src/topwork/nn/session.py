"""An onnxruntime session from a graph, with as many threads as it is told.

    session(model, threads=2).run(None, {"pixels": x})

Kept apart from `onnx_graph.py` so that predicting never imports onnx.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from topwork import settings
from topwork.errors import BadWeights

if TYPE_CHECKING:
    import onnxruntime as ort


def session(model: bytes | str | os.PathLike[str], threads: int | None = None) -> ort.InferenceSession:
    """A session on the CPU for a serialised model or a file; `threads` defaults to the settings' number."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or settings.threads().value
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings are about the graph, which the user did not write
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        what = "A model" if isinstance(source, bytes) else f"'{source}'"
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadWeights(f"{what} is not a graph that onnxruntime {ort.__version__} can run: {lines[0]}") from error
