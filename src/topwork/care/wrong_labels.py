"""Labels that all other items contradict."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from topwork.care.judged import Judged
from topwork.care.sight import Sight, named
from topwork.data.findings import HELD_OUT
from topwork.data.label_errors import label_errors, power
from topwork.types import Finding

KNOWS = 0.9  # accuracy below which a better backbone is worth naming
PROVEN = 0.9  # P(wrong) at the noise that is proven, from which there is evidence enough to act
SURE = 0.7  # probability from which a label is suggested
TRUSTED = 0.33  # share of the suspicious labels that are wrong below which most of them are said to be right


def look(sight: Sight, judged: Judged | None) -> Iterator[Finding]:
    """Suspicious labels, the surest first; `proven` where it would be no mistake to act on the word of the others."""
    if judged is None:
        return
    p, y = judged.p, judged.y
    found = label_errors(p, y)
    wrong = found.wrong if y.ndim == 1 else found.wrong.any(1)
    wrong &= ~_unknown(judged)
    if not wrong.any():
        return
    order = np.flatnonzero(wrong)[np.argsort(found.quality[wrong], kind="stable")]
    expected = float(found.doubt[order].sum())
    names = sight.dataset.labels
    sure = p.max(1) >= SURE if y.ndim == 1 else np.where(found.wrong, np.maximum(p, 1 - p), 1).min(1) >= SURE
    better = [named(found.likeliest[i], names) if sure[i] else "" for i in order]
    trusted = expected >= TRUSTED * len(order)
    first = order[0]
    one = sight.item(judged.at[first])
    example = f"{one} is labelled {named(y[first], names)!r}"
    looks = named(found.likeliest[first], names)
    share = expected / len(y)
    message = (
        f"{len(order):,} of {len(y):,} labels are suspicious, about {expected:,.0f} of them wrong ({share:.1%}): "
        f"{example} and looks like {looks!r}"
    )
    scores = found.doubt[order] * (1 - found.quality[order])
    proven = found.proven[order] * (1 - found.quality[order]) >= PROVEN
    acts = int((proven & ~np.isin(sight.splits[judged.at[order]], HELD_OUT)).sum())
    fix = "look at them, the surest first"
    if judged.accuracy < KNOWS or not trusted:
        most = "" if trusted else ", so most of these labels are right"
        finds = power(p, found.noise, y.ndim == 2)
        fix = (
            f"{sight.backbone} is right about {judged.accuracy:.0%} of the {sight.many} only{most}: look at the first "
            f"ones, or name a better --backbone (of 5% wrong labels this one finds: average precision {finds:.1f})"
        )
    fix += f"; topwork clean --apply findings.json changes {acts:,} for which there is evidence enough"
    yield Finding(
        "label_errors", "warning" if expected >= 1 else "note", message, fix,
        tuple(judged.at[order].tolist()), tuple(sight.item(judged.at[i]) for i in order[:5]), tuple(better),
        tuple(np.round(scores, 4).tolist()), tuple(proven.tolist()),
    )  # fmt: skip


def _unknown(judged: Judged) -> NDArray[np.bool_]:
    """Items whose label no head has met that they were asked of."""
    if judged.y.ndim == 2:
        return np.zeros(len(judged.y), bool)
    pairs = np.unique(np.stack([judged.y, judged.folds], 1), axis=0)[:, 0]
    alone = np.flatnonzero(np.bincount(pairs, minlength=int(judged.y.max()) + 1) == 1)
    return np.isin(judged.y, alone)
