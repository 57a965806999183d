"""The labels in one cell of a table, as names."""

from __future__ import annotations

import ast
import math
from decimal import Decimal
from typing import Any

from topwork.errors import BadData

LARGEST = 1e36  # of a number; what is answered is float32, which ends at 3.4e38


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


def targets_of(value: Any, multilabel: bool, separator: str, numeric: bool) -> list[Any]:
    """Names, or a single number; BadData says why there are none."""
    return [number_of(value)] if numeric else names_of(value, multilabel, separator)


def number_of(value: Any) -> float:
    """A finite number; BadData says why it is none."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN is not itself
        raise BadData("no number")
    number = as_number(value)
    if number is None:
        point = isinstance(value, str) and as_number(value.replace(",", ".")) is not None
        raise BadData(f"{str(value)[:40]!r} is not a number" + ("; write it with a decimal point" if point else ""))
    if abs(number) > LARGEST:
        raise BadData(f"{str(value)[:40]!r} is too large: the largest number is {LARGEST:.0e}")
    return number


def as_number(value: Any) -> float | None:
    """A cell as a finite number, None where it is none; 1_000 is a number in Python only."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


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
