"""The labels in one cell of a table, as names."""

from __future__ import annotations

import ast
from typing import Any

from topwork.errors import BadData


def names_of(value: Any, multilabel: bool, separator: str) -> list[str]:
    """Names in order of appearance, each once; BadData says why there are none."""
    value = parsed(value)
    if isinstance(value, list):
        if not multilabel:
            raise BadData("a list of labels where the other rows hold one label")
        parts = value
    elif value is None or value != value or not str(value).strip():  # NaN is not itself
        raise BadData("no label")
    elif separator and isinstance(value, str):
        parts = [part.strip() for part in value.split(separator) if part.strip()]
    else:
        parts = [value]
    return list(dict.fromkeys(_name(part) for part in parts))


def parsed(value: Any) -> Any:
    """A cell that spells a list, '["cat", "dog"]', as that list."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def is_formula(label: str) -> bool:
    """What a spreadsheet would execute if predictions were written to csv; -1 and +1 are labels."""
    return label[:1] in ("=", "@", "\t", "\r") or (label[:1] in ("+", "-") and any(c in label for c in "(|!"))


def _name(label: Any) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():  # whole numbers beside empty cells become floats in pandas
        return str(int(label))
    if isinstance(label, str | int | float):
        return str(label)
    raise BadData(f"label {str(label)[:40]!r} is a {type(label).__name__}, expected text or a number")
