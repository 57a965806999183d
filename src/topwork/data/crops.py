"""The same picture through a crop: candidates that look alike as a whole, confirmed by laying one over the other.

    sketches   16 x 16 grey values softened by a Gaussian of one cell, and half the weight of 4 x 4 colours, about the
               mean of the set; of every picture and of its mirror image      cosine >= ALIKE
    features   of a backbone, about their mean, where they are there          cosine >= NEAR
    pairs      the most alike first, at most BUDGET for each picture; confirmed by overlay.py

Within a class a mirrored crop counts as the same picture, elsewhere its side may be what makes the class.

Measured in November 2026, 120 pictures of each of five real sets (insects, flowers, waste, hands, pets) among 400, as
JPEG of quality 90. Crops of 0.9 of each side at random places: 98 to 100 % found (without features 91 to 100 %); those
that are mirrored, too: 96 to 100 %; crops of 0.75: 62 % of hands, 91 % or more elsewhere (without features 36 to 83 %).
Not one claim was wrong; in 600 pictures of waste it also found one object that was photographed twice in a moment. It
takes about 10 ms of one processor per picture. More in benchmarks/planting.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.duplicates import connected, in_order, mirrored
from topwork.data.findings import conflicts, crossing, duplicates
from topwork.data.neighbours import near_neighbours
from topwork.data.overlay import same_pictures
from topwork.types import Dataset, Finding, Progress, silent

ALIKE = 0.4  # cosine of sketches
NEAR = 0.4  # cosine of features
NAMED = 10  # candidates that each picture names
BUDGET = 8  # and that stay of all, per picture, of each kind: a candidate costs 0.2 ms, a likely one some more
SIDE, CHROMA = 16, 32


@dataclass(frozen=True, eq=False)
class Crops:
    """Pairs of rows that show the same picture, and no copies in whole."""

    pairs: NDArray[np.int64]  # (P, 2)
    scores: NDArray[np.float64]  # (P,) correlation of their fine parts
    mirrored: NDArray[np.bool_]  # (P,)


def find(
    dataset: Dataset,
    sketches: NDArray[np.uint8],
    blank: NDArray[np.bool_],
    features: NDArray[np.float32] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Crops:
    """Of an inspected dataset of images; sketches (N, 288), blank (N,), features (N, D)."""
    twin, labels = dataset.table["twin"].to_numpy(), dataset.targets()
    first = np.sort(np.unique(twin, return_index=True)[1])  # one of each picture
    first = first[~blank[first]]
    pairs = [candidates(_described(sketches[first]), ALIKE, seed, _described(mirrored(sketches[first])))]
    if features is not None:
        pairs.append(candidates(features[first], NEAR, seed))
    asked = first[np.unique(np.concatenate(pairs), axis=0)]
    overlays = same_pictures(dataset.paths(), asked, progress)
    turned = np.array([one.mirrored for one in overlays], bool)
    kin = _kin(labels, asked)
    same = np.array([one.same for one in overlays], bool) & (kin | ~turned)
    return Crops(asked[same], np.array([one.score for one in overlays], float)[same], turned[same])


def candidates(
    x: NDArray[np.float32], least: float, seed: int = 0, turned: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """(P, 2) pairs i < j that are worth a look, at most BUDGET N: nearest first; turned (N, D): of mirror images."""
    N = len(x)
    mean = x.mean(0) if N else 0
    both = x - mean if turned is None else np.concatenate([x - mean, turned - mean])
    pairs, near = near_neighbours(both, least, seed, NAMED)
    across = (pairs[:, 0] < N) & (pairs[:, 0] != pairs[:, 1] - N)
    pairs, near = np.sort(pairs[across] % max(N, 1), 1), near[across]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -near))
    pairs = pairs[order]
    first = np.sort(np.unique(pairs, axis=0, return_index=True)[1])
    return pairs[first[: BUDGET * N]]


def findings(dataset: Dataset, crops: Crops) -> tuple[Dataset, list[Finding]]:
    """The dataset with crops as twins of what they were cut from, and what there is to say."""
    if not len(crops.pairs):
        return dataset, []
    import pyarrow as pa

    before = dataset.table["twin"].to_numpy()
    twin = in_order(connected(int(before.max()) + 1, before[crops.pairs].astype(np.int64))[before])
    score = np.zeros(len(dataset))
    for side in (0, 1):
        np.maximum.at(score, crops.pairs[:, side], crops.scores)
    new = dataset.with_column("twin", pa.array(twin, pa.int32()))
    found = duplicates(new, "cropped_duplicates", "crops of other pictures", before, twin, score)
    alone = twin.max() + 1 + np.arange(len(twin), dtype=np.int32)
    fresh = np.where(np.isin(np.arange(len(twin)), found[0].rows), twin, alone)
    for one in (crossing(new, fresh), conflicts(new, fresh)):
        found += [dataclasses.replace(one, message=f"{one.message}, through crops")] if one else []
    return new, found


def _described(sketches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 288) numbers: softened grey values of length 1, colours of length 1/2 where there are some."""
    from scipy.ndimage import gaussian_filter

    grey = sketches[:, : SIDE * SIDE].astype(np.float32).reshape(-1, SIDE, SIDE)
    grey = gaussian_filter(grey, (0, 1, 1)).reshape(len(grey), -1)
    grey -= grey.mean(1, keepdims=True)
    colour = sketches[:, SIDE * SIDE :].astype(np.float32) - 128
    grey /= np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1)
    colour /= np.maximum(np.linalg.norm(colour, axis=1, keepdims=True), 40)  # below: a cast, no colour
    return np.concatenate([grey, 0.5 * colour], 1)


def _kin(labels: NDArray[Any], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) whether both have one label, or one has none."""
    one, other = labels[pairs[:, 0]], labels[pairs[:, 1]]
    if labels.ndim == 2:
        return (one == other).all(1)
    unknown = np.isnan(labels) if labels.dtype.kind == "f" else labels < 0
    return (one == other) | unknown[pairs[:, 0]] | unknown[pairs[:, 1]]
