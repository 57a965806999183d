"""The model's weights as named arrays: model.safetensors, for whoever wants to train on.

    head.*    the head's arrays
    trunk.*   the trunk's initialisers, as they are in its graph (fp16 stays fp16)

The same arrays give the same bytes.
"""

from __future__ import annotations

from topwork.types import Head


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
