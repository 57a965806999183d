"""A million rows: are inspection and split done in a minute and 2 GB, and does the search for neighbours stay flat?

    python benchmarks/scale.py [--rows 1000000] [--embeddings 1000000] [--dimensions 128]

texts       a table of made-up sentences (5 % copies, a third of them with a word changed), ten classes: read, inspect,
            split stratified and by group; a child process, its peak memory (VmHWM) and seconds of each stage
columns     a table of eight numbers, a tenth of them missing, and a word: read, inspect, split
images      so many rows whose facts are known (as after a first inspection): twins through hashes, findings, split
neighbours  near_neighbours of embeddings, a twentieth of which are near copies (cosine 0.9) of others, isotropic and in
            clusters: seconds, recall of the copies, and the ratio for twice as many rows (2: linear, 4: quadratic)

Seconds are of this machine as busy as it was: `CPU` is what the process itself has used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WORDS = (  # noqa: SIM905 a list of a hundred strings is no easier to read
    "the a of and in to was is it that for on with as at by from this have or an be not are but film book room food "
    "service story actor plot hotel dinner night view price staff music scene ending author page chapter bed water "
    "coffee breakfast street window summer winter train ticket garden kitchen teacher doctor city village river road "
    "great poor slow quick warm cold loud quiet bright dark funny sad long short clean dirty fresh stale kind rude"
).split()


def peak_mb() -> float:
    """Most memory that this process has had, MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


class Stages:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Do it and note how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        done = work()
        self.seconds[name] = time.perf_counter() - wall, time.process_time() - cpu
        return done

    def told(self, **more: Any) -> None:
        """For the parent."""
        print(json.dumps({"stages": self.seconds, "peak_mb": peak_mb(), **more}))


