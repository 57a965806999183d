"""Where things lie in a chart, in percent of its width and height: the page draws, this measures.

Percent instead of pixels, because a chart then fills a phone and a desk alike while its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from topwork.evaluation.axis import Axis, log_axis, share_axis
from topwork.evaluation.wording import step_names

Point = Mapping[str, Any]
Box = tuple[float, float, float, float]  # left, top, right, bottom
NAME_LENGTH = 16

STAGES: Mapping[str, str] = {
    "read": "Read the list",
    "inspect": "Inspect the items",
    "extract": "Extract features",
    "probe": "Solve the head",
    "evaluate": "Evaluate",
    "export": "Write and prove",
}


def ladder(steps: Sequence[Point], key: str) -> dict[str, Any] | None:
    """Every step's score with its interval against the seconds it took."""
    names = step_names(steps)
    shown = [
        {
            **step["metrics"][key],
            "at": number,
            "name": names[number],
            "full": step.get("name", ""),
            "kept": bool(step.get("kept")),
            "seconds": max(step.get("seconds") or 0.0, 1e-3),
        }
        for number, step in enumerate(steps)
        if ((step.get("metrics") or {}).get(key) or {}).get("value") is not None
    ]
    if len(shown) < 2:
        return None
    heights = [point.get(name) for point in shown for name in ("value", "low", "high")]
    x, y = log_axis([p["seconds"] for p in shown], room=2.0), share_axis(heights)
    spots = name_spots(shown, x, y)
    return {"points": [{**p, "spot": spot} for p, spot in zip(shown, spots, strict=True)], "x": x, "y": y}


def name_spots(points: Sequence[Point], x: Axis, y: Axis, width: float = 290, height: float = 240) -> list[str]:
    """On which side of each point its name lies on nothing else, in pixels of a narrow phone: wider is only freer."""
    tops = [[y.at(p.get(name) or p["value"]) * height / 100 for name in ("high", "value", "low")] for p in points]
    places = [x.at(p["seconds"]) * width / 100 for p in points]
    taken = [(at - 7, high - 4, at + 7, low + 4) for at, (high, _, low) in zip(places, tops, strict=True)]
    spots = []
    for p, at, (high, middle, low) in zip(points, places, tops, strict=True):
        wide = 7.0 * len(p["name"][:NAME_LENGTH])
        boxes = {
            "left": (at - 10 - wide, middle - 8, at - 10, middle + 8),
            "right": (at + 10, middle - 8, at + 10 + wide, middle + 8),
            "above": (at + 8 - wide, high - 22, at + 8, high - 5),
            "below": (at + 8 - wide, low + 5, at + 8, low + 22),
        }
        fits = [spot for spot, b in boxes.items() if b[0] > -4 and b[2] < width + 12 and b[1] > -16 and b[3] < height]
        overlaps = {spot: sum(_overlap(boxes[spot], other) for other in taken) for spot in fits}
        spots.append(min(fits, key=overlaps.__getitem__, default="above"))
        taken.append(boxes[spots[-1]])
    return spots


def _overlap(a: Box, b: Box) -> float:
    """Area that both cover."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def label_curve(curve: Mapping[str, Any], samples: int = 48) -> dict[str, Any] | None:
    """Accuracy against the number of labels, the fitted power law as a path in a 100 x 100 box."""
    points = [p for p in curve.get("points") or () if p.get("labels") and p.get("accuracy") is not None]
    if not points:
        return None
    twice, fit = curve.get("twice"), curve.get("fit")
    everything = points + ([twice] if twice else [])
    x = log_axis([p["labels"] for p in everything], room=1.25)
    y = share_axis(p.get(name) for p in everything for name in ("accuracy", "low", "high"))
    path = ""
    if fit:
        first, last = points[0]["labels"], everything[-1]["labels"]
        labels = [first * (last / first) ** (i / (samples - 1)) for i in range(samples)]
        path = "M" + "L".join(f"{x.at(n)} {y.at(power_law(fit, n))}" for n in labels)
    return {"points": points, "twice": twice, "x": x, "y": y, "path": path}


def scatter(points: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Truths and answers on one scale for both axes."""
    values = [value for point in points for value in point]
    if not values or min(values) == max(values):
        return None
    room = 0.04 * (max(values) - min(values))
    low, high = min(values) - room, max(values) + room
    return {"points": points, "x": Axis(low, high), "y": Axis(high, low)}


