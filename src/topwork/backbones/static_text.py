"""A text backbone that is a look-up: one row per piece of a vocabulary, no torch.

    backbones.find("bundled:text_small").encode(["What a film!", ""])      -> float32 (2, D)

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
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from topwork.backbones.card_json import checked_hash, inside, read_json
from topwork.errors import BadData, BadSetting, BadWeights
from topwork.modalities.wordpiece import WordPiece
from topwork.nn.static_embedding import Reading, read, unpack
from topwork.store import weights
from topwork.types import Card, Preprocess

NEEDED = ("file", "vocabulary", "files")
KINDS = {"axis": "float32", "packed": "uint8", "unit": "float16"}
NO_PIXELS = Preprocess(0, 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # a card has a place for it; no picture goes in here
BLOCK = 4096  # texts that are cut into pieces before their rows are added up: bounds the memory for numbers


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
            x[block] = read(self.rows, *self.wordpiece.encode(texts[block]), self.reading)
        return x

    def graph(self) -> bytes:
        """There is none: an image cannot go in."""
        self._refuse()

    def module(self) -> Any:
        """There is none: an image cannot go in."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise BadSetting(f"Backbone '{self.card.spec}' reads text, and what is asked for reads images: 'bundled' does")


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
