"""What follows an encoder's states: one vector for a window of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "silu", "sigmoid")  # as torch names them, in lower case


@dataclass(frozen=True)
class Dense:
    """A further layer: activation(W x + b), with weights of its own."""

    file: Path  # safetensors: linear.weight (out, in) and perhaps linear.bias (out,)
    sha256: str
    width: int  # numbers that go in
    out: int
    activation: str  # one of ACTIVATIONS

    def __str__(self) -> str:
        return f"dense({self.out}, {self.activation}, {self.sha256[:16]})"


@dataclass(frozen=True)
class Head:
    """From the last states of a transformer to one vector."""

    pooling: tuple[str, ...] = ("mean",)  # of cls, max, mean, root, last; several stand side by side
    dense: tuple[Dense, ...] = ()
    unit: bool = False  # brought to length 1

    def __str__(self) -> str:
        parts = ["+".join(self.pooling), *map(str, self.dense), *(["unit"] if self.unit else [])]
        return " ".join(parts)