def losses(curves: Mapping[str, Mapping[str, Any]], main: str | None = None, ahead: int = 0) -> list[dict[str, Any]]:
    """A chart per loss term: the main training's line last, so that it lies above those of the folds.

    `main`: its name, where it is not the one that leaves out no fold; `ahead`: steps that it is going to make.
    """
    known = {name: curve for name, curve in curves.items() if curve.get("steps") and curve.get("terms")}
    if not known:
        return []
    if main not in known:
        main = next((name for name in known if not name.startswith("fold")), next(iter(known)))
    order = [*(name for name in known if name != main), main]
    x = Axis(0.0, float(max(ahead, *(known[name]["steps"][-1] for name in order))))
    terms = dict.fromkeys(term for name in reversed(order) for term in known[name]["terms"])
    drawn = []
    for term in terms:
        lines = [
            (
                name,
                [
                    (s, v)
                    for s, v in zip(known[name]["steps"], known[name]["terms"][term], strict=True)
                    if v is not None
                ],
            )
            for name in order
            if term in known[name]["terms"]
        ]
        values = [v for _, points in lines for _, v in points]
        if not values:
            continue
        y = Axis(max(*values, 0.0) or 1.0, min(*values, 0.0))
        shown = [
            {"name": name, "main": name == main, "last": points[-1][1], "path": _path(points, x, y)}
            for name, points in lines
            if points
        ]
        drawn.append({"term": term, "x": x, "y": y, "lines": shown})
    return drawn


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Through the points, in a 100 x 100 box; a single one becomes a dash."""
    places = [f"{x.at(across)} {y.at(up) + 0.0}" for across, up in points]  # never -0.0
    return "M" + "L".join(places if len(places) > 1 else [f"0 {places[0].split()[1]}", *places])


def movement(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far the weights of every stage have gone, in percent of the one that went farthest."""
    farthest = max((stage.get("change") or 0.0 for stage in stages), default=0.0) or 1.0
    return [{**stage, "share": round((stage.get("change") or 0.0) / farthest * 100, 2)} for stage in stages]


def power_law(fit: Mapping[str, float], labels: float) -> float:
    """accuracy(n) = 1 - (a + b n^-c)    a: the error that endless labels would leave."""
    return 1 - fit["a"] - fit["b"] * labels ** -fit["c"]


def reliability(bins: Sequence[Point]) -> list[dict[str, Any]]:
    """Bins of a reliability diagram that hold anything, with a radius whose area follows their number of items."""
    shown = [b for b in bins if b.get("n") and b.get("accuracy") is not None and b.get("confidence") is not None]
    most = max((b["n"] for b in shown), default=1)
    return [{**b, "radius": round(2 + 3 * math.sqrt(b["n"] / most), 1)} for b in shown]


def heat(counts: Sequence[Sequence[int]], levels: int = 8) -> list[list[int]]:
    """Each count's share of its row as a level: 0 for none, 1..levels otherwise."""
    totals = [max(sum(row), 1) for row in counts]
    return [[math.ceil(levels * n / total) for n in row] for row, total in zip(counts, totals, strict=True)]


def overview(counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A confusion matrix too large for numbers: one path of unit squares per level, right and wrong apart."""
    paths: dict[str, list[str]] = {}
    for i, row in enumerate(heat(counts, levels=4)):
        for j, level in enumerate(row):
            if level:
                paths.setdefault(f"{'right' if i == j else 'wrong'}{level}", []).append(f"M{j} {i}h1v1h-1z")
    return {"size": len(counts), "paths": {kind: "".join(parts) for kind, parts in sorted(paths.items())}}


def class_bars(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """One row per class, most images first: a bar of its splits in percent of the largest class."""
    known = [split for split in ("train", "val", "test") if split in counts]
    splits = known + sorted(set(counts) - set(known))
    totals: dict[str, int] = {}
    for split in splits:
        for label, n in counts[split].items():
            totals[label] = totals.get(label, 0) + (n or 0)
    largest = max(totals.values(), default=0) or 1
    rows = []
    for label in sorted(totals, key=lambda label: (-totals[label], label)):
        parts, start, sizes = [], 0.0, [counts[split].get(label) or 0 for split in splits]
        for size in sizes:
            parts.append((round(start, 2), round(size / largest * 100, 2)))
            start += size / largest * 100
        rows.append({"label": label, "parts": parts, "numbers": sizes})
    return {"splits": splits, "totals": {s: sum(v or 0 for v in counts[s].values()) for s in splits}, "rows": rows}


def stage_bars(seconds: Mapping[str, float | None]) -> list[tuple[str, float, float]]:
    """(stage, percent of the longest, seconds) in the order in which they ran."""
    ran = {name: took for name, took in seconds.items() if took is not None and name != "total"}
    order = [name for name in STAGES if name in ran] + sorted(set(ran) - set(STAGES))
    longest = max(ran.values(), default=0) or 1
    return [(STAGES.get(name, name.capitalize()), round(ran[name] / longest * 100, 2), ran[name]) for name in order]
