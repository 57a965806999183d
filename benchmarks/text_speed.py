"""Speed of texts: extraction against a bare loop, the second extraction, the two quick steps on 20,000 texts.

    python benchmarks/text_speed.py [--backbone local:FOLDER_OF_MINILM] [--texts 2000] [--threads 2] [--quick 20000]

b. Tokens a second of `extract` (tokens cut, batches made, features stored) against a bare loop over batches that were
   made before: windows sorted by length, no padding but to the longest of 32, the same onnxruntime graph, as many runs
   side by side. In turn, medians of three rounds, opening the graph included in the first. Then the second extraction.
c. On --quick sentences with two labels: the n-gram step (vocabulary, features, out-of-fold regression) and the static
   probe (encode, "logistic": k-NN on so many is no quick step), in seconds of the clock and of the processor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _texts import as_dataset, read, sentences

from topwork import backbones
from topwork.adaptation import probe as probes
from topwork.data.split.kfold import folds as make_folds
from topwork.features.extract import extract
from topwork.nn.session import session
from topwork.settings import cache_limit_bytes
from topwork.store.cache import Cache

BARE = 32  # windows of a bare batch
ROUNDS = 3


def timed(work: Callable[[], Any]) -> np.ndarray:
    """Seconds of the clock and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - clock, time.process_time() - cpu])


def bare(running: Any, batches: list[tuple[Any, Any]], threads: int) -> None:
    """The plainest loop."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda batch: running.run(None, {"ids": batch[0], "weights": batch[1]}), batches))


def throughput(backbone: Any, texts: list[str], threads: int) -> None:
    """Figure b."""
    texts = list(dict.fromkeys(texts))
    tokens = backbone.reader.read(texts)
    order = np.argsort(tokens.lengths, kind="stable")
    batches = [tokens.padded(order[i : i + BARE]) for i in range(0, len(order), BARE)]
    running = session(backbone.graph(), threads=1)
    bare(running, batches[:4], threads)
    data, ours, theirs = as_dataset(texts), [], []
    for round_ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, Cache(Path(folder), cache_limit_bytes()) as store:
            ours.append(timed(lambda kept=store: extract(data, backbone, kept, threads=threads)))
            if round_ == ROUNDS - 1:
                again = timed(lambda kept=store: extract(data, backbone, kept, threads=threads))[0]
        theirs.append(timed(lambda: bare(running, batches, threads)))
    a, b = np.median(ours, axis=0), np.median(theirs, axis=0)
    many = int(tokens.lengths.sum())
    print(
        f"b. {len(texts):,} texts, {many:,} tokens, {threads} threads: extract {many / a[0]:,.0f} tokens/s, bare "
        f"{many / b[0]:,.0f}; ratio {b[0] / a[0]:.3f}, by the processor's clock {b[1] / a[1]:.3f}; "
        f"second extraction {again:.2f} s",
        flush=True,
    )


def quick(many: int) -> None:
    """Figure c."""
    texts, y = sentences(many)
    data, folds = as_dataset(texts, y), make_folds(y, None, 5, seed=0)
    for name, method in (("bundled:ngrams", "sparse_logistic"), ("bundled:text_small", "logistic")):
        clock, cpu = time.perf_counter(), time.process_time()
        backbone = backbones.find(name, "text")
        if hasattr(backbone, "fitted"):
            backbone = backbone.fitted(texts)  # type: ignore[attr-defined]
        x = extract(data, backbone, None).x
        seen = time.perf_counter() - clock
        best, _ = probes.choose(x, y, folds, 2, methods=(method,))
        print(
            f"c. {name} on {many:,} texts: {time.perf_counter() - clock:.1f} s ({seen:.1f} s of it features), "
            f"{time.process_time() - cpu:.1f} s of the processor; {best.head.method}",
            flush=True,
        )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", type=int, default=20_000)
    args = parser.parse_args()
    if args.backbone:
        throughput(backbones.find(args.backbone, "text"), read("sst2").texts[: args.texts], args.threads)
    if args.quick:
        quick(args.quick)


if __name__ == "__main__":
    main()
