"""Where a model comes from: the facts that let somebody else make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topwork.evaluation import wording


def origin(n: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of every fact that is known."""
    data, backbone, did = n.get("data") or {}, n.get("backbone") or {}, n.get("extraction") or {}
    hashes = n.get("hashes") or {}
    size, work = backbone.get("parameters"), backbone.get("multiply_adds")
    rows = [
        ("Topwork", n.get("topwork")),
        ("Made", n.get("created")),
        ("Seed", n.get("seed")),
        ("Data", data.get("source")),
        ("Backbone", backbone.get("spec")),
        ("Architecture", backbone.get("architecture")),
        ("Parameters", wording.compact(size) if size else None),
        (f"Multiply-adds per {wording.thing(n)}", wording.compact(work) if work else None),
        ("Backbone's licence", backbone.get("licence")),
        ("Backbone was trained on", backbone.get("trained_on")),
        ("Preprocessing", _preprocessing(backbone.get("preprocess") or {})),
        ("Engine", did.get("engine")),
        ("Forward passes", _passes(did)),
        ("Hash of weights", None if backbone.get("weights") in hashes.values() else backbone.get("weights")),
        *((f"Hash of {name}", value) for name, value in sorted(hashes.items())),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _preprocessing(p: Mapping[str, Any]) -> str:
    if not p.get("resize_px"):
        return ""
    way = "whole image squeezed" if p.get("fit") == "squash" else f"centre {p['crop_px']} px"
    return f"resize {p['resize_px']} px {p.get('interpolation', '')}, {way}".replace(" ,", ",")


def _passes(did: Mapping[str, Any]) -> str:
    if did.get("forward_passes") is None:
        return ""
    rates = {name: did.get(f"{name}_per_second") for name in ("images", "texts")}
    speed = "".join(f", {rate:,.0f} {name} a second" for name, rate in rates.items() if rate)
    return f"{did['forward_passes']:,} run, {did.get('cached') or 0:,} from the cache{speed}"
