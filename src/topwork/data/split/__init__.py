"""Which items are learnt from and which are kept back: one file per rule.

    @dataclass(frozen=True)
    class Stratified:                            # its fields are its options
        def assign(self, dataset, seed) -> Dataset
        folded = True                            # only where every item is held out once:
        def numbers(self, dataset, seed)         # (N,) fold of each row
        carries = "time"                         # only where its `column` is one that sources carry under this name

Rows that the source has put into val or test stay there; the other labelled rows are divided. Every rule keeps twins
(the same picture) and groups (a `group` column) on one side, and depends on the seed and on the items' content only,
not on their order: adding none moves none, and adding a share `a` of items moves few of the others.

    by_time(date=...), by_domain(test=...)    none
    by_time(test=...), few_shot               at most as many as came
    stratified, grouped, kfold                about sum_q sqrt(2 a q (1 - q) C / (pi U)) of all, groups up to twice so

q: shares at which parts end, C classes, U units. The last is what a share of a sample must waver by: of 1,000 photos of
10 classes 0.9 % change sides when 100 more come (formula: 1.0 %), with every photo twice 1.3 %, in groups of 20 up to
9 % (benchmarks/split_stability.py). Before November 2026 groups moved by 32 %, as if drawn anew.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import connected, in_order
from topwork.errors import ProofFailed
from topwork.types import Dataset

SPLITS = ("train", "val", "test")
BINS, BIN_ITEMS = 10, 5  # of numbers


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

    Numbers are divided like classes: bins of equal mass (`strata`).

        unit u goes to the part that its hash falls into, h(u) in [0, 1) cut at the shares, while there is room:
            O[p, c] + n(u, c) / 2 <= E[p, c] for each of its classes c, and for items
        otherwise to the part p where  sum_c (O[p, c] - E[p, c])^2 / E[p, c]  grows least

    O, E (P, C + 1): observed and wanted numbers of each class, and of items, in each part. Units with the rarest label
    first (by powers of two), then the largest, then in the order of a hash of their key and the seed. Single items with
    one label need no search: in the order of their hash they fill what their class still wants in each part.
    targets (N,) int, -1 without label, or (N, C) bool; together (N,); shares (P,) sum to 1; keys (N,) identify items.
    Sechidis et al., On the Stratification of Multi-Label Data, ECML 2011 (rarest label first); Mirrokni et al.,
    Consistent Hashing with Bounded Loads, SODA 2018 (where the hash says, while there is room); chi-square is ours.
    """
    N, targets = len(targets), strata(targets)
    labels, rows = _label_entries(targets)
    C = int(labels.max(initial=-1)) + 1
    unit = in_order(together) if N else np.empty(0, np.int32)
    U = int(unit.max(initial=-1)) + 1
    size = np.bincount(unit, minlength=U)
    hashes = _hashes(unit, size, np.arange(N, dtype=np.uint64) if keys is None else keys, seed)  # (U,)
    order = np.argsort(hashes, kind="stable")
    prefers = np.searchsorted(np.cumsum(shares)[:-1], hashes / 2.0**64, side="right")
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
    rarity = np.log2(np.maximum(rarest[searched], 1)).astype(int)  # else every item that comes would change the order
    for u in searched[np.lexsort((place[searched], -size[searched], rarity))]:
        has = np.append(content[starts[u] : starts[u + 1]], C)
        count = np.append(counts[starts[u] : starts[u + 1]], size[u])
        p = prefers[u]
        if (held[p, has] + count / 2 > wanted[p, has]).any():
            growth = (count * (2 * (held[:, has] - wanted[:, has]) + count) / np.maximum(wanted[:, has], 1e-9)).sum(1)
            p = np.argmin(growth)
        part[u] = p
        held[p, has] += count
    _fill(part, order[single[order]], targets, unit, wanted, held)
    return part[unit]


