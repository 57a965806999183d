"""Whatever a caller holds -> a row of feature columns, as the model's reader knows it.

dict, or any mapping     {"age": 41, "town": "Oslo"}; columns that are not there are missing values
str, bytes               the same as JSON
path, open file          a file that holds one such object
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from topwork.artefact import texts
from topwork.errors import BadData
from topwork.modalities.columns import ColumnsReader
from topwork.modalities.rows import parsed, shown

ONE = "a row"
EXPECTED = "a dict of column names and values, or the same as JSON"


class Found(dict[str, Any]):
    """A row that was found somewhere, which names it in an answer."""

    where = ""


def is_single(x: Any) -> bool:
    """Whether this is one input, not many."""
    return isinstance(x, Mapping) or (texts.is_single(x) and not isinstance(x, tuple))


def name_of(x: Any, number: int) -> str:
    """What to call an input: where it was found, the path of its file, its cells, else its place in the list."""
    if isinstance(x, Found):
        return x.where
    if isinstance(x, os.PathLike) or hasattr(x, "read"):
        return texts.name_of(x, number)
    try:
        return texts.shortened(shown(_text(x))) or f"input {number}"
    except BadData:
        return f"input {number}"


def row(x: Any, reader: ColumnsReader) -> str:
    """The row of one input as the reader takes it; BadData says what is wrong with it."""
    return reader.checked(parsed(_text(x)))


def _text(x: Any) -> str:
    if not isinstance(x, Mapping):
        return texts.text(x)
    try:
        return json.dumps({str(name): _plain(cell) for name, cell in x.items()}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BadData(f"a cell is no number and no text: {error}. Expected {EXPECTED}") from error


def _plain(cell: Any) -> Any:
    """Numbers of numpy as Python's; not a number is nothing."""
    cell = cell.item() if hasattr(cell, "item") else cell
    return None if isinstance(cell, float) and math.isnan(cell) else cell
