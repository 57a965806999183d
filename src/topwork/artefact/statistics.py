"""What a model remembers of its classes' items: statistics.safetensors, a few hundred kilobytes.

    counts int64 (C,)    centre, scale float32 (D,)    means float16 (C, D)    axes float16 (R, D)    rest float32 (D,)

Means are (m - centre) / scale and axes are divided by scale, so that half precision holds them whatever the features'
unit. No item can be told from them but where a class has a single one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topwork.artefact.bundle import STATISTICS, contents
from topwork.artefact.sealed import Seal
from topwork.errors import BadSetting
from topwork.nn.class_statistics import ClassStatistics

RANK = 64  # directions within the classes; figures in `extending`


def pack(found: ClassStatistics) -> bytes:
    """The same statistics give the same bytes."""
    from safetensors.numpy import save

    known = found.means[found.counts > 0]
    centre = known.mean(0) if len(known) else np.zeros_like(found.rest)
    within = found.rest + np.square(found.axes).sum(0)
    spread = np.sqrt(within + np.square(known - centre).mean(0)) if len(known) else np.sqrt(within)
    scale = np.where(spread > 0, spread, 1).astype(np.float32)
    arrays = {
        "counts": found.counts.astype(np.int64),
        "centre": centre.astype(np.float32),
        "scale": scale,
        "means": (np.where(found.counts[:, None] > 0, found.means - centre, 0) / scale).astype(np.float16),
        "axes": (found.axes / scale).astype(np.float16),
        "rest": found.rest.astype(np.float32),
    }
    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, {"format": "topwork 1"})


def unpack(data: bytes) -> ClassStatistics:
    """Undo `pack`, up to half precision."""
    from safetensors.numpy import load

    a = load(data)
    means = a["means"].astype(np.float32) * a["scale"] + a["centre"]
    means[a["counts"] == 0] = 0
    return ClassStatistics(a["counts"], means, a["axes"].astype(np.float32) * a["scale"], a["rest"])


def read(folder: Path, seal: Seal | None = None) -> ClassStatistics:
    """Those of a saved model, whose files were compared with their checksums before."""
    try:
        return unpack(contents(folder, STATISTICS, seal))
    except FileNotFoundError as error:
        raise BadSetting(
            f"{folder} holds no {STATISTICS}: an older version wrote it, or it gives several labels. Fit again, and "
            "classes can be added"
        ) from error
