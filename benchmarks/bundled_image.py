"""The bundled image backbone on six real sets, against the same network without pretraining and against its teacher.

Rows, all with the same labelled items and the same test items:
    bundled       frozen features of --backbone, the probe that `topwork fit` would choose
    untrained     the same network and grids with random weights (another start in every draw), the same probe
    scratch       the same network trained from scratch on the labelled items alone, see `_scratch.py`
    pixels        raw pixels of 16 x 16 and logistic regression
    hog           histograms of oriented gradients and logistic regression, see `_hog.py`
    mobilenetv2   frozen features of mobilenetv2_100 at 224 px, the probe that `topwork fit` would choose

Sets: hymenoptera and cats_dogs_small keep their own test part, the others give 20 % to it (ORL 30 %: 3 faces a person),
stratified, copies of a picture on one side. Labelled items: 5, 10, 20 a class in 5 draws (the smaller draw is part of
the larger one), and all of them once. Sets with fewer items a class take what there is: ORL 5 and all (7).

Intervals and paired tests count both the draw and the test items as random (`spread`). With all labels there is
one draw: Wilson's interval, McNemar's exact test.

    python benchmarks/bundled_image.py [--backbone SPEC] [--only ROW ...] [--sets SET ...] [--labels N ...] [--out FILE]

What is in --out is kept, an interrupted run goes on, and another backbone adds its own row. Everything on one thread:
scratch takes about four hours of one core and is filled only where --only names it, the rest half an hour.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOPWORK_THREADS", "1")

import numpy as np
from _shared import WEIGHTS
from _shared import dataset as unpacked
from numpy.typing import NDArray
from probes import root_of, splits

from topwork import sources
from topwork.adaptation.probe import choose
from topwork.backbones import find
from topwork.backbones.architecture import parse
from topwork.backbones.sources.bundled import DEFAULT, FOLDERS
from topwork.data.inspect import inspect
from topwork.data.split import item_keys, keep_together
from topwork.data.split.kfold import folds
from topwork.data.split.stratified import Stratified
from topwork.evaluation.intervals import student, wilson
from topwork.evaluation.paired import compare_hits
from topwork.features.contents import distinct
from topwork.features.extract import extract
from topwork.features.pixels import Loader
from topwork.nn.heads import logits
from topwork.nn.session import session
from topwork.store.atomic import write_file
from topwork.store.cache import open_cache
from topwork.types import Backbone, Dataset, Preprocess, digest

SETS = {  # name: share of the items that is the test part, where the set has none of its own
    "hymenoptera": None,
    "cats_dogs_small": None,
    "flowers5_small": 0.2,
    "trashnet_small": 0.2,
    "sign_language_digits": 0.2,
    "orl_faces": 0.3,
}
ROWS = ("bundled", "untrained", "pixels", "hog", "mobilenetv2", "scratch")
LABELS = (10, 5, 20, 0)  # a class; 0: all. 10 first: it is the one that is tested
TEACHER = f"local:{WEIGHTS}"
SQUARE = Preprocess(128, 128, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # what HOG and the network from scratch are shown


@dataclass(frozen=True, eq=False)
class Ground:
    """One set: items to label, items that only measure."""

    name: str
    dataset: Dataset
    train: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def of(cls, name: str) -> Ground:
        """Read, inspect and divide."""
        dataset = inspect(sources.read(root_of(unpacked(name))), open_cache()).dataset
        share = SETS[name]
        dataset = dataset if share is None else Stratified(test=share).assign(dataset, 0)
        held = "test" if "test" in splits(dataset) else "val"
        return cls(name, dataset, dataset.rows_of("train"), dataset.rows_of(held))

    def labelled(self, per_class: int, draw: int) -> NDArray[np.int64]:
        """Rows that are labelled: the first of every class in an order that belongs to the draw."""
        if not per_class:
            return self.train
        targets, rng = self.dataset.targets()[self.train], np.random.default_rng(draw)
        order = [rng.permutation(self.train[targets == c]) for c in range(len(self.dataset.labels))]
        return np.concatenate([rows[:per_class] for rows in order])

    def cells(self, draws: int) -> list[tuple[int, int]]:
        """Every (labels a class, draw); counts that no class reaches are left out."""
        most = int(np.bincount(self.dataset.targets()[self.train]).min())
        return [(k, draw) for k in LABELS if k < most for draw in range(draws if k else 1)]

    @property
    def key(self) -> str:
        """Changes with the items, their division and the draws."""
        return digest([item_keys(self.dataset).tolist(), self.test.tolist(), self.labelled(5, 0).tolist()])


def main() -> None:
    """Fill the table, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="bundled", help="SPEC of the first row")
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, metavar="ROW", help="rows to compute; default: all but scratch"
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--labels", nargs="+", type=int, choices=LABELS, default=LABELS, metavar="N", help="0: all")
    parser.add_argument("--draws", type=int, default=5, help="of the labelled items; more = narrower intervals")
    home = Path(tempfile.gettempdir()) / "topwork-benchmarks" / "bundled_image.json"
    parser.add_argument("--out", type=Path, default=home, help=f"scores (default {home})")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = arguments.only or [row for row in ROWS if row != "scratch"]
    scores = Scores(arguments.out)
    for name in arguments.sets:
        ground = Ground.of(name)
        for row in rows:
            cells = [cell for cell in ground.cells(arguments.draws) if cell[0] in arguments.labels]
            fill(scores, row, ground, arguments.backbone, cells)
    key = find(arguments.backbone).card.key
    if "bundled" in rows and key not in scores.facts.get("cost", {}):
        scores.note("cost", {key: cost(find(arguments.backbone), find(TEACHER))})
    show(scores, arguments.backbone, arguments.sets, arguments.markdown)


