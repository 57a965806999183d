"""The bundled text backbone against TF-IDF and against the MiniLM that it was distilled from; cost of each.

    python benchmarks/static_text.py [--teacher FOLDER] [--sets sst2 ...] [--write-card]

Three ways to read English text, the same items for all: the bundled static embedding and MiniLM (mean of its last
states), both under Topwork's logistic probe; words and pairs of words (TF-IDF) under scikit-learn's LogisticRegression
with C from 1, 10, 100, by 3-fold cross-validation. sst2, trec (6 classes) and banking77 keep their test parts; MR, CR
and SUBJ have none and are cut 80/20 (stratified, seed 0). "all": accuracy with its 95 % Wilson interval on the test
part. "10": 10 labels a class, mean over 5 draws, 95 % t interval over the draws. Then texts a second of
the clock and of the processor, first and second time, as medians of rounds that alternate; then, where `tokenizers` is
installed, our pieces against its pieces.

--teacher: the folder of all-MiniLM-L6-v2; without it its row is left out. --write-card puts the scores into card.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from _shared import dataset
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

from topwork import backbones
from topwork.adaptation.probe.logistic import Logistic
from topwork.backbones.sources.bundled import FOLDERS
from topwork.backbones.static_text import open_static
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.intervals import wilson
from topwork.types import digest

SPEC = "bundled:text_small"
SETS = ("sst2", "trec", "banking77", "MR", "CR", "SUBJ")
DRAWS, FEW, ROUNDS = 5, 10, 5
Labels = Any  # (N,) int
Predict = Callable[[Any, Labels, Any], Labels]


@dataclass(frozen=True, eq=False)
class Task:
    """Texts, their classes and which of them are for testing."""

    texts: list[str]
    labels: Labels
    is_test: Any  # (N,) bool


def read(name: str) -> Task:
    """One of the sets."""
    if name in ("MR", "CR", "SUBJ"):
        files = sorted(path for path in (dataset("sentpol") / name).iterdir() if path.is_file())
        rows = [(line, file.name) for file in files for line in file.read_text("utf-8").split("\n") if line.strip()]
        texts, labels = [text for text, _ in rows], numbered([label for _, label in rows])
        is_test = np.zeros(len(rows), bool)
        is_test[train_test_split(np.arange(len(rows)), test_size=0.2, stratify=labels, random_state=0)[1]] = True
        return Task(texts, labels, is_test)
    folder = dataset(name)
    if name == "sst2":
        parts = [_lines(folder / f"{part}.tsv") for part in ("train", "test")]
        rows = [[tuple(line.rsplit("\t", 1)) for line in part] for part in parts]
    elif name == "trec":
        parts = [_lines(folder / f"{part}.label", "latin-1") for part in ("train_5500", "TREC_10")]
        rows = [[(line.split(" ", 1)[1], line.split(":")[0]) for line in part] for part in parts]
    else:
        rows = []
        for part in ("train", "test"):
            with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
                rows.append([(text, label) for text, label in csv.reader(file)][1:])
    both = [*rows[0], *rows[1]]
    is_test = np.arange(len(both)) >= len(rows[0])
    return Task([text for text, _ in both], numbered([label for _, label in both]), is_test)


def _lines(path: Path, encoding: str = "utf-8") -> list[str]:
    return [line for line in path.read_text(encoding).split("\n") if line.strip()]


def numbered(names: Sequence[str]) -> Labels:
    """Class names to 0 .. C - 1."""
    return np.unique(np.array(names), return_inverse=True)[1]


def probe(x: np.ndarray, y: Labels, x_test: np.ndarray) -> Labels:
    """Topwork's logistic probe."""
    folds = make_folds(y, None, 5, seed=0)
    head = Logistic().solve(x, y, folds, int(y.max()) + 1).head
    return (x_test @ head.arrays["weight"] + head.arrays["bias"]).argmax(axis=1)


def words(texts: list[str], y: Labels, test: list[str]) -> Labels:
    """TF-IDF of words and pairs of words, logistic regression."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1, token_pattern=r"(?u)\b\w+\b|[?!]")
    x, grid = vectors.fit_transform(texts), {"C": [1.0, 10.0, 100.0]}
    search = GridSearchCV(LogisticRegression(max_iter=300, tol=1e-3), grid, cv=3).fit(x, y)
    return search.predict(vectors.transform(test))


def draws(task: Task) -> Iterator[Any]:
    """Rows of 10 training items of each class, five times."""
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(np.flatnonzero(~task.is_test))
        yield np.concatenate([order[task.labels[order] == c][:FEW] for c in range(task.labels.max() + 1)])


def measure(task: Task, x: Any, predict: Predict) -> dict[str, list[float]]:
    """{"all": [accuracy, low, high], "10": [mean, low, high]} in percent; x is indexed like the task's items."""
    y, test, train = task.labels, np.flatnonzero(task.is_test), np.flatnonzero(~task.is_test)

    def right(rows: Any) -> Any:
        return predict(x[rows], y[rows], x[test]) == y[test]

    hits = right(train)
    low, high = wilson(int(hits.sum()), len(hits))
    few = [float(right(rows).mean()) for rows in draws(task)]
    half = float(stats.t.ppf(0.975, DRAWS - 1) * np.std(few, ddof=1) / np.sqrt(DRAWS))
    found = {"all": (hits.mean(), low, high), "10": (np.mean(few), np.mean(few) - half, np.mean(few) + half)}
    return {key: [round(100 * float(value), 1) for value in values] for key, values in found.items()}


