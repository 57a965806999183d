"""Feature columns of a table: numbers and words that describe an item, where it is neither an image nor a text.

What is no feature is left out and said: names of rows (all different), dates, cells of free text, columns that are
empty or always the same. Numbers that name something (user_id, zip) are words. Empty cells and the usual words for
nothing (NA, n/a, null, ?, -) are missing values.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from topwork.errors import BadSetting
from topwork.modalities.rows import is_missing, number_of, written
from topwork.sources._columns import guess_label as usual_label
from topwork.sources._labels import as_number

NUMBERS = 0.95  # share of the known cells that must be numbers
WORDS, FEW = 0.5, 20  # most different words: as a share of the known cells, and so many at least
MOST_CLASSES = 0.2  # different labels, as a share of the rows
SHOWN = 8  # columns that are named
_NAMES = frozenset(("id", "key", "uuid", "pk", "rowid", "index", "row", "unnamed: 0", "name", "filename"))
_CODE = re.compile(r"(?:^|[_ .-])(?:id|code|zip|zipcode|postcode|plz)$|[a-z](?:Id|ID|Code)$", re.ASCII)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}.*")


@dataclass(frozen=True)
class Feature:
    """One column."""

    at: int
    name: str
    numeric: bool
    coded: bool = False  # numbers that name something, kept as words: user_id, zip

    def cell(self, value: Any) -> Any:
        """A cell as it is kept; BadData where a number was expected."""
        if is_missing(value):
            return None
        if isinstance(value, bool):
            return int(value) if self.numeric else str(value).lower()
        if self.numeric:
            number = number_of(value if isinstance(value, (int, float, str)) else float(value), self.name)
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def find(
    path: str,
    columns: Sequence[str],
    sample: Sequence[Sequence[Any]],
    taken: Collection[Any],
    named: Sequence[str],
    notes: list[str],
) -> tuple[Feature, ...]:
    """The named columns, or all that describe a row; () where none does."""
    for name in named:
        if name not in columns:
            raise BadSetting(f"{path} has no column '{name}'. Its columns: {', '.join(columns)}")
    asked = [columns.index(name) for name in named] or [i for i in range(len(columns)) if i not in taken]
    found, left = [], {}
    for at in asked:
        cells = [row[at] for row in sample if not is_missing(row[at])]
        coded = (numbers := _is_numeric(cells)) and _CODE.search(columns[at]) is not None
        numeric = numbers and not coded
        why = "" if named else _no_feature(columns[at], cells, numeric)
        if why:
            left[columns[at]] = why
        else:
            found.append(Feature(at, columns[at], numeric, coded))
    if found and not named:
        words = [f.name for f in found if not f.numeric]
        what = f"feature columns {_listed([f.name for f in found])}"
        notes.append(
            f"{what}: {len(found) - len(words)} of numbers, {len(words)} of words (--item-column A,B names them)"
        )
        notes += [f"column '{name}' is no feature: {why}" for name, why in left.items()]
    return tuple(found)


def guess_label(
    columns: Sequence[str],
    sample: Sequence[Sequence[Any]],
    taken: Collection[Any],
    notes: list[str],
    names: Sequence[str],
) -> int | None:
    """By its name; else the last column, where most tables have it, or the first, if its values recur."""
    free = [i for i in range(len(columns)) if i not in taken]
    named = any(columns[i].lower() in names for i in free)
    for at in () if named else (free[-1:] + free[:1]):
        different = len({str(row[at]) for row in sample})
        if 2 <= different <= MOST_CLASSES * len(sample):
            notes.append(
                f"label column '{columns[at]}': the {'last' if at == free[-1] else 'first'}, {different} values"
            )
            return at
    return usual_label(columns, sample, taken, notes, names)


def row_of(cells: Sequence[Any], features: Sequence[Feature]) -> str:
    """A row as it is kept; BadData says what is wrong with it."""
    return written({feature.name: feature.cell(cells[feature.at]) for feature in features})


def _is_numeric(cells: Sequence[Any]) -> bool:
    known = sum(isinstance(cell, bool) or as_number(cell) is not None for cell in cells)
    return bool(cells) and known >= NUMBERS * len(cells)


def _no_feature(name: str, cells: Sequence[Any], numeric: bool) -> str:
    """Why a column says nothing of its item; "" where it may."""
    if not cells:
        return "it is empty"
    if any(isinstance(cell, (bytes, list, dict)) for cell in cells):
        return f"it holds {type(next(c for c in cells if isinstance(c, (bytes, list, dict)))).__name__}s"
    words = [str(cell).strip() for cell in cells]
    different = len(set(words))
    if different == 1:
        return f"it is always {words[0][:40]!r}"
    if sum(bool(_DATE.fullmatch(word)) for word in words) > len(words) / 2:
        return "it holds dates (--time-column names it for splits)"
    low = name.strip().casefold()
    all_different = different == len(words) > FEW
    if all_different and (low in _NAMES or low.endswith(("_id", " id")) or _counts(cells)):
        return "it names the rows"
    if not numeric and different > max(WORDS * len(words), FEW):
        return f"{different:,} different words in {len(words):,} cells"
    return ""


def _counts(cells: Sequence[Any]) -> bool:
    """Whether they are whole numbers, one after the other."""
    numbers = [as_number(cell) for cell in cells]
    if any(number is None or not number.is_integer() for number in numbers):
        return False
    return all(b == (a or 0) + 1 for a, b in itertools.pairwise(numbers))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