class Scores:
    """Hits by row, set and cell in one JSON file, written after every cell that was slow to get."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def hits(self, row: str, ground: str) -> dict[str, Any]:
        """Cell -> "0110...": which test items were right; "key": of the ground and the row's weights."""
        return self.facts.get("hits", {}).get(row, {}).get(ground, {})

    def put(self, row: str, ground: str, cells: dict[str, Any]) -> None:
        """Keep them."""
        self._merge({"hits": {row: {ground: cells}}})

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Keep something else."""
        self._merge({name: facts})

    def _merge(self, new: dict[str, Any]) -> None:
        """Another process may fill other rows of the same file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.facts = _merged(json.loads(self.path.read_text()) if self.path.exists() else {}, new)
            write_file(self.path, json.dumps(self.facts, indent=1).encode())


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)) or old.get("key", 0) != new.get("key", old.get("key", 0)):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def fill(scores: Scores, row: str, ground: Ground, backbone: str, cells: list[tuple[int, int]]) -> None:
    """Compute what is missing of one row on one set."""
    name, key = row, ground.key
    if row == "bundled":
        name = f"bundled {find(backbone).card.key}"
    elif row in ("untrained", "scratch"):  # they depend on the architecture alone
        facts = _facts(backbone)
        key = digest([key, *(facts.get(fact) for fact in ("architecture", "grids", "input_size"))])
    known = scores.hits(name, ground.name)
    cells = [c for c in cells if known.get("key") != key or _cell(*c) not in known]
    if not cells:
        return
    began = time.perf_counter()
    answer = ANSWERS[row](ground, backbone)
    y = ground.dataset.targets()
    for cell in cells:
        rows = ground.labelled(*cell)
        right = answer(rows, cell[1]) == y[ground.test]
        scores.put(name, ground.name, {"key": key, _cell(*cell): "".join("01"[int(r)] for r in right)})
        print(f"{ground.name:21}{name:26}{_cell(*cell):8}{right.mean():7.1%}{time.perf_counter() - began:7.0f} s")


def _cell(per_class: int, draw: int) -> str:
    return f"{per_class or 'all'}/{draw}"


def of_backbone(ground: Ground, spec: str, methods: tuple[str, ...] = ("auto",)) -> Any:
    """A probe on frozen features."""
    features = extract(ground.dataset, find(spec), open_cache(), engine="onnxruntime")
    return of_features(ground, features.x, features.rows, methods)


def of_features(ground: Ground, x: NDArray[Any], rows: NDArray[Any], methods: tuple[str, ...]) -> Any:
    """Solve on the labelled rows, answer for the test rows."""
    place = np.full(len(ground.dataset), -1)
    place[rows] = np.arange(len(rows))
    dataset, together, keys = ground.dataset, keep_together(ground.dataset), item_keys(ground.dataset)

    def answer(labelled: NDArray[np.int64], __: int) -> NDArray[np.intp]:
        y = dataset.targets()[labelled]
        fold = folds(y, together[labelled], 5, 0, keys[labelled])
        probe, _ = choose(np.ascontiguousarray(x[place[labelled]]), y, fold, len(dataset.labels), methods)
        return logits(probe.head, x[place[ground.test]]).argmax(1)

    return answer


