"""What `topwork pretrain --start` on unlabelled texts brings to a frozen encoder: before and after, item by item.

Ridge on the frozen features, five folds, the same for both; difference with its paired interval.

    topwork pretrain reviews.txt --method masked_language --start local:MINILM --time 12m --out tuned
    python benchmarks/domain_pretraining.py local:MINILM local:tuned DATA [DATA ...]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topwork import sources
from topwork.adaptation.probe import choose
from topwork.backbones import find
from topwork.data.inspect import inspect
from topwork.data.split import keep_together
from topwork.data.split.kfold import folds as make_folds
from topwork.evaluation.paired import compare_hits
from topwork.features.extract import extract
from topwork.store.cache import open_cache
from topwork.types import Dataset


def main() -> None:
    """Print a line per data set."""
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    before, after, *places = sys.argv[1:]
    for place in places:
        data = inspect(sources.read(place)).dataset
        data = data.take(np.flatnonzero(data.targets() >= 0))
        first, second = (hits(data, spec) for spec in (before, after))
        print(
            f"{data.name}, {len(first):,} texts: {100 * first.mean():.1f} -> {100 * second.mean():.1f} %, "
            f"{compare_hits(first, second)}"
        )


def hits(data: Dataset, spec: str) -> NDArray[Any]:
    """(N,) whether each text is named rightly by a head that has not seen its fold."""
    y = data.targets()
    features = extract(data, find(spec, "text"), open_cache(), engine="onnxruntime")
    parts = make_folds(y, keep_together(data), 5, 0)
    best, _ = choose(features.x, y, parts, len(data.labels), methods=("ridge",))
    return best.held_out.argmax(1) == y


if __name__ == "__main__":
    main()
