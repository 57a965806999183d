"""The classifier that a backbone was trained with: what it says of an image in the words of its own classes.

    p(z | x) = softmax(x W + b)        x: the backbone's features (N, D), W (D, Z), b (Z,)

For folders and for weights in the hub's cache whose features are what a last linear layer read: its weight (Z, D) and
bias are taken from the safetensors file, nothing is loaded besides. None where there is no such layer (a trunk without
its top, a convolutional classifier, an ONNX file alone) or where the features are more than what it read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import TopworkError
from topwork.store import weights
from topwork.types import Backbone

TOPS = ("classifier", "head", "fc", "heads", "last_linear")  # what timm, torchvision and transformers call it
LEAST_CLASSES = 2

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def source_head(backbone: Backbone, features: int) -> Pair | None:
    """W (D, Z) and b (Z,) of the classifier that reads D = `features` numbers; None where there is none."""
    file = _file(backbone.card.spec)
    if file is None:
        return None
    try:
        name = _last_linear(weights.shapes(file), features)
        return _read(file, name) if name else None
    except TopworkError:
        return None


def probabilities(x: NDArray[np.float32], head: Pair) -> NDArray[np.float32]:
    """softmax(x W + b), (N, Z)."""
    z = x @ head[0] + head[1]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _last_linear(shapes: dict[str, tuple[int, ...]], features: int) -> str | None:
    """The weight (Z, D) that comes last under one of the names of a top; a second top for distillation is not meant."""
    found = [
        name
        for name, shape in shapes.items()
        if re.fullmatch(rf"(?:{'|'.join(TOPS)})(?:\.\w+)*\.weight", name)
        and len(shape) == 2
        and shape[1] == features
        and shape[0] >= LEAST_CLASSES
        and f"{name.removesuffix('weight')}bias" in shapes
    ]
    last = sorted(found, key=lambda name: [(part.isdigit(), part.zfill(6)) for part in name.split(".")])
    return last[-1] if last else None


def _read(file: Path, name: str) -> Pair:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        weight: Any = tensors.get_tensor(name)
        bias: Any = tensors.get_tensor(f"{name.removesuffix('weight')}bias")
    return np.ascontiguousarray(weight.T, np.float32), bias.astype(np.float32)


def _file(spec: str) -> Path | None:
    """The safetensors file behind a spec, where it lies on this machine."""
    from topwork.backbones import catalogue

    place, _, name = spec.partition(":")
    if place == "local":
        folder = Path(name).expanduser()
        folder = folder if folder.is_dir() else folder.parent
    elif place in ("timm", "hf"):
        folder = Path(next((entry.here for entry in catalogue.here() if entry.spec == spec), ""))
    else:
        return None
    return (
        next((file for file in sorted(folder.glob("*.safetensors")) if file.is_file()), None) if folder.name else None
    )