def load_teacher(folder: Path) -> Callable[[Sequence[str]], np.ndarray]:
    """MiniLM as the recipe runs it: at most 256 pieces of a text."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
    from bundled_text import Teacher, framed  # type: ignore[import-not-found]

    from topwork.modalities.wordpiece import WordPiece

    teacher = Teacher(folder)
    wordpiece = WordPiece.of((folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n"))

    def embed(texts: Sequence[str]) -> np.ndarray:
        return teacher.embed([[*one[:255], one[-1]] for one in framed(wordpiece, texts)])

    return embed


def kept(name: str, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """The teacher's embeddings of a set, from the temporary folder where they are there."""
    file = Path(tempfile.gettempdir()) / "topwork-benchmarks" / f"minilm-{name}-{digest(list(texts))}.npy"
    if not file.exists():
        np.save(file.with_suffix(".part.npy"), embed(texts))
        file.with_suffix(".part.npy").replace(file)
    return np.load(file)


Clock = Callable[[], float]


def speed(texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray] | None, clock: Clock) -> dict[str, float]:
    """Texts a second: opened and read for the first time, the second time, and the teacher's; medians of rounds."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "minilm": []}
    open_static(FOLDERS / "text_small", SPEC).encode(texts[:10])  # imports
    for _ in range(ROUNDS):
        begun = clock()
        backbone = open_static(FOLDERS / "text_small", SPEC)
        backbone.encode(texts)
        seconds["cold"].append((clock() - begun) / len(texts))
        begun = clock()
        backbone.encode(texts)
        seconds["warm"].append((clock() - begun) / len(texts))
        if embed:
            begun = clock()
            embed(texts[:200])
            seconds["minilm"].append((clock() - begun) / 200)
    return {name: float(1 / np.median(some)) for name, some in seconds.items() if some}


def agreement(texts: Sequence[str]) -> str:
    """How many texts are cut as the `tokenizers` package cuts them, under the same vocabulary."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers  # type: ignore[import-not-found]
    except ImportError:
        return "pieces not compared: `tokenizers` is not installed"
    wordpiece = open_static(FOLDERS / "text_small", SPEC).wordpiece
    reference = Tokenizer(models.WordPiece(dict(wordpiece.vocabulary), unk_token="[UNK]"))
    reference.normalizer = normalizers.BertNormalizer()
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    numbers, ends = wordpiece.encode(texts)
    ours = [numbers[a:b].tolist() for a, b in pairwise(ends)]
    theirs = reference.encode_batch(list(texts), add_special_tokens=False)
    same = sum(a == b.ids for a, b in zip(ours, theirs, strict=True))
    unknown = float(np.mean(numbers == wordpiece.vocabulary["[UNK]"]))
    return f"{same:,} of {len(texts):,} texts cut as `tokenizers` cuts them; {100 * unknown:.3f} % of pieces [UNK]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--write-card", action="store_true")
    args = parser.parse_args()
    backbone, embed = backbones.find(SPEC, "text"), load_teacher(args.teacher) if args.teacher else None
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    everything: list[str] = []
    for name in args.sets:
        task = read(name)
        everything.extend(task.texts)
        rows: dict[str, tuple[Any, Predict]] = {
            "static": (backbone.encode(task.texts), probe),  # type: ignore[attr-defined]
            "tf-idf": (np.array(task.texts, object), lambda a, y, b: words(a.tolist(), y, b.tolist())),
        }
        if embed:
            rows["minilm"] = (kept(name, task.texts, embed), probe)
        for row, (x, predict) in rows.items():
            begun = time.monotonic()
            scores.setdefault(name, {})[row] = found = measure(task, x, predict)
            cells = "   ".join(f"{key:>3} {a:5.1f} [{b:5.1f}, {c:5.1f}]" for key, (a, b, c) in found.items())
            print(f"{name:10} {row:7} {cells}   {time.monotonic() - begun:.0f} s", flush=True)
    for row in next(iter(scores.values())):
        means = [np.mean([scores[name][row][key][0] for name in scores]) for key in ("all", "10")]
        print(f"{'mean':10} {row:7} all {means[0]:5.1f}   10 {means[1]:5.1f}")
    for unit, clock in (("second", time.perf_counter), ("processor second", time.process_time)):
        rates = speed(read("sst2").texts, embed, clock)
        print("  ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()), f"texts a {unit}")
        if embed:
            ratios = [f"{kind} {rates[kind] / rates['minilm']:,.0f}" for kind in ("warm", "cold")]
            print(f"times as fast as MiniLM: {', '.join(ratios)}")
    print(agreement(everything))
    if args.write_card:
        card = FOLDERS / "text_small" / "card.json"
        facts = json.loads(card.read_text(encoding="utf-8"))
        what = "accuracy in percent [value, low, high], all labels and 10 a class: benchmarks/static_text.py"
        facts["scores"] = {**facts.get("scores", {}), "what": what, **scores}  # sets that were not run stay
        card.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
