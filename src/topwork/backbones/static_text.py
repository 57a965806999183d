"""A text backbone that is a look-up: one row per piece of a vocabulary, no torch.

    backbones.find("bundled:text_small").encode(["What a film!", ""])      -> float32 (2, D)
    graph()     the same as ONNX, rows in four bits: Gather, unpack, mean, decay, max      module()    the same in torch

Its folder holds card.json, a safetensors file (packed (V, D / 2) uint8, unit (V,) float16, axis (D,) float32: see
`nn.static_embedding.pack`) and a vocabulary, one piece a line. card.json needs modality "text", file, vocabulary and
files {NAME: {sha256}}; it may hold name, architecture, num_features, licence, trained_on, source and
reading {axes, decay, early, highest}: see `nn.static_embedding.Reading`; without it a text is the mean of its rows.
Hashes, shapes and the number of pieces are checked when it is opened, the numbers when they are first used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.backbones.card_json import checked_hash, inside, read_json
from topwork.errors import BadData, BadSetting, BadWeights
from topwork.modalities.wordpiece import WordPiece
from topwork.nn.static_embedding import Reading, read, unpack
from topwork.store import weights
from topwork.types import Card, Preprocess

if TYPE_CHECKING:
    from torch import nn

NEEDED = ("file", "vocabulary", "files")
KINDS = {"axis": "float32", "packed": "uint8", "unit": "float16"}
NO_PIXELS = Preprocess(0, 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # a card has a place for it; no picture goes in here
BLOCK = 4096  # texts that are cut into pieces before their rows are added up: bounds the memory for numbers

_GRAPH = """
<ir_version: 9, opset_import: ["" : 19]>
trunk (int64[W, L] ids, float[W, L] weights) => (float[W, %(D)d] features) {
    eight = Constant <value = float {8.0}> ()
    sixteen = Constant <value = float {16.0}> ()
    zero = Constant <value = float {0.0}> ()
    one = Constant <value = float {1.0}> ()
    lowest = Constant <value = float {-1e30}> ()
    last = Constant <value = int64[1] {-1}> ()
    tokens = Constant <value = int64[1] {1}> ()
    row = Constant <value = int64[3] {0, 0, %(C)d}> ()
    bytes = Gather <axis = 0> (packed, ids)
    both = Cast <to = 1> (bytes)
    shifted = Div (both, sixteen)
    high = Floor (shifted)
    above = Mul (high, sixteen)
    low = Sub (both, above)
    low4 = Unsqueeze (low, last)
    high4 = Unsqueeze (high, last)
    halves = Concat <axis = 3> (low4, high4)
    unsigned = Reshape (halves, row)
    levels = Sub (unsigned, eight)
    units = Gather <axis = 0> (unit, ids)
    units32 = Cast <to = 1> (units)
    units3 = Unsqueeze (units32, last)
    sized = Mul (levels, units3)
    rows = Mul (sized, axis)
    weights3 = Unsqueeze (weights, tokens)
    sum3 = MatMul (weights3, rows)
    sum = Squeeze (sum3, tokens)
    sum_norm = ReduceL2 <keepdims = 1> (sum, last)
    sum_none = Equal (sum_norm, zero)
    sum_length = Where (sum_none, one, sum_norm)
    mean = Div (sum, sum_length)%(parts)s
}"""

_MEAN = """
    features = Identity (mean)"""

_PARTS = """
    begin = Constant <value = int64[1] {0}> ()
    axes = Constant <value = int64[1] {%(K)d}> ()
    third = Constant <value = int64[1] {2}> ()
    first = Slice (rows, begin, axes, third)
    shape = Shape (ids)
    second = Constant <value = int64 {1}> ()
    length = Gather <axis = 0> (shape, second)
    nought = Constant <value = int64 {0}> ()
    places64 = Range (nought, length, second)
    places = Cast <to = 1> (places64)
    decay = Constant <value = float {%(decay)r}> ()
    powers = Pow (decay, places)
    fading = Mul (weights, powers)
    fading3 = Unsqueeze (fading, tokens)
    early3 = MatMul (fading3, first)
    early_sum = Squeeze (early3, tokens)
    early_norm = ReduceL2 <keepdims = 1> (early_sum, last)
    early_none = Equal (early_norm, zero)
    early_length = Where (early_none, one, early_norm)
    early_unit = Div (early_sum, early_length)
    early_share = Constant <value = float {%(early)r}> ()
    early = Mul (early_unit, early_share)
    inside = Greater (weights, zero)
    inside3 = Unsqueeze (inside, last)
    shown = Where (inside3, first, lowest)
    top = ReduceMax <keepdims = 0> (shown, tokens)
    nothing = LessOrEqual (top, lowest)
    high_sum = Where (nothing, zero, top)
    high_norm = ReduceL2 <keepdims = 1> (high_sum, last)
    high_none = Equal (high_norm, zero)
    high_length = Where (high_none, one, high_norm)
    high_unit = Div (high_sum, high_length)
    high_share = Constant <value = float {%(highest)r}> ()
    highest = Mul (high_unit, high_share)
    features = Concat <axis = 1> (mean, early, highest)"""


@dataclass(frozen=True, eq=False)
class StaticText:
    """Rows, a vocabulary and the card that describes them."""

    card: Card
    file: Path
    wordpiece: WordPiece
    reading: Reading

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """The row of each piece (V, D)."""
        from safetensors.numpy import load_file

        tensors = load_file(self.file)
        kinds = {name: str(tensor.dtype) for name, tensor in tensors.items()}
        if kinds != KINDS:
            raise BadWeights(f"{self.file} holds {kinds}, expected {KINDS}")
        rows = unpack(**tensors)
        if not np.isfinite(rows).all():
            raise BadWeights(f"{self.file} holds NaN or infinity. Expected finite numbers; copy it again")
        return rows

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The features of each text (N, D); a text in which nothing is left to read is at the origin."""
        if isinstance(texts, str):
            raise BadData("encode got one text. Expected a sequence of texts; write encode([text])")
        x = np.zeros((len(texts), self.reading.width(self.rows.shape[1])), np.float32)
        for block in _blocks(len(texts)):
            tokens = self.wordpiece.read(texts[block])
            x[block] = read(self.rows, tokens.ids, tokens.ends, self.reading)
        return x

    @property
    def reader(self) -> WordPiece:
        """Texts to pieces."""
        return self.wordpiece

    def graph(self) -> bytes:
        """ids int64 (W, L), weights float32 (W, L) -> features float32 (W, D): `nn.static_embedding.read` as ONNX."""
        from onnx import numpy_helper, parser
        from safetensors.numpy import load_file

        from topwork.nn.onnx_graph import to_bytes

        if not np.isfinite(self.rows).all():  # opening them checks them
            raise BadWeights(f"{self.file} holds NaN or infinity")
        tensors = load_file(self.file)
        columns, how = 2 * tensors["packed"].shape[1], self.reading
        parts = _PARTS % {"K": how.axes, "decay": how.decay, "early": how.early, "highest": how.highest}
        text = _GRAPH % {"D": how.width(columns), "C": columns, "parts": parts if how.axes else _MEAN}
        model = parser.parse_model(text)
        model.graph.initializer.extend(numpy_helper.from_array(tensors[name], name) for name in sorted(tensors))
        return to_bytes(model)

    def module(self) -> nn.Module:
        """The same in torch: the rows are what can learn."""
        from topwork.backbones.torch_backbone import need_train

        need_train(f"Backbone '{self.card.spec}' in torch")
        from topwork.backbones.static_trunk import StaticTrunk

        return StaticTrunk(self.rows, self.reading).eval()


