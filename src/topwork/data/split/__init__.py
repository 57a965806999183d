"""Which items are learnt from and which are kept back: one file per rule.

    @dataclass(frozen=True)
    class Stratified:                            # its fields are its options
        def assign(self, dataset, seed) -> Dataset

Rows that the source has put into val or test stay there; the other labelled rows are divided. Every rule keeps twins
(the same picture) and groups (a `group` column) on one side, and depends on the seed and on the items' content only:
adding items moves few of the others.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import connected, in_order
from topwork.types import Dataset

SPLITS = ("train", "val", "test")


class Split(Protocol):
    """A rule that divides a dataset."""

    def assign(self, dataset: Dataset, seed: int) -> Dataset:
        """The same rows with a `split` column."""
        ...


def divide(
    targets: NDArray[Any],
    together: NDArray[Any],
    shares: NDArray[np.float64],
    seed: int,
    keys: NDArray[np.uint64] | None = None,
) -> NDArray[np.int32]:
    """(N,) part of each item: parts have the wanted shares of every class, items that belong together stay together.

        choose for each unit u the part p where  sum_c (O[p, c] - E[p, c])^2 / E[p, c]  grows least

    O, E (P, C + 1): observed and wanted numbers of each class, and of items, in each part. Units with the rarest label
    first, then the largest, then in the order of a hash of their key and the seed. Single items with one label need no
    search: in the order of their hash they fill what their class still wants in each part.
    targets (N,) int, -1 without label, or (N, C) bool; together (N,); shares (P,) sum to 1; keys (N,) identify items.
    Sechidis et al., On the Stratification of Multi-Label Data, ECML 2011 (rarest label first); chi-square is ours.
    """
    N = len(targets)
    labels, rows = _label_entries(targets)
    C = int(labels.max(initial=-1)) + 1
    unit = in_order(together) if N else np.empty(0, np.int32)
    U = int(unit.max(initial=-1)) + 1
    size = np.bincount(unit, minlength=U)
    order = _hash_order(unit, size, np.arange(N, dtype=np.uint64) if keys is None else keys, seed)  # (U,)
    total = np.bincount(labels, minlength=C).astype(float)
    wanted = np.outer(shares, np.append(total, N))  # (P, C + 1)
    held = np.zeros_like(wanted)
    part = np.full(U, -1, np.int32)

    single = np.zeros(U, bool) if targets.ndim == 2 else size == 1
    counts, starts, content = _unit_counts(unit[rows], labels, U, C)
    rarest = np.full(U, N + 1)
    np.minimum.at(rarest, unit[rows], total[labels].astype(int))
    place = np.empty(U, np.int64)
    place[order] = np.arange(U)
    searched = np.flatnonzero(~single)
    for u in searched[np.lexsort((place[searched], -size[searched], rarest[searched]))]:
        has = np.append(content[starts[u] : starts[u + 1]], C)
        count = np.append(counts[starts[u] : starts[u + 1]], size[u])
        growth = (count * (2 * (held[:, has] - wanted[:, has]) + count) / np.maximum(wanted[:, has], 1e-9)).sum(1)
        part[u] = np.argmin(growth)
        held[part[u], has] += count
    _fill(part, order[single[order]], targets, unit, wanted, held)
    return part[unit]


def keep_together(dataset: Dataset, group: str | None = "group") -> NDArray[np.int32]:
    """(N,) numbers: equal for items that must stay on one side, because they share a picture or a group."""
    N = len(dataset)
    links = [np.empty((0, 2), np.int64)]
    nodes = N
    for name in ("twin", group):
        if name is None or name not in dataset.columns:
            continue
        codes = dataset.table[name].combine_chunks().dictionary_encode().indices
        known = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
        number = codes.drop_null().to_numpy()
        links.append(np.stack([known, nodes + number], 1))
        nodes += int(number.max(initial=-1)) + 1
    return in_order(connected(nodes, np.concatenate(links))[:N])


def item_keys(dataset: Dataset) -> NDArray[np.uint64]:
    """(N,) numbers that name items whatever their order: from their content, or from their paths before inspection."""
    import hashlib

    if "content" in dataset.columns:
        whole = b"".join(dataset.table["content"].to_pylist())
        return np.frombuffer(whole, "<u8").reshape(-1, 2)[:, 0].astype(np.uint64)
    short = (hashlib.blake2b(item.encode(), digest_size=8).digest() for item in dataset.table["item"].to_pylist())
    return np.frombuffer(b"".join(short), "<u8").astype(np.uint64)


def assign_shares(dataset: Dataset, shares: dict[str, float], seed: int, group: str | None, rule: str) -> Dataset:
    """Divide the labelled rows that are not in val or test yet; what shares a picture or group with them follows."""
    import pyarrow as pa

    together = keep_together(dataset, group)
    side = dataset.table["split"].cast("string").to_numpy(zero_copy_only=False)
    fixed = np.isin(side, ("val", "test"))
    labelled = dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)
    number = np.array([SPLITS.index(s) if s in SPLITS else -1 for s in side], np.int8)
    for split in ("val", "test"):  # test last: it wins
        follows = np.isin(together, together[(side == split) & fixed]) & ~fixed
        number[follows] = SPLITS.index(split)
    free = np.flatnonzero((number <= 0) & labelled)
    parts = divide(
        dataset.targets()[free], together[free], np.array(list(shares.values())), seed, item_keys(dataset)[free]
    )
    number[free] = np.array([SPLITS.index(name) for name in shares], np.int8)[parts]
    column = pa.DictionaryArray.from_arrays(pa.array(np.maximum(number, 0), mask=number < 0), pa.array(SPLITS))
    counts = ", ".join(f"{(number == i).sum():,} {name}" for i, name in enumerate(SPLITS) if (number == i).any())
    return dataset.with_column("split", column, history=f"split {rule}, seed {seed}: {counts}")


def _label_entries(targets: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every (label, row) that is set."""
    if targets.ndim == 2:
        rows, labels = np.nonzero(targets)
        return labels, rows
    rows = np.flatnonzero(targets >= 0)
    return targets[rows].astype(np.int64), rows


