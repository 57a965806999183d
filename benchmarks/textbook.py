"""Figures b and c: `topwork fit` against the textbook recipe, whole processes, same images, same run.

The textbook recipe: a frozen backbone, Dense 256 + softmax, Adam, 10 epochs, the backbone run again in every epoch
(torch, the same weights, the same preprocessing, batches of 32, decoding in loader workers). Both start with nothing
cached and are timed from start to exit: imports, export, report and proofs included. Then the same fit runs again.

    python benchmarks/textbook.py [FOLDER_OF_CLASSES WEIGHTS_FOLDER] [--epochs 10] [--per-class 0]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _shared import WEIGHTS, dataset


def split_folder(source: Path, target: Path, per_class: int, seed: int = 0) -> tuple[int, int]:
    """Link every fifth image of a class into test, the rest into train."""
    counts = {"train": 0, "test": 0}
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        order = np.random.default_rng(seed).permutation(len(files))[: per_class or None]
        for rank, i in enumerate(order):
            split = "test" if rank % 5 == 0 else "train"
            link = target / split / folder.name / files[i].name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(files[i])
            counts[split] += 1
    return counts["train"], counts["test"]


def recipe(data: Path, weights: Path, epochs: int) -> None:
    """The textbook recipe as a process of its own; prints its test accuracy."""
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torchvision import transforms

    torch.manual_seed(0)
    card = json.loads((weights / "card.json").read_text())
    backbone = timm.create_model(card["name"], pretrained=False, pad_type="same")
    backbone.load_state_dict(load_file(weights / card["file"]))
    backbone.reset_classifier(0)
    backbone.eval().requires_grad_(False)
    classes = sorted(p.name for p in (data / "train").iterdir())
    look = transforms.Compose(
        [
            transforms.Resize(card["resize_short_side"]),
            transforms.CenterCrop(card["input_size"][1]),
            transforms.ToTensor(),
            transforms.Normalize(card["mean"], card["std"]),
        ]
    )

    class Photos(torch.utils.data.Dataset):
        def __init__(self, split: str) -> None:
            self.files = [(f, c) for c, name in enumerate(classes) for f in sorted((data / split / name).iterdir())]

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, i: int) -> tuple:
            path, label = self.files[i]
            return look(Image.open(path).convert("RGB")), label

    def batches(split: str, shuffle: bool) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(Photos(split), 32, shuffle=shuffle, num_workers=2)

    head = torch.nn.Sequential(
        torch.nn.Linear(backbone.num_features, 256), torch.nn.ReLU(), torch.nn.Linear(256, len(classes))
    )
    optimizer = torch.optim.Adam(head.parameters())
    for epoch in range(epochs):
        for x, y in batches("train", shuffle=True):
            with torch.no_grad():
                z = backbone(x)
            loss = torch.nn.functional.cross_entropy(head(z), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    right, total = 0, 0
    with torch.no_grad():
        for x, y in batches("test", shuffle=False):
            right += int((head(backbone(x)).argmax(1) == y).sum())
            total += len(y)
    print(json.dumps({"right": right, "n": total}))


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Wall seconds of a process and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def main() -> None:
    """Run all three processes and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=None)
    parser.add_argument("weights", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-class", type=int, default=0, help="use only so many images of each class")
    parser.add_argument("--recipe", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.recipe:
        recipe(arguments.recipe, arguments.weights, arguments.epochs)
        return
    photos = arguments.data or dataset("flowers5_small") / "flowers"
    from topwork.evaluation.intervals import wilson

    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        n_train, n_test = split_folder(photos.resolve(), base / "photos", arguments.per_class)
        print(f"{n_train} training and {n_test} test images, {arguments.weights.name}, {os.cpu_count()} cores")
        out = base / "model"
        fit = [sys.executable, "-m", "topwork", "fit", str(base / "photos"), "--backbone", f"local:{arguments.weights}"]
        fit += ["--out", str(out), "--quiet"]
        first, _ = timed(fit, TOPWORK_CACHE=str(base / "cache"))
        report = json.loads((out / "report.json").read_text())
        onnx = (out / "model.onnx").read_bytes()
        second, _ = timed(fit, TOPWORK_CACHE=str(base / "cache"))
        same = onnx == (out / "model.onnx").read_bytes()
        this = [sys.executable, __file__, str(photos), str(arguments.weights)]
        textbook, printed = timed([*this, "--epochs", str(arguments.epochs), "--recipe", str(base / "photos")])
    peer = json.loads(printed.splitlines()[-1])
    low, high = wilson(peer["right"], peer["n"])
    print(f"topwork fit, nothing cached   {first:8.1f} s   test accuracy {report_accuracy(report)}")
    print(f"textbook, {arguments.epochs:2} epochs          {textbook:8.1f} s   test accuracy", end=" ")
    print(f"{peer['right'] / peer['n']:.3f} [{low:.3f}, {high:.3f}]")
    print(f"topwork fit again             {second:8.1f} s   same model.onnx bytes: {same}")
    print(f"ratio textbook / topwork      {textbook / first:8.2f}     (figure b: at least 6)")
    print("where topwork's seconds go:", {name: round(value, 1) for name, value in report["seconds"].items()})


def report_accuracy(report: dict) -> str:
    """The accuracy of a report with its interval."""
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**report["metrics"]["accuracy"])


if __name__ == "__main__":
    main()
