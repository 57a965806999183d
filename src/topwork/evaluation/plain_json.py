"""report.json: the same bytes for the same numbers, readable, and nothing in it that is not JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(numbers: Mapping[str, Any]) -> bytes:
    """Keys sorted, no NaN, short records on one line."""
    text = "".join(_lines(clean(numbers), "\n")) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a file name that is no UTF-8 becomes \udc.., which is JSON


def _lines(value: Any, newline: str) -> list[str]:
    flat = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(flat) <= 110:
        return [flat]
    inner, parts = newline + "  ", []
    pairs = sorted(value.items()) if isinstance(value, dict) else ((None, v) for v in value)
    for name, item in pairs:
        parts += [",", inner] if parts else [inner]
        parts += [json.dumps(name, ensure_ascii=False), ": "] if name is not None else []
        parts += _lines(item, inner)
    brackets = "{}" if isinstance(value, dict) else "[]"
    return [brackets[0], *parts, newline, brackets[1]]


def clean(value: Any) -> Any:
    """Plain JSON values: records become dicts, tuples and arrays lists, scalars numbers, NaN and infinity None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((clean(item) for item in value), key=str)
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()  # type: ignore[union-attr]
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
