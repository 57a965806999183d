"""Extraction against a bare loop of the same backbone over pixels that are ready in memory: at most 1.15 x (figure a).

    python benchmarks/extraction.py [--data FOLDER] [--backbone SPEC] [--limit N] [--rounds 5] [--torch]

Bare loop: onnxruntime, the same batch size and number of threads. Its images are decoded and in memory ("decoded": the
loop resizes and normalises them), or even resized, cropped and normalised ("ready"). Topwork: `extract` with an empty
cache, from the dataset's files to features in the store, with opening the graph, hashing, decoding, resizing and
checksums. All run in every round, in turn; the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _shared import WEIGHTS, dataset


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Extraction against a bare loop of the same backbone.")
    parser.add_argument("--data", default=None, help="a folder of images; default: flowers5_small")
    parser.add_argument("--backbone", default=f"local:{WEIGHTS}")
    parser.add_argument("--limit", type=int, default=None, help="images to use")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="also torch eager, and what measuring both engines costs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOPWORK_CACHE"] = f"{folder}/cache"
        data = options.data or str(dataset("flowers5_small"))
        prepare = "import sys; from topwork.backbones import find; find(sys.argv[1]).graph()"
        subprocess.run([sys.executable, "-c", prepare, options.backbone], check=True)  # exports where that needs torch
        compare(data, options)


def compare(data: str, options: argparse.Namespace) -> None:
    """Bare loops and extraction in turn."""
    from topwork import settings
    from topwork.backbones import find
    from topwork.features.extract import choose_batch, extract
    from topwork.nn.session import session
    from topwork.sources import read
    from topwork.store.cache import open_cache
    from topwork.verbs import inspect

    photos = read(data)
    photos = inspect(photos.take(range(min(len(photos), options.limit or len(photos))))).dataset
    backbone = find(options.backbone)
    threads, batch = settings.threads().value, choose_batch(backbone.card.preprocess, "cpu").value
    images, decoded, stages = preprocessed(photos, backbone)
    inside, across = session(backbone.graph(), threads), session(backbone.graph(), 1)

    def topwork() -> None:
        open_cache().clear()
        extract(photos, backbone, open_cache(), threads=threads)

    loops: dict[str, Callable[[], object]] = {
        "decoded": lambda: over_decoded(across, backbone, decoded, batch, threads),
        "bare": lambda: [run(inside, images[i : i + batch]) for i in range(0, len(images), batch)],
        "spread": lambda: spread(across, images, batch, threads),
        "topwork": topwork,
    }
    for warm in (inside, across):
        run(warm, images[:batch])
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            began = time.perf_counter()
            loop()
            seconds[name].append(time.perf_counter() - began)
    size, n = images.shape[-1], len(images)
    result = extract(photos, backbone, open_cache(), threads=threads)
    print(f"{n:,} images of {size} px, batch {batch}, {threads} threads, {options.backbone}, {result.engine}")
    for name, text in {
        "decoded": "bare loop over decoded images",
        "bare": f"ready images, {threads} threads in every layer",
        "spread": f"ready images, {threads} batches side by side",
        "topwork": "extract() with an empty cache",
    }.items():
        middle = statistics.median(seconds[name])
        print(f"  {text:<42}{middle:8.2f} s {n / middle:8.1f} images/s")
    print(f"ratio to the loop over decoded images   {ratio(seconds, 'decoded')}   (promise: at most 1.15)")
    print(f"ratio to the loop over ready images     {ratio(seconds, 'bare')}")
    print(f"the same, batches side by side          {ratio(seconds, 'spread')}")
    stages["forward"] = forward_ms(across, images[:batch])
    stages["write"] = write_ms(result.x, n / statistics.median(seconds["topwork"]))
    print("processor ms per image, one thread: " + ", ".join(f"{name} {ms:.2f}" for name, ms in stages.items()))
    again = statistics.median(extract(photos, backbone, open_cache()).seconds for _ in range(3))
    print(f"everything known: {again:.3f} s")
    if options.torch:
        with_torch(photos, backbone, images, batch)


def ratio(seconds: dict[str, list[float]], against: str) -> str:
    """Median and range of the paired ratios."""
    ratios = [ours / theirs for ours, theirs in zip(seconds["topwork"], seconds[against], strict=True)]
    return f"{statistics.median(ratios):.3f}  [{min(ratios):.3f}, {max(ratios):.3f}]"


def preprocessed(dataset: Any, backbone: Any) -> tuple[np.ndarray, list[np.ndarray], dict[str, float]]:
    """All images as the backbone takes them (N, 3, S, S), all images decoded, and the milliseconds of every step."""
    from topwork.features.contents import content_key
    from topwork.modalities.image import decode
    from topwork.modalities.image_graph import geometry, normalise
    from topwork.nn.session import session

    p = backbone.card.preprocess
    crop, scale = (session(part(p).SerializeToString(), 1) for part in (geometry, normalise))
    images = np.zeros((len(dataset), 3, p.crop_px, p.crop_px), np.float32)
    decoded = []
    spent: dict[str, float] = dict.fromkeys(("read and hash", "decode", "geometry", "normalise"), 0.0)
    for i, path in enumerate(dataset.paths()):
        marks = [time.thread_time()]
        data = Path(path).read_bytes()
        content_key(data)
        marks.append(time.thread_time())
        pixels = decode(data, min_px=p.decode_px)
        decoded.append(pixels)
        marks.append(time.thread_time())
        crops = run(crop, pixels[None])
        marks.append(time.thread_time())
        normalised = run(scale, crops)[0]
        marks.append(time.thread_time())
        images[i] = normalised
        for name, took in zip(spent, np.diff(marks), strict=True):
            spent[name] += 1000 * took / len(dataset)
    return images, decoded, spent


def run(session: Any, x: np.ndarray) -> np.ndarray:
    """The only output for the only input."""
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def spread(session: Any, images: np.ndarray, batch: int, threads: int) -> None:
    """Batches side by side, one thread each."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: run(session, images[i : i + batch]), range(0, len(images), batch)))


