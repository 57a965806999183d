"""Columns that ride along for the splits: `time`, when an item came to be, and `domain`, the world that it is from.

Times are read as numbers where all of them are (seconds, years), else as dates (ISO 8601, 31.12.2024, 12/31/2024), in
UTC where they do not say; what cannot be read is null, and said. Which of day and month comes first is told by the
whole column.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from topwork.errors import BadSetting

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = {
    "time": ("time", "timestamp", "datetime", "date", "created_at", "published_at", "taken_at", "时间", "日期"),
    "domain": ("domain", "域"),
}
FORMATS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
_KNOWN = 0.9  # of the sample must read as a time for its column to be taken without being named


def find(
    options: Any, path: str, columns: Sequence[str], sample: Sequence[Sequence[Any]], taken: Collection[Any],
    notes: list[str],
) -> dict[str, int]:  # fmt: skip
    """Carried name -> column, as named by time_column and domain_column, or as the names say."""
    found = {}
    for carried, names in NAMES.items():
        asked = getattr(options, f"{carried}_column", None)
        if asked is not None and asked not in columns:
            raise BadSetting(f"{path} has no column '{asked}'. Its columns: {', '.join(columns)}")
        at = columns.index(asked) if asked is not None else _by_name(names, columns, taken)
        if at is None or (asked is None and carried == "time" and not _is_time([row[at] for row in sample])):
            continue
        found[carried] = at
        if asked is None:
            notes.append(f"{carried} column '{columns[at]}': its name")
    return found


def text_of(cell: Any) -> str | None:
    """A cell as it is kept until all of them are known."""
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    return str(cell).strip() or None


def column(name: str, values: pa.ChunkedArray, notes: list[str]) -> pa.ChunkedArray | pa.Array:
    """What was kept of one carried column, as the dataset holds it."""
    return times(values, notes) if name == "time" else values


def times(values: pa.ChunkedArray, notes: list[str]) -> pa.Array:
    """float64 where all are numbers, else timestamp[us] in UTC."""
    import numpy as np
    import pyarrow as pa

    coded = values.combine_chunks().dictionary_encode()
    words = coded.dictionary.to_pylist()
    numbers = [_number(word) for word in words]
    if words and all(number is not None for number in numbers):
        read: Any = pa.array(numbers, pa.float64())
    else:
        read = pa.array(_dates(words, notes), pa.timestamp("us"))
    column = read.take(coded.indices)
    lost = column.null_count - values.null_count
    if lost:
        worst = words[int(np.flatnonzero(read.is_null().to_numpy(zero_copy_only=False))[0])]
        notes.append(f"{lost:,} times cannot be read, e.g. {worst[:40]!r}: left empty")
    return column


def _by_name(names: Sequence[str], columns: Sequence[str], taken: Collection[Any]) -> int | None:
    free = {columns[i].strip().casefold(): i for i in range(len(columns)) if i not in taken}
    return next((free[name] for name in names if name in free), None)


def _is_time(cells: Sequence[Any]) -> bool:
    words = [word for word in map(text_of, cells) if word is not None]
    known = sum(_number(word) is not None or any(_date(word, form) for form in ("", *FORMATS)) for word in words)
    return bool(words) and known >= _KNOWN * len(words)


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _dates(words: Sequence[str], notes: list[str]) -> list[datetime.datetime | None]:
    """By the format that reads the most of them, ISO first."""
    best: list[datetime.datetime | None] = [_date(word, "") for word in words]
    chosen = ""
    for form in FORMATS:
        if None not in best:
            break
        read = [_date(word, form) for word in words]
        if sum(one is not None for one in read) > sum(one is not None for one in best):
            best, chosen = read, form
    if chosen in ("%d/%m/%Y", "%m/%d/%Y"):
        other = "%m/%d/%Y" if chosen == "%d/%m/%Y" else "%d/%m/%Y"
        doubt = all(one is None or _date(word, other) for word, one in zip(words, best, strict=True))
        order = "day first" if chosen.startswith("%d") else "month first"
        notes.append(
            f"times are read {order}, e.g. {words[0][:20]}{': nothing says that it is not the other way' * doubt}"
        )
    return best


def _date(word: str, form: str) -> datetime.datetime | None:
    """One date; form "": ISO 8601."""
    for clock in CLOCKS if form else ("",):
        try:
            read = datetime.datetime.strptime(word, form + clock) if form else datetime.datetime.fromisoformat(word)
        except (ValueError, OverflowError):
            continue
        return read.astimezone(datetime.UTC).replace(tzinfo=None) if read.tzinfo else read
    return None
