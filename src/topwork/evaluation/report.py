"""The report: one set of numbers as a page, as JSON and as lines for the terminal.

The page is one file that needs nothing else: charts are inline SVG, thumbnails are inside it, and its content security
policy names the hashes of its own style and script, so that nothing in the user's data could ever run or load.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.evaluation import charts, growth, occlusion, wording
from topwork.evaluation.axis import Axis
from topwork.evaluation.origin import origin
from topwork.evaluation.plain_json import clean, to_json
from topwork.evaluation.terminal import terminal
from topwork.modalities.text import PAIR
from topwork.tasks.regression import as_given, written

if TYPE_CHECKING:
    import jinja2

__all__ = ["render", "terminal", "to_json"]

_TEMPLATES = Path(__file__).parent / "templates"
_MATRIX_CLASSES = 24  # more classes than that: a map without numbers and the most frequent mix-ups
_SHOWN_ITEMS, _SHOWN_SHOTS, _SHOWN_SKIPPED, _SHOWN_PAIRS = 50, 24, 200, 12

_SECTIONS = (  # id, title, where in the numbers the section has its matter
    ("findings", "Findings", "findings"),
    ("data", "{items} per class", "data.counts"),
    ("ladder", "Ladder", "steps"),
    ("growth", "Old and new data", "growth.rows"),
    ("tuning", "Tuning", "tuning"),
    ("metrics", "Scores", "metrics"),
    ("classes", "Class by class", "per_class"),
    ("confusion", "Mix-ups", "confusion.counts"),
    ("numbers", "Said and true", "numbers"),
    ("calibration", "Calibration", "calibration"),
    ("curve", "More labels?", "label_curve"),
    ("wrong", "Most wrong", "gallery.most_wrong"),
    ("unsure", "Least sure", "gallery.least_sure"),
    ("choices", "Choices", "choices"),
    ("proof", "Proof", "proof"),
    ("skipped", "Left out", "skipped"),
    ("provenance", "Provenance", "topwork"),
)


def render(numbers: Mapping[str, Any], thumbnails: Mapping[str, bytes] | None = None) -> str:
    """The page. thumbnails: item -> bytes of a small JPEG, PNG or WebP."""
    n = clean(numbers)
    steps, key, thing = n.get("steps") or [], wording.main_metric(n), wording.thing(n)
    confusion, tuning, names = n.get("confusion") or {}, n.get("tuning") or {}, wording.step_names(steps)
    counts = confusion.get("counts") or []
    style, script = asset("report.css"), asset("report.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            n=n,
            data=n.get("data") or {},
            name=(n.get("data") or {}).get("name") or "Report",
            main=key,
            base=wording.baseline(n, key) if key else None,
            words=functools.partial(wording.words, multilabel=bool(n.get("multilabel")), items=f"{thing}s"),
            thing=thing,
            headline_unit=_headline_unit(n, key),
            verdict=[n["headline"]] if n.get("headline") else wording.verdict(n),
            doubts=wording.doubts(n),
            sections=[
                (name, title.format(items=f"{thing.capitalize()}s"))
                for name, title, where in _SECTIONS
                if _dig(n, where)
            ],
            class_bars=charts.class_bars(_dig(n, "data.counts") or {}),
            used=wording.in_use(steps),
            ladder_chart=charts.ladder(steps, key) if key else None,
            names=names,
            outs=[
                (name, step.get("name") or "", str(step["verdict"]).removeprefix("left out: "))
                for name, step in zip(names, steps, strict=True)
                if step.get("verdict") and not wording.taken(step)
            ],
            loss_charts=charts.losses(tuning.get("curves") or {}),
            moved=charts.movement(tuning.get("stages") or []),
            weakest=sorted(n.get("per_class") or [], key=lambda c: -1.0 if c.get("f1") is None else c["f1"]),
            matrix={**confusion, "levels": charts.heat(counts)} if 0 < len(counts) <= _MATRIX_CLASSES else None,
            map=charts.overview(counts) if len(counts) > _MATRIX_CLASSES else None,
            pairs=(confusion.get("pairs") or [])[:_SHOWN_PAIRS],
            curve_chart=charts.label_curve(n.get("label_curve") or {}),
            scatter=charts.scatter((n.get("numbers") or {}).get("points") or []),
            origin=origin(n),
            stages=charts.stage_bars(n.get("seconds") or {}),
            thumbnails={item: _data_uri(data) for item, data in (thumbnails or {}).items()},
            style=style,
            style_hash=sha256_of(style),
            script=script,
            script_hash=sha256_of(script),
        )
    )


def _dig(numbers: Mapping[str, Any], where: str) -> Any:
    return functools.reduce(lambda inner, key: (inner or {}).get(key), where.split("."), numbers)


def _headline_unit(n: Mapping[str, Any], key: str | None) -> str:
    if key is None:
        return "No score yet"
    items = f"{'unseen ' if _dig(n, 'evaluated_on.kind') else ''}{wording.thing(n)}s"
    if key == "accuracy" and not n.get("multilabel"):
        return f"of {items} correctly labelled"
    if key == "r2":
        return f"of the variance explained on {items}"
    name = wording.words(key, bool(n.get("multilabel"))).name
    return f"{name[0].lower()}{name[1:]} on {items}"


def _mark(effect: float | None, strongest: float) -> str:
    """The style of a word: for1 .. for4, against1 .. against4, or none."""
    level = occlusion.level(effect, strongest)
    return f"{'for' if level > 0 else 'against'}{abs(level)}" if level else ""


def _stated(shown: Mapping[str, Any], effect: float) -> str:
    """What the model says of an entry without a word of that effect: a probability, or a number."""
    scale = shown.get("scale")
    value = shown["stated"] - effect * (scale or 1)
    return written(value, scale) if scale else wording.percent(value)


def _tick(value: float) -> str:
    """A round value of an axis of numbers."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _strongest(words: Sequence[Sequence[Any]]) -> float:
    return max((abs(effect) for _, effect in words if effect is not None), default=0.0)