def over_decoded(session: Any, backbone: Any, decoded: list[np.ndarray], batch: int, threads: int) -> None:
    """Resize, normalise and run images that are decoded, batches side by side, one thread each."""
    from topwork.modalities.image_graph import geometry, normalise
    from topwork.nn.session import session as open_session

    crop, scale = (
        open_session(part(backbone.card.preprocess).SerializeToString(), 1) for part in (geometry, normalise)
    )

    def work(start: int) -> None:
        run(session, run(scale, np.concatenate([run(crop, one[None]) for one in decoded[start : start + batch]])))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(0, len(decoded), batch)))


def forward_ms(session: Any, images: np.ndarray) -> float:
    """Processor time of one image in a forward pass on one thread."""
    began = time.thread_time()
    for _ in range(5):
        run(session, images)
    return 1000 * (time.thread_time() - began) / 5 / len(images)


def write_ms(x: np.ndarray, images_per_second: float) -> float:
    """Wall time of one image on its way into an empty store, in transactions of a quarter of a second's work."""
    from topwork.store.cache import Cache
    from topwork.types import Choice

    step = max(1, int(images_per_second / 4))
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder), Choice("cache limit", 10**9, "")) as cache:
        rows = [(b"%d" % i, row.tobytes()) for i, row in enumerate(x[:1000])]
        began = time.perf_counter()
        for i in range(0, len(rows), step):
            cache.put_many("features", rows[i : i + step])
        return 1000 * (time.perf_counter() - began) / len(rows)


def with_torch(dataset: Any, backbone: Any, images: np.ndarray, batch: int) -> None:
    """Torch eager over the same images, and what it costs to measure both engines first."""
    import torch

    from topwork.features.extract import extract
    from topwork.store.cache import open_cache

    module, few = backbone.module().eval(), images[: 20 * batch]
    with torch.inference_mode():
        module(torch.from_numpy(few[:batch]))
        began = time.perf_counter()
        for i in range(0, len(few), batch):
            module(torch.from_numpy(few[i : i + batch]))
    print(f"torch eager: {len(few) / (time.perf_counter() - began):.1f} images/s")
    open_cache().clear()
    measured = extract(dataset, backbone, open_cache())
    open_cache().clear("features")
    known = extract(dataset, backbone, open_cache())
    print(f"both engines measured first: {measured.seconds:.2f} s against {known.seconds:.2f}; {measured.choices[0]}")


if __name__ == "__main__":
    main()
