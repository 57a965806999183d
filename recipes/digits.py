"""Handwritten digits from ten examples each: the main job on real images that need no download.

scikit-learn carries 1,797 digits of 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998). They are written out as a folder of
PNG files per class, 10 images per class to learn from and the rest to be measured on, and handed to `topwork fit`.

    python recipes/digits.py demo        (what `make demo` runs)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_photos(folder: Path, per_class: int = 10, seed: int = 0) -> None:
    """Write train/DIGIT/*.png (per_class each) and test/DIGIT/*.png (all others)."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    seen = dict.fromkeys(range(10), 0)
    for i in order:
        label = int(digits.target[i])
        split = "train" if seen[label] < per_class else "test"
        seen[label] += 1
        pixels = (digits.images[i] * 255 / 16).round().astype(np.uint8)  # 0..16 -> 0..255
        path = folder / split / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    base = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    write_photos(base / "digits")
    command = ["fit", str(base / "digits"), "--out", str(base / "model")]
    print("$ topwork", *command, flush=True)
    sys.exit(subprocess.call([sys.executable, "-m", "topwork", *command]))