def strata(targets: NDArray[Any]) -> NDArray[Any]:
    """What to stratify by: labels as they are; numbers (N,) as up to BINS bins of equal mass, -1 where unknown."""
    if targets.dtype.kind != "f":
        return targets
    known = np.isfinite(targets)
    bins = int(np.clip(known.sum() // BIN_ITEMS, 1, BINS))
    edges = np.unique(np.quantile(targets[known], np.arange(1, bins) / bins)) if known.any() else np.zeros(0)
    return np.where(known, np.searchsorted(edges, targets, "right"), -1).astype(np.int32)


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


def item_keys(dataset: Dataset, group: str | None = "group") -> NDArray[np.uint64]:
    """(N,) numbers that name items whatever their order.

    From the name of their group, so that a group that grows stays where it is; else from their content, or from their
    paths before inspection.
    """
    if "content" in dataset.columns:
        whole = b"".join(dataset.table["content"].to_pylist())
        keys = np.frombuffer(whole, "<u8").reshape(-1, 2)[:, 0].astype(np.uint64)
    else:
        keys = _name_keys(dataset.table["item"].to_pylist())
    if group is not None and group in dataset.columns:
        coded = dataset.table[group].combine_chunks().dictionary_encode()
        names = _name_keys([str(name) for name in coded.dictionary.to_pylist()])
        known = coded.is_valid().to_numpy(zero_copy_only=False)
        keys[known] = names[coded.indices.drop_null().to_numpy()]
    return keys


def _name_keys(names: list[str]) -> NDArray[np.uint64]:
    import hashlib

    short = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(short), "<u8").astype(np.uint64)


def hashed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """(N,) numbers without order, a different one for each key and seed."""
    return _mix(keys ^ _mix(np.array([seed % (1 << 64)], np.uint64)))


def assign_shares(dataset: Dataset, shares: dict[str, float], seed: int, group: str | None, rule: str) -> Dataset:
    """Divide the labelled rows that are not in val or test yet; what shares a picture or group with them follows."""
    together = keep_together(dataset, group)
    number = decided(dataset, together)
    free = np.flatnonzero((number <= 0) & labelled(dataset))
    keys = item_keys(dataset, group)[free]
    parts = divide(dataset.targets()[free], together[free], np.array(list(shares.values())), seed, keys)
    number[free] = np.array([SPLITS.index(name) for name in shares], np.int8)[parts]
    return told(dataset, number, together, f"{rule}, seed {seed}")


def labelled(dataset: Dataset) -> NDArray[np.bool_]:
    """(N,) rows that have a target."""
    return dataset.table["target"].is_valid().to_numpy(zero_copy_only=False)


def decided(dataset: Dataset, together: NDArray[Any]) -> NDArray[np.int8]:
    """(N,) numbers of SPLITS, -1: none yet. What belongs together with val or test items of the source is theirs."""
    side = dataset.table["split"].cast("string").to_numpy(zero_copy_only=False)
    fixed = np.isin(side, ("val", "test"))
    number = np.array([SPLITS.index(s) if s in SPLITS else -1 for s in side], np.int8)
    for split in ("val", "test"):  # test last: it wins
        follows = np.isin(together, together[(side == split) & fixed]) & ~fixed
        number[follows] = SPLITS.index(split)
    return number


def told(dataset: Dataset, number: NDArray[np.int8], together: NDArray[Any], rule: str) -> Dataset:
    """The dataset with these splits, checked for leaks, and a line of history that counts them."""
    import pyarrow as pa

    if len(crossed := np.intersect1d(together[number == 0], together[number > 0])):
        raise ProofFailed(f"{rule}: {len(crossed):,} twins or groups are on both sides. Please report it")
    column = pa.DictionaryArray.from_arrays(pa.array(np.maximum(number, 0), mask=number < 0), pa.array(SPLITS))
    counts = ", ".join(f"{(number == i).sum():,} {name}" for i, name in enumerate(SPLITS) if (number == i).any())
    return dataset.with_column("split", column, history=f"split {rule}: {counts}")


def crossing(dataset: Dataset) -> dict[str, int]:
    """How many twins and groups have items on both sides of a split, train and val or test: 0 after every rule."""
    side = dataset.table["split"].cast("string").to_numpy(zero_copy_only=False)
    held = np.isin(side, ("val", "test"))
    crossed = {}
    for name in ("twin", "group"):
        if name in dataset.columns:
            codes = dataset.table[name].combine_chunks().dictionary_encode().indices
            known = codes.is_valid().to_numpy(zero_copy_only=False)
            number, on = codes.drop_null().to_numpy(), held[known]
            train = np.asarray(side[known] == "train", bool)
            crossed[name] = len(np.intersect1d(number[on], number[train]))
    return crossed


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


def _hashes(unit: NDArray[Any], size: NDArray[Any], keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """(U,) hashes of each unit's smallest member and the seed."""
    smallest = np.full(len(size), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, unit, keys)
    return hashed(smallest, seed)


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
