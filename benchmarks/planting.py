"""Is what was planted found, and does cleaning pay? Real sets with known damage, through `inspect` and `clean`.

    python benchmarks/planting.py [--sets hymenoptera,trashnet_small,sign_language_digits] [--seeds 2] [--items 1500]
                                  [--backbone auto] [--quick]

Recall: of what was planted, by kind. Precision: of what is claimed, how much was planted; claims that `inspect` also
makes of the set before anything was planted are left out on both sides (they are there in fact, or its own mistakes:
they are counted as `own`). Intervals: Wilson 95 %. Label errors: average precision of the scores, and precision and
recall of the labels that `clean` would change or drop.

Accuracy: a logistic probe on the features of the backbone that inspects, learnt from the train split: as planted, leaks
and all; as `fit` takes it, without training copies of the test split (before, to which the differences are); as left by
`clean` (usual), by all proposals of findings.json (applied), and as it was before planting (truth); judged by a third
of the set that nobody has touched. Differences are paired, with 95 % interval.

November 2026, four sets of images (hands 3 seeds, flowers 2, waste 6, insects 5), bundled backbone, insects with
mobilenetv2_100, before the kernel spoke beside the probe and proposals had to be proven:
    exact, resized, re-encoded copies   327 of 327 found, mirrored 101 of 101, cropped 104 of 104; no wrong claim of 532
    broken files                        319 of 319, no wrong claim
    label errors, average precision     hands 0.84, insects 0.88 (bundled: 0.25), flowers 0.44, waste 0.29: where the
                                        features know the classes (accuracy 0.92, 0.97; 0.65, 0.57)
    accuracy over `before`, points      usual   hands +0.2 [-0.3, +0.7], flowers -0.4 [-1.4, +0.5], waste +0.5 [-0.6,
                                                +1.7], insects +0.5 [-0.3, +1.4]
                                        applied hands +2.1 [+1.3, +3.1], flowers +0.1 [-1.0, +1.3], waste -0.3 [-1.8,
                                                +1.2], insects +0.9 [-0.1, +2.2]
sst2, 2 seeds: equal texts but for case and marks at the end 60 of 60, a letter changed 13 of 20, a word less 10 of 20,
no wrong claim of 83; broken 60 of 60; label errors 0.24 (accuracy 0.72).

Since then (hands and flowers 2 seeds of 1,000 items, the others 3): label errors as they are listed, hands 0.91,
insects 0.85 (bundled 0.24), flowers 0.49, waste 0.36, sst2 0.27; many draws of them alone: planted_labels.py. Labels
that clean changes or drops: 21 of 21 were flipped. Accuracy of usual and of applied over `before`: hands +0.3 [-0.9,
+1.6] and +1.1 [-0.4, +2.6], insects +0.8 [-0.2, +2.2] and 0.0 [-1.4, +1.4] (bundled -0.3 [-2.3, +1.7] both), flowers
-1.8 [-3.7, 0.0] and -1.5 [-3.5, +0.4], waste 0.0 [-1.5, +1.5] and [-1.6, +1.6], sst2 -0.1 [-0.9, +0.6] and +0.1 [-0.7,
+0.8]. Two seeds are few: `--quick`, usual over `before`, 12 draws each of up to 1,000 items (sst2 1,500): insects +0.6
+- 1.0, waste +0.2 +- 1.0, cats and dogs +0.6 +- 0.8, flowers +0.1 +- 0.7, hands +0.1 +- 0.6, sst2 0.0 +- 0.4 (twice the
standard error).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _planted import Planted, divided, images, texts
from _shared import dataset as unpacked

from topwork import verbs
from topwork.adaptation import probe
from topwork.data.proposals import COPIES, USUAL
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.intervals import wilson
from topwork.evaluation.paired import compare_hits
from topwork.nn.heads import logits
from topwork.types import Dataset, Findings

SETS = ("hymenoptera", "trashnet_small", "sign_language_digits")
TEXTS = ("sst2",)
WHERE = {"flowers5_small": "flowers", "trashnet_small": "dataset-resized", "sign_language_digits": "Dataset"}
BROKEN_KINDS = ("cut_off", "blank", "nearly_uniform", "garbled", "markup")  # besides unreadable


def rows_of(name: str, items: int) -> list[tuple[Any, str]]:
    """Items and classes of a real set, at most so many."""
    read = verbs.read(unpacked(name) / WHERE.get(name, ""))
    targets = read.targets()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(targets >= 0))[:items]
    found = read.inputs()
    return [(Path(found[i]) if read.modality == "image" else found[i], read.labels[targets[i]]) for i in chosen]


def looked(folder: Path, backbone: str) -> Findings:
    """A deep inspection."""
    return verbs.inspect(folder, deep=True, backbone=backbone, seed=0)


def share(hits: int, of: int) -> str:
    """k of n with interval."""
    low, high = wilson(hits, of)
    return f"{hits / max(of, 1):.3f} [{low:.3f}, {high:.3f}] of {of:,}"


def copies(planted: Planted, found: Findings, own: set[frozenset[str]]) -> dict[str, tuple[int, int]]:
    """By kind of copy, and for all claims: hits and how many there are."""
    items = found.dataset.table["item"].to_pylist()
    twin = dict(zip(items, found.dataset.table["twin"].to_pylist(), strict=True))
    told: dict[str, tuple[int, int]] = {}
    for kind in dict.fromkeys(kind for kind, _ in planted.copies.values()):
        pairs = [
            (copy, item) for copy, (k, item) in planted.copies.items() if k == kind and {copy, item} <= twin.keys()
        ]
        told[kind] = sum(twin[a] == twin[b] for a, b in pairs), len(pairs)
    truth = {item: planted.copies[item][1] if item in planted.copies else item for item in items}
    claims: dict[str, list[bool]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for finding in found.findings:
        if finding.kind in COPIES:
            kinds |= {items[row]: finding.kind for row in finding.rows if items[row] not in kinds}
    groups: dict[int, list[str]] = defaultdict(list)
    for item, number in twin.items():
        groups[number].append(item)
    for group in groups.values():
        for other in group[1:]:
            pair = {truth[group[0]], truth[other]}
            if len(pair) == 2 and (frozenset(pair) in own or pair <= planted.broken.keys()):
                continue  # two broken ones may well be equal
            kind = kinds.get(other, "?")
            claims["precision, crops" if kind == "cropped_duplicates" else "precision, others"].append(len(pair) == 1)
    return told | {name: (sum(values), len(values)) for name, values in claims.items()}


def pairs_within(found: Findings, name: dict[str, str]) -> set[frozenset[str]]:
    """Pairs that are claimed of a set before planting, in the names of the planted one."""
    items, twin = found.dataset.table["item"].to_pylist(), found.dataset.table["twin"].to_pylist()
    groups: dict[int, list[str]] = defaultdict(list)
    for item, number in zip(items, twin, strict=True):
        if item in name:
            groups[number].append(name[item])
    return {frozenset((a, b)) for group in groups.values() for a in group for b in group if a < b}


def broken(planted: Planted, found: Findings) -> dict[str, tuple[int, int]]:
    """By kind of damage; precision over everything that is called broken."""
    items = found.dataset.table["item"].to_pylist()
    called = {one.item for one in found.dataset.skipped}
    for finding in found.findings:
        if finding.kind in BROKEN_KINDS:
            called |= {items[row] for row in finding.rows}
    told = {}
    for kind in dict.fromkeys(planted.broken.values()):
        of = [item for item, k in planted.broken.items() if k == kind]
        told[f"broken: {kind}"] = sum(item in called for item in of), len(of)
    return told | {"precision, broken": (sum(item in planted.broken for item in called), len(called))}


def label_errors(planted: Planted, found: Findings, told: dict[str, Any]) -> dict[str, Any]:
    """Average precision over all labels of readable items, and what clean would do."""
    from sklearn.metrics import average_precision_score

    items = found.dataset.table["item"].to_pylist()
    score = dict.fromkeys(items, 0.0)
    for finding in found.findings:
        if finding.kind == "label_errors":
            score |= {items[row]: s for row, s in zip(finding.rows, finding.scores, strict=True)}
    wrong = np.array([item in planted.flipped for item in items])
    changed = {
        one["item"]: one["to"] if one["action"] == "relabel" else ""
        for finding in told["findings"] if finding["kind"] == "label_errors"
        for one in finding["items"] if one["action"] in ("relabel", "drop")
    }  # fmt: skip
    trained = [item for item in items if item in planted.flipped and item.startswith("train")]
    right = [item for item, to in changed.items() if to and planted.flipped.get(item) == to]
    return {
        "ap": average_precision_score(wrong, list(score.values())) if wrong.any() else float("nan"),
        "flips acted on": (sum(item in changed for item in trained), len(trained)),
        "precision, acts": (sum(item in planted.flipped for item in changed), len(changed)),
        "relabels right": (len(right), sum(bool(to) for to in changed.values())),
    }


def hits(train: Dataset, planted: Planted, names: list[str], backbone: str) -> np.ndarray:
    """(J,) right or wrong on the judging items, of a probe on the train split."""
    rows = train.rows_of("train") if train.table["split"].null_count < len(train) else np.arange(len(train))
    part = train.take(rows)
    number = np.array([names.index(label) for label in train.labels])
    features = verbs.extract(part, backbone)
    y = number[part.take(features.rows).targets()]
    folds = make_folds(y, np.arange(len(y)), 5, 0)
    best, _ = probe.choose(features.x, y, folds, len(names), methods=("logistic",))
    asked, truth = _judging(planted, names, train.modality, backbone)
    return logits(best.head, asked).argmax(1) == truth


def _judging(planted: Planted, names: list[str], modality: str, backbone: str) -> tuple[Any, np.ndarray]:
    table = tables(planted.judge, modality, planted.folder.parent / "judge")
    read = verbs.read(table)
    features = verbs.extract(read, backbone)
    number = np.array([names.index(label) for label in read.labels])
    return features.x, number[read.take(features.rows).targets()]


def tables(rows: list[tuple[str, str]], modality: str, path: Path) -> Path:
    """A csv of items and labels."""
    file = path.with_suffix(".csv")
    with open(file, "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path" if modality == "image" else "text", "label"), *rows])
    return file


def one(
    name: str, seed: int, items: int, backbone: str, sums: dict[str, Counter[str]], aps: list[float]
) -> dict[str, np.ndarray]:
    """Plant, look, clean, judge; adds to the sums and returns who was right about the judging items."""
    rows, modality = rows_of(name, items), "text" if name in TEXTS else "image"
    names = sorted({label for _, label in rows})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        planted = (images if modality == "image" else texts)(rows, home / "planted", seed)  # type: ignore[operator]
        began = time.perf_counter()
        found = looked(planted.folder, backbone)
        seconds = time.perf_counter() - began
        told = verbs.told(verbs.read(planted.folder), found, planted.folder)
        own = pairs_within(
            looked(clean_set(planted, rows, modality, seed, home), backbone), {i: i for i in planted.labels}
        )
        counted = {**copies(planted, found, own), **broken(planted, found)}
        errors = label_errors(planted, found, told)
        aps.append(errors.pop("ap"))
        for what, (hit, of) in {**counted, **errors}.items():
            sums[what].update(hit=hit, of=of)
        sums["own"].update(hit=len(own))
        applied = verbs.clean(planted.folder, home / "applied", apply=told)
        usual = verbs.clean(planted.folder, home / "usual", apply=without_opinions(told))
        print(
            f"{name} seed {seed}: {len(planted.labels):,} items, inspected in {seconds:.0f} s, AP {aps[-1]:.3f}, "
            f"{len(applied.dropped):,} dropped, {len(applied.changed):,} changed",
            flush=True,
        )
        whole = verbs.read(tables(planted.whole, modality, home / "whole"))
        return {
            "planted": hits(found.dataset, planted, names, backbone),
            "before": hits(verbs.inspect(planted.folder).dataset, planted, names, backbone),
            "usual": hits(verbs.read(home / "usual"), planted, names, backbone),
            "applied": hits(verbs.read(home / "applied"), planted, names, backbone),
            "truth": hits(whole, planted, names, backbone),
            "dropped": np.array([len(usual.dropped), len(applied.dropped)]),
        }


def quick(name: str, seed: int, items: int, backbone: str) -> dict[str, np.ndarray]:
    """Plant, clean as by default, judge: who is right about the judging items, with no look at the features."""
    rows, modality = rows_of(name, items), "text" if name in TEXTS else "image"
    names = sorted({label for _, label in rows})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        planted = (images if modality == "image" else texts)(rows, home / "planted", seed)  # type: ignore[operator]
        verbs.clean(planted.folder, home / "usual")
        return {
            "before": hits(verbs.inspect(planted.folder).dataset, planted, names, backbone),
            "usual": hits(verbs.read(home / "usual"), planted, names, backbone),
        }


def clean_set(planted: Planted, rows: list[Any], modality: str, seed: int, home: Path) -> Path:
    """The same items under the same names with nothing planted: what is found there was there."""

    where = home / "own"
    _, rest, split = divided(rows, np.random.default_rng(seed))
    originals = [item for item in planted.labels if item not in planted.copies]
    if modality == "text":
        where.mkdir()
        for side, part in enumerate(("train", "test")):
            with open(where / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
                lines = [row for row, s in zip(rest, split, strict=True) if s == side]
                csv.writer(file).writerows([("text", "label"), *lines])
        return where
    for item, (path, _) in zip(originals, rest, strict=True):
        (where / item).parent.mkdir(parents=True, exist_ok=True)
        (where / item).write_bytes(path.read_bytes())
    return where


def without_opinions(told: dict[str, Any]) -> dict[str, Any]:
    """The same findings.json with the actions of `clean` without options: facts about files, no opinions."""
    kinds = {*USUAL, *COPIES}
    return {
        **told,
        "findings": [
            finding
            if finding["kind"] in kinds
            else {**finding, "items": [{**item, "action": "keep"} for item in finding["items"]]}
            for finding in told["findings"]
        ],
    }


def main() -> None:
    """Sets one after the other, seeds added up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--quick", action="store_true", help="only the accuracy after the usual clean, many draws")
    asked = parser.parse_args()
    for name in asked.sets.split(","):
        if asked.quick:
            draws = [quick(name, seed, asked.items, asked.backbone) for seed in range(asked.seeds)]
            off = 100 * np.array([one["usual"].mean() - one["before"].mean() for one in draws])
            error = 2 * off.std(ddof=1) / len(off) ** 0.5
            print(f"{name}: usual clean {off.mean():+.2f} points +- {error:.2f} in {len(off)} draws", flush=True)
            continue
        sums: dict[str, Counter[str]] = defaultdict(Counter)
        aps: list[float] = []
        judged: list[dict[str, np.ndarray]] = [
            one(name, seed, asked.items, asked.backbone, sums, aps) for seed in range(asked.seeds)
        ]
        print(f"\n{name}, {asked.seeds} seeds")
        for what, count in sums.items():
            print(f"  {what:24} {count['hit'] if what == 'own' else share(count['hit'], count['of'])}")
        print(f"  {'label errors, AP':24} {np.mean(aps):.3f} ({', '.join(f'{ap:.3f}' for ap in aps)})")
        right = {
            key: np.concatenate([one[key] for one in judged])
            for key in ("planted", "before", "usual", "applied", "truth")
        }
        for key, values in right.items():
            gain = compare_hits(right["before"], values)
            more = (
                ""
                if key == "before"
                else f", {100 * gain.difference:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
            )
            print(f"  accuracy {key:15} {share(int(values.sum()), len(values))}{more}")
        print(flush=True)


if __name__ == "__main__":
    main()