def write_texts(path: Path, N: int) -> None:
    """N sentences of 6 to 30 words with label and group."""
    rng = np.random.default_rng(0)
    words = np.array(WORDS)
    with open(path, "w", encoding="utf-8") as file:
        file.write("text,label,group\n")
        kept: list[str] = []
        for at in range(0, N, 10_000):
            n = min(10_000, N - at)
            lengths = rng.integers(6, 31, n)
            drawn = words[rng.integers(0, len(words), int(lengths.sum()))]
            ends = np.cumsum(lengths)
            texts = [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
            for i in range(0, n, 20):
                old = kept[int(rng.integers(len(kept)))] if kept else texts[i]
                parts = old.split(" ")
                parts[int(rng.integers(len(parts)))] = "other" if i % 60 == 0 else parts[0]
                texts[i] = old if i % 60 == 40 else " ".join(parts)
            kept = texts[::7]
            labels, groups = rng.integers(0, 10, n), rng.integers(0, max(N // 8, 1), n)
            file.writelines(f"{t},class {y},g{g}\n" for t, y, g in zip(texts, labels, groups, strict=True))


def texts(path: str) -> None:
    """In a child: read, inspect, split."""
    from topwork import sources
    from topwork.data.inspect import inspect
    from topwork.data.split.grouped import Grouped
    from topwork.data.split.stratified import Stratified

    stage = Stages()
    dataset = stage("read", lambda: sources.read(path, group_column="group"))
    found = stage("inspect", lambda: inspect(dataset))
    parted = stage("split", lambda: Stratified(0.2).assign(found.dataset, 0))
    stage("by group", lambda: Grouped(test=0.2).assign(found.dataset, 0))
    kinds = {one.kind: len(one.rows) for one in found.findings}
    stage.told(rows=len(found.dataset), test=len(parted.rows_of("test")), findings=kinds)


def write_columns(path: Path, N: int) -> None:
    """N rows of numbers with holes, a word, and a label."""
    rng = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(f"c{i}" for i in range(8)) + ",town,label\n")
        for at in range(0, N, 10_000):
            n = min(10_000, N - at)
            cells = np.round(rng.normal(50, 20, (n, 8)), 3).astype(str)
            cells[rng.random((n, 8)) < 0.1] = ""
            words, labels = rng.choice(["Oslo", "Bern", "Rome"], n), rng.integers(0, 10, n)
            file.writelines(f"{','.join(r)},{w},{y}\n" for r, w, y in zip(cells, words, labels, strict=True))


def columns(path: str) -> None:
    """In a child: read, inspect, split."""
    from topwork import sources
    from topwork.data.inspect import inspect
    from topwork.data.split.stratified import Stratified

    stage = Stages()
    dataset = stage("read", lambda: sources.read(path))
    found = stage("inspect", lambda: inspect(dataset))
    stage("split", lambda: Stratified(0.2).assign(found.dataset, 0))
    stage.told(rows=len(found.dataset), findings={one.kind: len(one.rows) for one in found.findings})


def images(N: str) -> None:
    """In a child: rows with known facts; a twentieth are saved again (some bits differ), a hundredth mirrored."""
    import pyarrow as pa

    from topwork.data import inspect as room
    from topwork.data.duplicates import mirrored
    from topwork.data.inspect_image import Seen
    from topwork.data.split.stratified import Stratified
    from topwork.modalities.image import SKETCH
    from topwork.types import Dataset

    n = int(N)
    rng = np.random.default_rng(0)
    stage = Stages()
    sketches = rng.integers(60, 200, (n, SKETCH), dtype=np.uint8)
    hashes, mirrors = (rng.integers(0, 1 << 63, n, dtype=np.uint64) * np.uint64(2) for _ in range(2))
    copies, flips = n // 20, n // 100
    old, new = np.arange(copies), n - copies + np.arange(copies)
    sketches[new], mirrors[new] = sketches[old], mirrors[old]
    hashes[new] = hashes[old] ^ (np.uint64(1) << rng.integers(0, 64, copies, dtype=np.uint64))
    old, new = copies + np.arange(flips), 2 * copies + np.arange(flips)
    sketches[new], hashes[new], mirrors[new] = mirrored(sketches[old]), mirrors[old], hashes[old]
    labels = rng.integers(0, 10, n).astype(np.int32)
    labels[n - copies :], labels[new] = labels[:copies], labels[old]
    seen = Seen(
        contents=rng.integers(0, 256, (n, 16), dtype=np.uint8), hashes=hashes, mirrors=mirrors, sketches=sketches,
        blank=np.zeros(n, bool), sharpness=rng.uniform(0.3, 1.2, n).astype(np.float32),
        tones=np.tile(np.array([10, 240], np.uint8), (n, 1)), lost=np.zeros(n, np.uint8), turn=np.ones(n, np.uint8),
        animated=np.zeros(n, bool), ended=np.ones(n, bool), sizes=rng.integers(200, 600, (n, 3)),
        kinds=np.zeros((n, 2), np.int32), words=["RGB", "JPEG"], reasons=[None] * n,
    )  # fmt: skip
    table = pa.table({
        "item": pa.array([f"{i:07d}.jpg" for i in range(n)]),
        "target": pa.array(labels),
        "split": pa.array([None] * n, pa.string()).dictionary_encode(),
    })  # fmt: skip
    dataset = Dataset(table, "/", tuple(f"class {c}" for c in range(10)), name="known")
    room._look = lambda *_: seen  # type: ignore[assignment]  # files are not there: what a store would tell
    found = stage("inspect", lambda: room.inspect(dataset))
    stage("split", lambda: Stratified(0.2).assign(found.dataset, 0))
    stage.told(rows=n, findings={one.kind: len(one.rows) for one in found.findings})


def neighbours(N: str, D: str, clusters: str) -> None:
    """In a child: one search."""
    from topwork.data.neighbours import near_neighbours, plan

    n, d, k, least = int(N), int(D), int(clusters), 0.9
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, d), dtype=np.float32)
    if k:
        x += 1.2 * rng.standard_normal((k, d), dtype=np.float32)[rng.integers(0, k, n)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    copies = n // 20
    away = rng.standard_normal((copies, d), dtype=np.float32)
    away -= (away * x[:copies]).sum(1, keepdims=True) * x[:copies]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    cosine = least + 0.001
    x[n - copies :] = cosine * x[:copies] + np.sqrt(1 - cosine**2) * away
    stage = Stages()
    pairs, _ = stage("search", lambda: near_neighbours(x, least, 0))
    found = set(map(tuple, pairs.tolist()))
    hits = sum((i, n - copies + i) in found for i in range(copies))
    stage.told(recall=hits / copies, pairs=len(pairs), trees=plan(n, least)[0], data_mb=x.nbytes / 2**20)


def child(*arguments: str) -> dict[str, Any]:
    """What a child process says of itself."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOPWORK_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments], env={**os.environ, **threads}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, told: dict[str, Any]) -> None:
    """Stages, sum, memory."""
    stages = {key: f"{wall:.1f} s ({cpu:.1f} s CPU)" for key, (wall, cpu) in told["stages"].items()}
    total = sum(wall for wall, _ in told["stages"].values())
    rest = {key: value for key, value in told.items() if key not in ("stages", "peak_mb")}
    parts = ", ".join(f"{key} {value}" for key, value in stages.items())
    print(f"{name}: {total:.1f} s, peak {told['peak_mb']:,.0f} MB: {parts}\n    {rest}", flush=True)


def main() -> None:
    """Everything, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--embeddings", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--only", choices=("texts", "columns", "images", "neighbours"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        children = {"texts": texts, "columns": columns, "images": images, "neighbours": neighbours}
        children[asked.child[0]](*asked.child[1:])
        return
    if asked.only in (None, "texts"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "texts.csv"
            write_texts(path, asked.rows)
            show(f"{asked.rows:,} texts", child("texts", str(path)))
    if asked.only in (None, "columns"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "columns.csv"
            write_columns(path, asked.rows)
            show(f"{asked.rows:,} rows of nine columns", child("columns", str(path)))
    if asked.only in (None, "images"):
        show(f"{asked.rows:,} images with known facts", child("images", str(asked.rows)))
    if asked.only in (None, "neighbours"):
        for clusters in (0, 100):
            before: tuple[float, int] | None = None
            n = 10_000
            while n <= asked.embeddings:
                told = child("neighbours", str(n), str(asked.dimensions), str(clusters))
                cpu = told["stages"]["search"][1]
                step = f", {(cpu / before[0]) ** (1 / np.log2(n / before[1])):.2f} per doubling" if before else ""
                show(f"{n:,} embeddings, {clusters or 'no'} clusters{step}", told)
                before, n = (cpu, n), n * 10


if __name__ == "__main__":
    main()
