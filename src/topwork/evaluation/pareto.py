"""Accuracy against latency: where every backbone lies, and the line of those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topwork.evaluation.axis import log_axis, share_axis
from topwork.evaluation.charts import name_spots


def pareto(candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Points with the side on which their name fits, both axes, and the front as a path in a 100 x 100 box."""
    points = [
        {**one["metrics"]["accuracy"], "name": one["name"], "seconds": max(one["latency"]["single"], 1e-6), "one": one}
        for one in candidates
    ]
    if len(points) < 2:
        return None
    x = log_axis([p["seconds"] for p in points], room=1.8)
    y = share_axis(p[key] for p in points for key in ("value", "low", "high"))
    front = sorted((x.at(p["seconds"]), y.at(p["value"])) for p in points if p["one"]["front"])
    path = f"M{front[0][0]} {front[0][1]}" + "".join(f"H{right}V{top}" for right, top in front[1:]) + "H100"
    spots = name_spots(points, x, y)
    return {
        "points": [{**p, "spot": spot} for p, spot in zip(points, spots, strict=True)],
        "x": x,
        "y": y,
        "path": path,
    }