def open_static(folder: Path, spec: str) -> StaticText:
    """The text backbone in a folder; its files are checked against its card and against each other."""
    where = folder / "card.json"
    facts = read_json(where)
    missing = [key for key in NEEDED if not facts.get(key)]
    if missing or facts.get("modality") != "text":
        raise BadWeights(
            f"{where} lacks {', '.join(missing) or 'modality: text'}. It needs: modality, {', '.join(NEEDED)}"
        )
    file, list_file = (inside(folder, str(facts[key]), where) for key in ("file", "vocabulary"))
    for one in (file, list_file):
        if not (isinstance(facts["files"], dict) and facts["files"].get(one.name)):
            raise BadWeights(f"{where} gives no sha256 for {one.name}. A card of text needs one for each of its files")
    found, words = (checked_hash(one, facts, where) for one in (file, list_file))
    wordpiece = _vocabulary(list_file)
    columns = _check_shapes(file, len(wordpiece.vocabulary), list_file)
    reading = _reading(facts.get("reading") or {}, columns, where)
    features = reading.width(columns)
    if facts.get("num_features") not in (None, features):
        raise BadWeights(f"{where} says {facts['num_features']} features, but {file.name} gives {features}")
    card = Card(
        spec=spec,
        name=str(facts.get("name") or folder.name),
        architecture=f"{facts.get('architecture') or 'static embedding'}, vocabulary {words[:16]}, {reading}",
        preprocess=NO_PIXELS,
        weights=found,
        features=features,
        parameters=len(wordpiece.vocabulary) * columns,
        multiply_adds=None,  # about `features` additions a piece
        licence=str(facts.get("licence") or ""),
        trained_on=str(facts.get("trained_on") or ""),
        origin=str(facts.get("source") or ""),
        modality="text",
        languages=facts.get("languages") or (),
    )
    return StaticText(card, file, wordpiece, reading)


def _vocabulary(file: Path) -> WordPiece:
    try:
        return WordPiece.of(file.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except (UnicodeDecodeError, BadSetting) as error:
        raise BadWeights(f"{file} is no vocabulary, one piece a line in UTF-8: {error}") from error


def _check_shapes(file: Path, pieces: int, list_file: Path) -> int:
    """The number of features, once names, shapes and the number of rows are what they must be."""
    shapes = weights.shapes(file)
    features = shapes.get("axis", (0,))[0] if shapes.get("axis") else 0
    rows = (shapes.get("unit") or (0,))[0]
    if rows != pieces:
        raise BadWeights(
            f"{file} has {rows:,} rows, but {list_file.name} lists {pieces:,} pieces. They belong to two backbones"
        )
    weights.check_shapes({"packed": (pieces, features // 2), "unit": (pieces,), "axis": (features,)}, shapes, str(file))
    return features


def _reading(facts: Any, columns: int, where: Path) -> Reading:
    try:
        how = Reading(**facts)
        good = isinstance(how.axes, int) and 0 <= how.axes <= columns and 0 < how.decay <= 1
        if good and all(0 <= size <= 1e3 for size in (how.early, how.highest)):
            return how
    except TypeError:
        pass
    raise BadWeights(
        f"{where}: reading {facts} is none. Expected axes 0 .. {columns}, decay above 0 and at most 1, early and "
        "highest 0 .. 1000"
    )


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))
