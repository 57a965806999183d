"""The past is learnt from, the future is the test: what a model meets that is used after it was made.

    cut = the time t whose items from t on are nearest to the wanted share        or the date that is named
    test = every unit (twins, groups) of which an item is at the cut or after it

So nothing that is learnt from is as late as the cut, and equal times stay on one side. Earlier twins of later items,
and earlier items of a group that goes on, follow them into the test; the history says how many. No seed is needed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from topwork.data.split import SPLITS, decided, keep_together, labelled, told
from topwork.data.split.stratified import shares
from topwork.errors import BadSetting
from topwork.types import Dataset


@dataclass(frozen=True)
class ByTime:
    """The latest items are the test."""

    column: str = "time"  # timestamp or number
    test: float = 0.2  # share of the items, 0 to below 1
    val: float = 0.0  # share of the items just before them
    date: str | float | None = None  # "2024-01-31", or a number: the test begins then, whatever its share

    carries: ClassVar[str] = "time"  # what a source calls the column

    def assign(self, dataset: Dataset, seed: int) -> Dataset:  # noqa: ARG002 time decides
        """A new `split` column; every labelled item must have a time."""
        shares(self.test, self.val)
        time, name = self._times(dataset)
        together = keep_together(dataset)
        number = decided(dataset, together)
        free = np.flatnonzero((number <= 0) & labelled(dataset))
        missing = free[np.isnan(time[free])]
        if len(missing):
            raise BadSetting(f"{len(missing):,} items have no '{name}', e.g. {dataset.table['item'][int(missing[0])]}")
        if not len(free):
            return told(dataset, number, together, "by_time")
        latest = np.full(int(together.max()) + 1, -np.inf)
        np.maximum.at(latest, together[free], time[free])
        when = latest[together[free]]  # (F,) of the unit
        cut = self._date(dataset, name) if self.date is not None else _cut(when, self.test * len(free))
        number[free] = SPLITS.index("train")
        number[free[when >= cut]] = SPLITS.index("test")
        rest = when < cut
        if self.val:
            before = _cut(when[rest], self.val * len(free))
            number[free[rest & (when >= before)]] = SPLITS.index("val")
        if self.date is not None and (rest.all() or not rest.any()):
            side = "nothing is at it or after it" if rest.all() else "nothing is before it"
            raise BadSetting(f"by_time: date {self.date}: {side}; {name} goes from {_shown(dataset, name, time, free)}")
        follow = int((time[free[~rest]] < cut).sum())
        rule = f"by_time({name}), from {_word(dataset, name, cut)} on"
        if follow:
            rule += f" ({follow:,} earlier twins or items of a group follow later ones into the test)"
        return told(dataset, number, together, rule)

    def _times(self, dataset: Dataset) -> tuple[NDArray[np.float64], str]:
        """(N,) numbers that grow with time, NaN where there is none, and the column they are from."""
        import pyarrow as pa

        name = self.column
        if name not in dataset.columns:
            raise BadSetting(
                f"{dataset.name} has no column '{self.column}'. Its columns: {', '.join(dataset.columns)}. "
                "Name the one that holds times with --time-column"
            )
        column = dataset.table[name].combine_chunks()
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.timestamp("us")).cast(pa.int64())
        elif not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise BadSetting(
                f"column '{name}' of {dataset.name} holds no times but {column.type}. Expected times or numbers"
            )
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), name

    def _date(self, dataset: Dataset, name: str) -> float:
        import pyarrow as pa

        temporal = pa.types.is_temporal(dataset.table[name].type)
        try:
            if not temporal:
                return float(self.date)  # type: ignore[arg-type]
            read = datetime.datetime.fromisoformat(str(self.date))
        except ValueError as error:
            expected = "a date such as 2024-01-31" if temporal else "a number"
            raise BadSetting(
                f"by_time: date {self.date!r}. Expected {expected}, as the column '{name}' holds"
            ) from error
        zone = read.tzinfo or datetime.UTC
        return (read.replace(tzinfo=zone) - _EPOCH) / datetime.timedelta(microseconds=1)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _cut(when: NDArray[np.float64], wanted: float) -> float:
    """The time from which on the number of items is nearest to `wanted`, with some before it; inf: none is wanted."""
    if not wanted or not len(when):
        return np.inf
    times, counts = np.unique(when, return_counts=True)
    after = np.cumsum(counts[::-1])[::-1]  # items from this time on
    if len(times) == 1:
        raise BadSetting("by_time: all items are of one time. Expected at least two")
    return float(times[1:][np.argmin(np.abs(after[1:] - wanted))])


def _shown(dataset: Dataset, name: str, time: NDArray[np.float64], rows: NDArray[Any]) -> str:
    return f"{_word(dataset, name, time[rows].min())} to {_word(dataset, name, time[rows].max())}"


def _word(dataset: Dataset, name: str, time: float) -> str:
    """A time as people write it."""
    import pyarrow as pa

    if not np.isfinite(time):
        return "the end"
    if not pa.types.is_temporal(dataset.table[name].type):
        return f"{time:g}" if abs(time) < 1e6 else f"{time:.0f}"
    return str((_EPOCH + datetime.timedelta(microseconds=int(time))).replace(tzinfo=None))
