"""Feature columns of a table as a backbone of rows: bundled:columns, fitted to the training rows without labels.

    backbone = find("bundled:columns").fitted(rows)      medians, means and words of these rows: `modalities.columns`
    graph()     ids int64 (W, L), weights float32 (W, L) -> features float32 (W, D): zeros, and weights added at ids

Nothing in it was learnt elsewhere: it brings what a row says into the form that heads, reductions and reports take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from topwork.backbones.ngrams import ADDED_UP
from topwork.backbones.static_text import NO_PIXELS
from topwork.errors import BadSetting
from topwork.modalities.columns import ColumnsReader
from topwork.types import Card

SPEC = "bundled:columns"
READING = 1  # raise it when the reader makes other features of the same row


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of whatever rows they are fitted to; unfitted where `reader` is None."""

    reader: ColumnsReader | None = None

    @property
    def card(self) -> Card:
        """Facts; fitted ones are told apart by what was fitted."""
        if self.reader is None:
            return Card(SPEC, "columns", "columns", NO_PIXELS, "", modality="row", trained_on="nothing")
        many = len(self.reader.features)
        return Card(
            SPEC, "columns", f"columns {READING}", NO_PIXELS, self.reader.hash, many, 0, modality="row",
            trained_on="the training rows, without labels",
        )  # fmt: skip

    def fitted(self, rows: Sequence[str]) -> Columns:
        """Filled and scaled as these rows are; BadData where they are all alike."""
        return Columns(ColumnsReader.fitted(rows))

    def graph(self) -> bytes:
        """Dense rows from columns and weights."""
        from onnx import parser

        from topwork.nn.onnx_graph import to_bytes

        if self.reader is None:
            self._refuse("knows no columns yet: fitted(rows) gives it some")
        return to_bytes(parser.parse_model(ADDED_UP % {"D": len(self.reader.features)}))

    def module(self) -> Any:
        """There is none: nothing in it can learn."""
        self._refuse("has nothing that could be trained: its rows are features already. Take --steps probe")

    def _refuse(self, why: str) -> NoReturn:
        raise BadSetting(f"Backbone '{SPEC}' {why}")
