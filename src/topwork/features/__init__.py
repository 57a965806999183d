"""Features: what a frozen backbone sees of each item. One forward pass per distinct content, ever.

extract.py    extract(dataset, backbone, store) -> Features: the one pass; goes on where it was killed
contents.py   which items are distinct
matrix.py     the result, allocated once, filled from the store and from the pass
pixels.py     file -> crop: verified, decoded scaled, cut by the same graph that the artefact ships
engines.py    what runs the backbone: onnxruntime or torch
texts.py      the one pass over texts: windows in batches of like length; text_engines.py runs them
write.py      features as parquet or npz
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Protocol):
    """Runs a backbone."""

    at_once: int
    """Calls of `forward` that gain from running beside each other; more than these are safe too."""

    def forward(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """Crops uint8 (B, S, S, 3) -> features float32 (B, D)."""
        ...

    def stop(self) -> None:
        """Make running and later calls of `forward` end soon, by any exception."""
        ...