def of_untrained(ground: Ground, spec: str) -> Any:
    """The backbone's own architecture and grids with weights that were only drawn."""

    def answer(labelled: NDArray[np.int64], draw: int) -> NDArray[np.intp]:
        with tempfile.TemporaryDirectory() as folder:
            _randomise(Path(folder), spec, draw)
            return of_backbone(ground, f"local:{folder}")(labelled, draw)

    return answer


def _randomise(folder: Path, spec: str, seed: int) -> None:
    """A backbone folder like that of `spec`, drawn anew."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    facts = {name: fact for name, fact in _facts(spec).items() if name not in ("onnx", "sha256", "files")}
    save_file(timm.create_model(_network(facts), num_classes=0).state_dict(), folder / facts["file"])
    (folder / "card.json").write_text(json.dumps(facts))


def _facts(spec: str) -> dict[str, Any]:
    folder = Path(spec.removeprefix("local:")) if spec.startswith("local:") else FOLDERS / DEFAULT
    return json.loads((folder / "card.json").read_text())


def _network(facts: dict[str, Any]) -> str:
    return parse(facts["architecture"], "card.json").name


def squares(ground: Ground) -> NDArray[np.uint8]:
    """All items as (N, 128, 128, 3)."""
    contents = distinct(ground.dataset)
    loader = Loader(ground.dataset, contents, SQUARE)
    every = loader.load(list(range(len(contents.keys))), len(contents.keys))
    return every.crops[contents.index]


def of_hog(ground: Ground, _: str) -> Any:
    """HOG of the item at 128 px."""
    from _hog import hog

    x = np.stack([hog(image) for image in squares(ground)]).astype(np.float32)
    return of_features(ground, x, np.arange(len(x)), ("logistic",))


def of_scratch(ground: Ground, spec: str) -> Any:
    """The network trained on nothing but the labelled items."""
    from _scratch import train

    images, targets = squares(ground), ground.dataset.targets()
    name = _network(_facts(spec))

    def answer(labelled: NDArray[np.int64], draw: int) -> NDArray[np.intp]:
        return train(name, images[labelled], targets[labelled], len(ground.dataset.labels), images[ground.test], draw)

    return answer


ANSWERS = {
    "bundled": of_backbone,
    "untrained": of_untrained,
    "scratch": of_scratch,
    "pixels": lambda ground, _: of_backbone(ground, "bundled:pixels", ("logistic",)),
    "hog": of_hog,
    "mobilenetv2": lambda ground, _: of_backbone(ground, TEACHER),
}


def spread(values: NDArray[Any]) -> tuple[float, float, float]:
    """Mean of values (S draws, N items), its standard error and degrees of freedom, draws and items both random.

        V = (MS_draws + MS_items - MS_rest) / (S N)     MS_draws = N var(means of draws), MS_items = S var(of items)

    The variance of a mean in a crossed random effects design (Searle, Casella and McCulloch, Variance Components,
    1992), never taken below that of one of its parts; degrees of freedom by Satterthwaite (1946).
    """
    S, N = values.shape
    mean, by_draw, by_item = values.mean(), values.mean(1), values.mean(0)
    items = S * by_item.var(ddof=1)
    if S == 1:
        return float(mean), float(np.sqrt(items / N)), N - 1.0
    draws = N * by_draw.var(ddof=1)
    rest = ((values - by_draw[:, None] - by_item + mean) ** 2).sum() / ((S - 1) * (N - 1))
    parts = np.array([draws, items, -rest])
    total = max(parts.sum(), draws, items)
    freedom = total**2 / max((parts**2 / [S - 1, N - 1, (S - 1) * (N - 1)]).sum(), 1e-300)
    return float(mean), float(np.sqrt(total / (S * N))), float(min(max(freedom, S - 1), N - 1))


def accuracy(hits: NDArray[Any]) -> tuple[float, float, float]:
    """Mean and 95 % interval: Wilson's with as many items as would vary as much."""
    mean, error, freedom = spread(hits)
    n = hits.shape[1] if not 0 < mean < 1 or len(hits) == 1 else mean * (1 - mean) / error**2
    n *= (1.96 / student(freedom)) ** 2
    low, high = wilson(mean * n, n)
    return mean, float(low), float(high)


