"""The model's weights as named arrays: model.safetensors, for whoever wants to train on.

    head.*    the head's arrays
    trunk.*   the trunk's initialisers, as they are in its graph (fp16 stays fp16)

The same arrays give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topwork.types import Head


def with_head(weights: bytes, head: Head) -> bytes:
    """The arrays of a saved model with another head's in place of its own."""
    from safetensors.numpy import load, save

    arrays = {name: array for name, array in load(weights).items() if not name.startswith("head.")}
    arrays |= {f"head.{name}": array for name, array in head.arrays.items()}
    return save({name: arrays[name] for name in sorted(arrays)}, {"format": "topwork 1"})


def head_of(weights: bytes, described: Mapping[str, Any]) -> Head:
    """The head of a saved model; `described`: what model.json says of it."""
    from safetensors.numpy import load

    arrays = {name.removeprefix("head."): array for name, array in load(weights).items() if name.startswith("head.")}
    facts = {name: described[name] for name in ("kind", "activation", "temperature", "method", "settings")}
    return Head(arrays=arrays, **facts)


def tensors(trunk: bytes, head: Head) -> bytes:
    """Serialise a trunk's graph weights and a head's arrays as safetensors."""
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save

    graph = onnx.load_from_string(trunk).graph
    arrays = {f"trunk.{tensor.name}": numpy_helper.to_array(tensor) for tensor in graph.initializer}
    arrays |= {f"head.{name}": array for name, array in head.arrays.items()}
    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, {"format": "topwork 1"})
