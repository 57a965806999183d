"""Cold start: `topwork --help` at most 250 ms, `topwork predict` of one image at most 1.0 s, without torch.

    python benchmarks/predict.py [MODEL IMAGE]

Every number is a whole process, from start to exit; without MODEL, one is fitted on 60 drawn pictures with the bundled
backbone. After it, what a predicting process spends its time on, measured inside one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5
LIMITS = {"--help": 0.25, "predict": 1.0}
HEAVY = ("torch", "timm", "sklearn", "pyarrow", "onnx", "scipy")
INSIDE = """
import sys, time
began = time.perf_counter()
def lap(what):
    global began
    print(f"{what:>32} {(time.perf_counter() - began) * 1000:6.0f} ms")
    began = time.perf_counter()
import numpy; lap("import numpy")
import onnxruntime; lap("import onnxruntime")
import PIL.Image; lap("import PIL")
import topwork; topwork.load; lap("import topwork")
model = topwork.load(sys.argv[1]); lap("read model.json, checksums")
_ = model.session; lap("open the graph")
model.predict(sys.argv[2]); lap("first image, with the decoder")
model.predict(sys.argv[2]); lap("second image")
print("loaded by mistake:", ", ".join(name for name in HEAVY if name in sys.modules) or "nothing")
"""


def seconds(*words: str) -> float:
    """Wall time of one process, the first one (cold disk cache) left out."""
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-m", "topwork", *words], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def fitted(folder: Path) -> tuple[str, str]:
    """A small model and an image, made on the spot."""
    import numpy as np
    from PIL import Image

    import topwork

    draw = np.random.default_rng(0)
    for label, colour in {"red": (200, 60, 50), "green": (60, 170, 70)}.items():
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(30):
            picture = draw.normal(colour, 50, (240, 320, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "photos" / label / f"{i}.jpg")
    os.environ["TOPWORK_CACHE"] = str(folder / "cache")
    topwork.fit(str(folder / "photos"), out=folder / "model")
    return str(folder / "model"), str(folder / "photos" / "red" / "0.jpg")


def main() -> None:
    """Print the numbers beside their limits."""
    with tempfile.TemporaryDirectory() as temporary:
        model, image = sys.argv[1:3] if len(sys.argv) > 2 else fitted(Path(temporary))
        found = {"--help": seconds("--help"), "predict": seconds("predict", model, image)}
        for what, took in found.items():
            good = "good" if took <= LIMITS[what] else "TOO SLOW"
            print(
                f"topwork {what:<8} {took:.3f} s   limit {LIMITS[what]:.2f} s   {good}   (median of {RUNS} processes)"
            )
        print("\ninside one process:", flush=True)
        subprocess.run([sys.executable, "-P", "-c", f"HEAVY = {HEAVY}\n{INSIDE}", model, image], check=True)
    if any(took > LIMITS[what] for what, took in found.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
