"""Character and word n-grams as a backbone of texts: bundled:ngrams, fitted to the training texts without labels.

    backbone = find("bundled:ngrams").fitted(texts)      vocabulary and IDF of these texts: `modalities.ngrams`
    graph()     ids int64 (W, L), weights float32 (W, L) -> features float32 (W, D): zeros, and weights added at ids

Extraction gives its features as a csr matrix (N, D); the graph's are the same numbers, dense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from topwork.backbones.static_text import NO_PIXELS
from topwork.errors import BadSetting
from topwork.modalities.ngrams import COLUMNS, NgramReader
from topwork.types import Card

SPEC = "bundled:ngrams"
READING = 1  # raise it when the reader finds other n-grams in the same text

ADDED_UP = """
<ir_version: 9, opset_import: ["" : 19]>
trunk (int64[W, L] ids, float[W, L] weights) => (float[W, %(D)d] features) {
    shape = Shape (ids)
    nought = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    columns = Constant <value = int64[1] {%(D)d}> ()
    windows = Slice (shape, nought, one)
    size = Concat <axis = 0> (windows, columns)
    zeros = ConstantOfShape <value = float[1] {0.0}> (size)
    features = ScatterElements <axis = 1, reduction = "add"> (zeros, ids, weights)
}"""


@dataclass(frozen=True, eq=False)
class Ngrams:
    """N-grams of whatever texts they are fitted to; unfitted where `reader` is None."""

    reader: NgramReader | None = None

    @property
    def card(self) -> Card:
        """Facts; fitted ones are told apart by their vocabulary."""
        if self.reader is None:
            return Card(SPEC, "ngrams", "n-grams", NO_PIXELS, "", modality="text", trained_on="nothing")
        said = hashlib.sha256(self.reader.hashes.tobytes() + self.reader.idf.tobytes()).hexdigest()
        many = len(self.reader.hashes)
        return Card(
            SPEC, "ngrams", f"n-grams {READING}", NO_PIXELS, said, many, many, modality="text",
            trained_on="the training texts, without labels",
        )  # fmt: skip

    def fitted(self, texts: Sequence[str], columns: int = COLUMNS) -> Ngrams:
        """The vocabulary of these texts, at most so many columns; BadData where they hold none."""
        return Ngrams(NgramReader.fitted(texts, columns))

    def graph(self) -> bytes:
        """Dense rows from columns and weights."""
        from onnx import parser

        from topwork.nn.onnx_graph import to_bytes

        if self.reader is None:
            self._refuse("has no vocabulary yet: fitted(texts) gives it one")
        return to_bytes(parser.parse_model(ADDED_UP % {"D": len(self.reader.hashes)}))

    def module(self) -> Any:
        """There is none: nothing in it can learn."""
        self._refuse("has nothing that could be trained. Tune a transformer: --backbone hf:NAME or local:FOLDER")

    def _refuse(self, why: str) -> NoReturn:
        raise BadSetting(f"Backbone '{SPEC}' {why}")
