"""Where images go into an ONNX graph and features come out, and how they lie there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from topwork.errors import BadSetting

Layout = Literal["", "NCHW", "NHWC"]
Order = Literal["RGB", "BGR"]
Pool = Literal["", "mean", "first"]


@dataclass(frozen=True)
class Ends:
    """Where images go in and features come out, and how they lie there."""

    input: str = ""  # "": the only input
    output: str = ""  # "": the only output, or the one called features; inner tensors have names too
    layout: Layout = ""  # of the images; "": what the shape of the input says
    order: Order = "RGB"  # of the colours
    pool: Pool = ""  # of tokens (N, T, D)

    def check(self, where: str) -> None:
        """Refuse words that mean nothing."""
        for name, known in (("layout", Layout), ("order", Order), ("pool", Pool)):
            if getattr(self, name) not in get_args(known):
                words = ", ".join(word for word in get_args(known) if word)
                raise BadSetting(f"{where}: {name} '{getattr(self, name)}'. Expected one of: {words}")

    @property
    def text(self) -> str:
        """All that is not usual, for a card's key."""
        usual = Ends()
        return ", ".join(f"{k}={v}" for k, v in sorted(vars(self).items()) if v != getattr(usual, k))