def _unit_counts(unit: NDArray[Any], labels: NDArray[Any], U: int, C: int) -> tuple[NDArray[Any], ...]:
    """How often each label occurs in each unit, as sparse rows: counts, row starts (U + 1,), labels."""
    pair, counts = np.unique(unit.astype(np.int64) * max(C, 1) + labels, return_counts=True)
    starts = np.searchsorted(pair, np.arange(U + 1, dtype=np.int64) * max(C, 1))
    return counts, starts, pair % max(C, 1)


def _hash_order(unit: NDArray[Any], size: NDArray[Any], keys: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """Units in the order of a hash of their smallest member and the seed."""
    smallest = np.full(len(size), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, unit, keys)
    return np.argsort(_mix(smallest ^ _mix(np.array([seed % (1 << 64)], np.uint64))), kind="stable")


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: neighbouring numbers become unrelated ones. Steele et al., OOPSLA 2014."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _fill(
    part: NDArray[np.int32],
    units: NDArray[np.int64],
    targets: NDArray[Any],
    unit: NDArray[Any],
    wanted: NDArray[np.float64],
    held: NDArray[np.float64],
) -> None:
    """Single items class by class: the first ones in hash order to part 0, the next to part 1 ..."""
    if not len(units):
        return
    row = np.empty(len(part), np.int64)
    row[unit] = np.arange(len(unit))
    label = targets[row[units]]
    for c in np.unique(label):
        mine = units[label == c]
        column = wanted[:, c] - held[:, c] if c >= 0 else wanted[:, -1] - held[:, -1]
        need = np.maximum(column, 0)
        need *= len(mine) / max(need.sum(), 1e-9)
        quota = np.floor(need + 1e-9).astype(int)
        left = len(mine) - quota.sum()
        short = wanted[:, -1] - held[:, -1] - quota
        quota[np.lexsort((-short, -np.round(need - quota, 6)))[:left]] += 1
        part[mine] = np.repeat(np.arange(len(quota)), quota)
        held[:, -1] += quota
        if c >= 0:
            held[:, c] += quota
