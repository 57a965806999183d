"""Test accuracy at a budget of minutes: `topwork fit --budget` against fastai's `fine_tune`, with one backbone.

fastai is the real package (2.8), installed into a venv of its own beside the benchmark's data, on the same torch. Its
default augmentation and batch size (64); N of `fine_tune(N)` is the largest that fits into the same wall time by the
time that its own epochs took in a trial, at least 1. Topwork starts with an empty cache. The same training and test
images; where the set has no test part a fifth is held out. Wall time of both is printed; reading the data and starting
Python are in both. Passed: Topwork's accuracy is at least fastai's on every set.

    python benchmarks/budget.py [--minutes 3 10] [--sets flowers5_small cats_dogs_small trashnet_small hymenoptera]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _shared import WEIGHTS, dataset
from probes import root_of

from topwork import verbs
from topwork.evaluation.intervals import wilson
from topwork.evaluation.paired import compare_hits

SETS = ("flowers5_small", "cats_dogs_small", "trashnet_small", "hymenoptera")
PEER = "fastai>=2.8,<2.9"
HERE = Path(__file__).parent


def main() -> int:
    """Print a line per set and budget; exit code 1 if fastai is ahead anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 10])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument(
        "--rows", type=Path, help="append a JSON line per run here; runs that it holds are not run again"
    )
    asked = parser.parse_args()
    python, behind = peer(), 0
    done: dict[str, tuple[np.ndarray, float, int]] = {}  # of the peer, at the budget before
    for minutes in sorted(asked.minutes):
        for name in asked.sets:
            with tempfile.TemporaryDirectory() as folder:
                table, rows = written(name, Path(folder) / "data.csv")
                ours, seconds, note = topwork(table, rows, minutes, Path(folder))
                if name not in done or done[name][1] < minutes * 60:  # else fine_tune(1) fills this budget, too
                    done[name] = fastai(python, table, rows, minutes, Path(folder))
                theirs, peer_seconds, epochs = done[name]
            found = compare_hits(theirs, ours)
            behind += found.difference < 0
            line = (
                f"{name}, {minutes:g} min: topwork {share(ours)} in {seconds:.0f} s ({note}), "
                f"fastai {share(theirs)} in {peer_seconds:.0f} s (fine_tune({epochs})); {found.over()}"
            )
            print(line, flush=True)
            if asked.rows:
                with asked.rows.open("a") as out:
                    out.write(json.dumps({"set": name, "minutes": minutes, "line": line}) + "\n")
    return int(behind > 0)


def share(right: np.ndarray) -> str:
    """Accuracy with its interval."""
    low, high = wilson(np.array([right.sum()]), np.array([len(right)]))
    return f"{right.mean():.1%} [{low[0]:.1%}, {high[0]:.1%}]"


def written(name: str, table: Path) -> tuple[Path, list[dict[str, str]]]:
    """A table of images, labels and train or test, the same for both sides."""
    found = verbs.inspect(root_of(dataset(name))).dataset
    sides = found.table["split"].to_pylist()
    if not any(side in ("test", "val") for side in sides):
        found = verbs.split(found, "stratified(test=0.2)")
        sides = found.table["split"].to_pylist()
    labels = [found.labels[t] for t in found.targets()]
    rows = [
        {"image": path, "label": label, "split": "test" if side in ("test", "val") else "train"}
        for path, label, side in zip(found.paths(), labels, sides, strict=True)
    ]
    with table.open("w", newline="") as file:
        out = csv.DictWriter(file, ["image", "label", "split"])
        out.writeheader()
        out.writerows(rows)
    return table, rows


def topwork(table: Path, rows: list[dict[str, str]], minutes: float, folder: Path) -> tuple[np.ndarray, float, str]:
    """Right or wrong of every test image, wall seconds, and the step that was kept."""
    model = folder / "model"
    words = ["fit", str(table), "--split-column", "split", "--backbone", f"local:{WEIGHTS}", "--out", str(model)]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "topwork", *words, "--budget", f"{minutes * 60:g}s", "--quiet"],
        env={**os.environ, "TOPWORK_CACHE": str(folder / "cache")}, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    opened, test = verbs.load(model), [row for row in rows if row["split"] == "test"]
    said = [answer.label for answer in opened.predict([row["image"] for row in test])]
    kept = [step["name"] for step in opened.report["steps"] if step["kept"]][-1]
    return np.array([a == row["label"] for a, row in zip(said, test, strict=True)]), seconds, kept


def peer() -> Path:
    """Python of the venv that holds fastai; torch is the one that runs here."""
    folder = Path(tempfile.gettempdir()) / "topwork-benchmarks" / "fastai-venv"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        here = next(p for p in sys.path if p.endswith("site-packages"))
        site = subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"], check=True,
                              capture_output=True, text=True).stdout.strip()  # fmt: skip
        Path(site, "shared-torch.pth").write_text(here + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", PEER], check=True)
        (folder / "installed").touch()
    return python


def fastai(
    python: Path, table: Path, rows: list[dict[str, str]], minutes: float, folder: Path
) -> tuple[np.ndarray, float, int]:
    """Right or wrong of every test image, wall seconds without the measuring of the pace, and N."""
    out = folder / "fastai.json"
    words = [python, HERE / "_fastai.py", table, WEIGHTS / "model.safetensors", str(minutes * 60), out]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(out.read_text())
    test = [row for row in rows if row["split"] == "test"]
    right = [found["answers"][row["image"]] == row["label"] for row in test]
    return np.array(right), found["seconds"], found["epochs"]


if __name__ == "__main__":
    sys.exit(main())
