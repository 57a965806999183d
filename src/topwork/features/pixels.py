"""From files to what the backbone sees before normalisation, by the very graph that the artefact ships."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadData
from topwork.features.contents import Contents, content_key
from topwork.modalities.image import decode
from topwork.modalities.image_graph import geometry
from topwork.nn.session import session
from topwork.store import remote
from topwork.types import Dataset, Preprocess


@dataclass(frozen=True, eq=False)
class Batch:
    """Some contents as pixels."""

    contents: list[int]  # n of them could be read
    crops: NDArray[np.uint8]  # (B, S, S, 3), B >= n; the rest is black
    reasons: dict[int, str]  # content: why it could not be read


class Loader:
    """Contents of a dataset -> batches of crops. Threads may load at once; each works alone on its batch."""

    def __init__(self, dataset: Dataset, contents: Contents, preprocess: Preprocess) -> None:
        self._dataset, self._contents, self._preprocess = dataset, contents, preprocess
        self._geometry: Any = session(geometry(preprocess).SerializeToString(), threads=1)
        self._stopped = False

    def load(self, wanted: list[int], size: int) -> Batch:
        """A batch of `size` crops, the first ones filled."""
        side = self._preprocess.crop_px
        crops = np.zeros((size, side, side, 3), np.uint8)
        done: list[int] = []
        reasons: dict[int, str] = {}
        for content in wanted:
            if self._stopped:
                raise RuntimeError("stopped")
            try:
                crops[len(done)] = self._crop(content)
                done.append(content)
            except BadData as error:
                reasons[content] = str(error)
        return Batch(done, crops, reasons)

    def ahead(self, wanted: Iterable[int]) -> AbstractContextManager[None]:
        """While a block runs, remote files of these contents are fetched before they are asked for."""
        paths = self._dataset.paths()
        return remote.ahead(paths[int(self._contents.first[content])] for content in wanted)

    def stop(self) -> None:
        """Make running and later calls of `load` end at the next file."""
        self._stopped = True

    def _crop(self, content: int) -> NDArray[np.uint8]:
        pixels = decode(self._read(content), min_px=self._preprocess.decode_px)  # (H, W, 3)
        return self._geometry.run(None, {"pixels": pixels[None]})[0][0]  # (S, S, 3)

    def _read(self, content: int) -> bytes:
        """The file's bytes, hashed again: a file that has changed would be remembered under the wrong name."""
        reason = "not there"
        for row in self._contents.rows(content):
            try:
                data = remote.read(self._dataset.path(int(row)))
            except BadData as error:
                reason = str(error)
                continue
            if content_key(data) == self._contents.keys[content]:
                return data
            reason = "changed while it was being worked on; run again"
        raise BadData(reason)