def paired(ours: NDArray[Any], other: NDArray[Any]) -> tuple[float, float, float, float]:
    """Difference of accuracy, 95 % interval, two-sided p-value."""
    from scipy.stats import t

    if len(ours) == 1:
        found = compare_hits(other[0], ours[0])
        return found.difference, found.low, found.high, found.p_value
    draws = min(len(ours), len(other))
    mean, error, freedom = spread(ours[:draws].astype(float) - other[:draws])
    half = student(freedom) * error
    p = 2 * float(t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return mean, mean - half, mean + half, p


def cost(small: Backbone, large: Backbone, rounds: int = 25) -> dict[str, float]:
    """How many times less one image costs in onnxruntime, one thread; rounds alternate, medians are compared."""
    ratios = {}
    for batch in (1, 16):
        runs, seconds = [], np.zeros((2, rounds))
        for backbone in (small, large):
            side = backbone.card.preprocess.crop_px
            feed = np.random.default_rng(0).standard_normal((batch, 3, side, side), np.float32)
            running: Any = session(backbone.graph(), threads=1)
            runs.append((running, {running.get_inputs()[0].name: feed}))
        for i in range(rounds):
            for j, (running, feed) in enumerate(runs):
                began = time.process_time()
                running.run(None, feed)
                seconds[j, i] = time.process_time() - began
        ratios[f"batch {batch}"] = float(np.median(seconds[1]) / np.median(seconds[0]))
    return ratios


def show(scores: Scores, backbone: str, sets: list[str], markdown: bool) -> None:
    """The table, the paired tests at 10 labels, the share of mobilenetv2's accuracy, the cost."""
    card = find(backbone).card
    ours = f"bundled {card.key}"
    rows = [ours, *(r for r in ROWS[1:]), *(r for r in scores.facts["hits"] if r.startswith("bundled ") and r != ours)]
    found = {(r, g, k): h for r in rows for g in sets for k in LABELS if (h := _hits(scores.hits(r, g), k)) is not None}
    rows = [r for r in rows if any((r, g, k) in found for g in sets for k in LABELS)]
    places = [
        (g, k) for g in sets for k in sorted(LABELS, key=lambda k: k or 1e9) if any((r, g, k) in found for r in rows)
    ]
    lines = [["accuracy, %", "labels", *(("bundled" if r == ours else r)[:18] for r in rows)]]
    for g, k in places:
        cells = [_percent(*accuracy(found[r, g, k])) if (r, g, k) in found else "" for r in rows]
        lines.append([g, str(k or "all"), *cells])
    _print(lines, markdown)
    lines = [["bundled minus", "labels", *rows[1:]]]
    for g in sets:
        k = 10 if (ours, g, 10) in found else 5
        pairs = [(found.get((ours, g, k)), found.get((r, g, k))) for r in rows[1:]]
        lines.append([g, str(k), *("" if a is None or b is None else _points(*paired(a, b)) for a, b in pairs)])
    _print(lines, markdown)
    for k in sorted(LABELS, key=lambda k: k or 1e9):
        places = [(g, k) for g in sets if (ours, g, k) in found and ("mobilenetv2", g, k) in found]
        if places:
            a, b = (np.mean([found[row, *place].mean() for place in places]) for row in (ours, "mobilenetv2"))
            said = f"{k or 'all'} labels a class, mean of {len(places)} sets"
            print(f"{said}: {a:.1%} of mobilenetv2's {b:.1%}, ratio {a / b:.3f}")
    for batch, ratio in scores.facts.get("cost", {}).get(card.key, {}).items():
        print(f"{batch}: one image costs {ratio:.1f} times less than with mobilenetv2_100 at 224 px")


def _hits(cells: dict[str, str], per_class: int) -> NDArray[np.bool_] | None:
    """(S draws, N test items)."""
    draws = [cells[_cell(per_class, d)] for d in range(len(cells)) if _cell(per_class, d) in cells]
    return np.array([[c == "1" for c in draw] for draw in draws]) if draws else None


def _percent(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def _points(mean: float, low: float, high: float, p: float) -> str:
    return f"{100 * mean:+.1f} [{100 * low:.1f}, {100 * high:.1f}] {'p<0.001' if p < 0.001 else f'p={p:.3f}'}"


def _print(lines: list[list[str]], markdown: bool) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    if markdown:
        lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
    print()


if __name__ == "__main__":
    main()