def _second_tick(seconds: float) -> str:
    return f"{seconds * 1000:g}\u202fms" if seconds < 0.1 else f"{seconds:,g}\u202fs"


def _data_uri(data: bytes) -> str:
    kind = "png" if data[:4] == b"\x89PNG" else "webp" if data[8:12] == b"WEBP" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@functools.cache
def asset(name: str) -> str:
    """A file of the templates: the style, the script."""
    return (_TEMPLATES / name).read_text("utf-8")


def sha256_of(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@functools.cache
def environment() -> jinja2.Environment:
    """The templates with the house's filters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters |= {
        "percent": wording.percent,
        "duration": wording.duration,
        "tiny": wording.tiny,
        "plain": wording.plain,
        "ms": wording.milliseconds,
        "compact": wording.compact,
        "megabytes": lambda size: f"{size / 1e6:.1f}\u202fMB" if isinstance(size, (int, float)) else "–",
        "short": wording.short,
        "thousands": lambda value: f"{value:,}" if isinstance(value, (int, float)) else "–",
        "day": lambda created: str(created)[:10],
        "tail": lambda item: wording.plain(item).replace("\\", "/").rsplit("/", 1)[-1],
    }
    environment.globals |= {
        "unit": Axis(0.0, 1.0),
        "upward": Axis(1.0, 0.0),
        "number": wording.number,
        "interval": wording.interval,
        "ordered": wording.ordered,
        "proven": wording.proven,
        "taken": wording.taken,
        "weights_proven": wording.weights_proven,
        "same_labels": wording.same_labels,
        "measured_on": wording.measured_on,
        "reliability": charts.reliability,
        "seconds_ticks": lambda axis: [(tick, _second_tick(tick)) for tick in axis.ticks()],
        "count_ticks": lambda axis: [(tick, f"{tick:,.0f}") for tick in axis.ticks()],
        "name_length": charts.NAME_LENGTH,
        "mark": _mark,
        "strongest": _strongest,
        "stated": _stated,
        "written": written,
        "as_given": as_given,
        "tick_text": _tick,
        "value_ticks": lambda axis: [(tick, _tick(tick)) for tick in axis.ticks()],
        "growth_table": growth.table,
        "pair": PAIR,
        "shown_items": _SHOWN_ITEMS,
        "shown_shots": _SHOWN_SHOTS,
        "shown_skipped": _SHOWN_SKIPPED,
    }
    return environment
