"""Figure g: peak memory of `fit` on 50,000 images, at most 2 GB.

Draws 50,000 small JPEGs of ten classes into a temporary folder, runs `topwork fit` on them as a process with an empty
cache, and prints the peak of the largest process (resident memory, as the operating system counts it).

    python benchmarks/memory.py [--images 50000] [--backbone bundled]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
SIDE_PX = 64


def draw(folder: Path, number: int) -> None:
    """One picture: a tinted plane wave of its class, with noise; no two are alike."""
    label = number % CLASSES
    rng = np.random.default_rng(number)
    angle = np.pi * label / CLASSES + rng.normal(0, 0.1)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.3, 0.6) + rng.uniform(0, 6))[..., None]
    pixels = 128 + 50 * wave * rng.uniform(0.5, 1, 3) + rng.normal(0, 30, (SIDE_PX, SIDE_PX, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / str(label) / f"{number:06}.jpg", quality=80)


def main() -> None:
    """Draw, fit, print."""
    parser = argparse.ArgumentParser(description="Peak memory of fit.")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--backbone", default="bundled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        for label in range(CLASSES):
            (photos / str(label)).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda number: draw(photos, number), range(options.images)))
        command = [sys.executable, "-m", "topwork", "fit", str(photos), "--backbone", options.backbone]
        command += ["--out", f"{scratch}/model", "--budget", "none", "--quiet"]
        began = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | {"TOPWORK_CACHE": f"{scratch}/cache"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # kB -> GB
        report = json.loads((Path(scratch) / "model" / "report.json").read_text())
    kept = [step["spec"] for step in report["steps"] if step["kept"]][-1]
    print(f"{options.images:,} images of {SIDE_PX} px, kept {kept}, {seconds:.0f} s")
    print(f"peak memory {peak:.2f} GB   limit 2 GB   {'good' if peak < 2 else 'too much'}")
    print("seconds:", {name: round(value, 1) for name, value in report["seconds"].items()})


if __name__ == "__main__":
    main()
