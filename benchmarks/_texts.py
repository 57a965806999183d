"""Texts and their labels for the benchmarks, from ../shared."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from _shared import dataset
from sklearn.model_selection import train_test_split

from topwork.types import Dataset

ENGLISH = ("sst2", "trec", "banking77", "CR", "SUBJ")
CHINESE = ("chnsenticorp_htl", "waimai_10k")


@dataclass(frozen=True, eq=False)
class Task:
    """Texts, their classes and which of them are for testing."""

    texts: list[str]
    labels: Any  # (N,) int
    is_test: Any  # (N,) bool; nowhere where a set is measured by cross-validation

    def dataset(self) -> Dataset:
        """As `fit` would see it."""
        return as_dataset(self.texts, self.labels)


def as_dataset(texts: Sequence[str], labels: Any = None) -> Dataset:
    """Texts as a data set."""
    labels = np.zeros(len(texts), int) if labels is None else labels
    table = pa.table({
        "item": pa.array([f"text {i}" for i in range(len(texts))]),
        "text": pa.array(texts, pa.string()),
        "target": pa.array(labels, pa.int32()),
    })  # fmt: skip
    return Dataset(table, "", tuple(str(c) for c in range(int(labels.max()) + 1)), modality="text")


def read(name: str) -> Task:
    """One of the sets; MR, CR and SUBJ have no test part and are cut 80/20 (stratified, seed 0)."""
    if name in CHINESE:
        with (dataset(name) / _csv(name)).open(encoding="utf-8-sig", newline="") as file:
            rows = [(text.strip(), label) for label, text in list(csv.reader(file))[1:]]
        rows = list({text: (text, label) for text, label in reversed(rows) if text}.values())[::-1]
        return Task([t for t, _ in rows], numbered([label for _, label in rows]), np.zeros(len(rows), bool))
    if name in ("MR", "CR", "SUBJ"):
        files = sorted(path for path in (dataset("sentpol") / name).iterdir() if path.is_file())
        rows = [(line, file.name) for file in files for line in file.read_text("utf-8").split("\n") if line.strip()]
        labels = numbered([label for _, label in rows])
        is_test = np.zeros(len(rows), bool)
        is_test[train_test_split(np.arange(len(rows)), test_size=0.2, stratify=labels, random_state=0)[1]] = True
        return Task([text for text, _ in rows], labels, is_test)
    parts = [_part(name, part) for part in (0, 1)]
    both = [*parts[0], *parts[1]]
    is_test = np.arange(len(both)) >= len(parts[0])
    return Task([text for text, _ in both], numbered([label for _, label in both]), is_test)


def _part(name: str, part: int) -> list[tuple[str, str]]:
    folder = dataset(name)
    if name == "sst2":
        lines = _lines(folder / f"{('train', 'test')[part]}.tsv")
        return [(text, label) for text, _, label in (line.rpartition("\t") for line in lines)]
    if name == "trec":
        lines = _lines(folder / f"{('train_5500', 'TREC_10')[part]}.label", "latin-1")
        return [(line.split(" ", 1)[1], line.split(":")[0]) for line in lines]
    with (folder / f"{('train', 'test')[part]}.csv").open(encoding="utf-8", newline="") as file:
        return [(text, label) for text, label in csv.reader(file)][1:]


def _csv(name: str) -> str:
    return next(path.name for path in sorted(dataset(name).iterdir()) if path.suffix == ".csv")


def _lines(path: Any, encoding: str = "utf-8") -> list[str]:
    return [line for line in path.read_text(encoding).split("\n") if line.strip()]


def numbered(names: Sequence[str]) -> Any:
    """Class names to 0 .. C - 1."""
    return np.unique(np.array(names), return_inverse=True)[1]


def sentences(many: int) -> tuple[list[str], Any]:
    """Different sentences with two labels: sst2, MR, SUBJ and CR one after the other, each with its own meaning."""
    tasks = [read(name) for name in ("sst2", "MR", "SUBJ", "CR")]
    seen = {t: int(c) for task in tasks for t, c in zip(task.texts, task.labels, strict=True)}
    if len(seen) < many:
        raise SystemExit(f"The sets hold {len(seen):,} different sentences, not {many:,}")
    return list(seen)[:many], np.array(list(seen.values())[:many])
