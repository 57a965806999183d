"""How numbers are called and written, the same on the page and in the terminal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, direction overrides and bytes that are no text: file names may hold them, pages may not."""


@dataclass(frozen=True)
class Words:
    """What a metric is called and what it means, for people who have never met it."""

    name: str
    meaning: str  # {items}: images, texts
    share: bool = True  # a part of one, written in percent; otherwise a plain number


METRICS: Mapping[str, Words] = {
    "accuracy": Words("Accuracy", "Share of {items} whose class is named correctly."),
    "map": Words(
        "Mean average precision",
        "For each label, how well {items} that carry it are ranked before those that do not; then the mean.",
    ),
    "balanced_accuracy": Words(
        "Balanced accuracy", "Mean over classes of the share found: every class weighs the same, however rare."
    ),
    "macro_f1": Words("Macro F1", "Finding all of a class while naming nothing else so, balanced; mean over classes."),
    "top5_accuracy": Words("Top 5", "Share of {items} whose class is among the five most likely."),
    "roc_auc": Words("ROC AUC", "Chance that one of a class scores above one that is not; guessing gives 50\u202f%."),
    "log_loss": Words(
        "Log loss", "How much the truth surprises the model: 0 is perfect, confident mistakes cost most.", share=False
    ),
    "r2": Words(
        "R²", "Share of the variance that the answers explain: the mean alone explains none, worse than it is below 0."
    ),
    "mae": Words("Mean absolute error", "How far answers are from the truth on average, in its unit.", share=False),
    "rmse": Words(
        "Root mean squared error", "The same with large errors weighing more: sqrt of the mean square.", share=False
    ),
    "spearman": Words("Rank correlation", "Whether the order is right: 1 is perfect, 0 is chance.", share=False),
    "ece": Words("Calibration error", "How far stated probabilities lie from how often they come true."),
}
_ALL_LABELS = Words("Exact match", "Share of {items} with every label right and none too many.")


def words(key: str, multilabel: bool = False, items: str = "images") -> Words:
    """Name and meaning of a metric; an unknown one is called as it is written."""
    known = _ALL_LABELS if multilabel and key == "accuracy" else METRICS.get(key)
    if known is None:
        return Words(key.replace("_", " ").capitalize(), "", share=not key.endswith("loss"))
    return dataclasses.replace(known, meaning=known.meaning.replace("{items}", items))


def in_line(key: str) -> str:
    """The name of a metric within a sentence: 'log loss', 'R²'."""
    name = words(key).name
    return name if name == "R²" else name.lower()


def thing(numbers: Mapping[str, Any]) -> str:
    """What one item of the data is: image, text, row."""
    return numbers.get("modality") or "image"


def a_thing(numbers: Mapping[str, Any]) -> str:
    """'an image', 'a text', 'a row'."""
    one = thing(numbers)
    return f"{'an' if one[0] in 'aeiou' else 'a'} {one}"


def ordered(metrics: Mapping[str, Any]) -> list[str]:
    """Metric keys in the order in which people should read them."""
    rank = {name: at for at, name in enumerate(METRICS)}
    return sorted(metrics, key=lambda key: (rank.get(key, len(rank)), key))


def percent(value: object) -> str:
    """0.914 -> '91.4 %'. Never 100 % for less than all, never 0 % for more than none."""
    if not isinstance(value, (int, float)):
        return "–"
    shown = min(round(value * 100, 1), 99.9) + 0.0 if value < 1 else round(value * 100, 1)  # + 0.0: never -0.0
    return f"{max(shown, 0.1) if value > 0 else shown:.1f}\u202f%"


def number(key: str, value: object) -> str:
    """A metric's value as it is written: percent, or three decimals."""
    if not isinstance(value, (int, float)):
        return "–"
    if words(key).share:
        return percent(value)
    if key in ("mae", "rmse") and 0 < abs(value) < 0.1:  # in a unit of their own
        places = 2 - math.floor(math.log10(abs(value)))
        return f"{value:.{places}f}" if places <= 8 else f"{value:.3g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def interval(key: str, metric: Mapping[str, Any] | None) -> str:
    """'88.1 to 93.9 %'."""
    if not metric or metric.get("low") is None or metric.get("high") is None:
        return ""
    low = number(key, metric["low"]).removesuffix("\u202f%")
    return f"{low} to {number(key, metric['high'])}"


def duration(seconds: object) -> str:
    """0.0042 -> '4 ms', 12.3 -> '12.3 s', 75 -> '1 min 15 s'."""
    if not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 0.0995:
        return f"{max(seconds * 1000, 0):.0f}\u202fms"
    if seconds < 59.95:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes}\u202fmin" if hours else f"{minutes}\u202fmin {rest}\u202fs"


def milliseconds(seconds: object) -> str:
    """0.0074 -> '7.4 ms'."""
    if not isinstance(seconds, (int, float)):
        return "–"
    value = 1000 * seconds
    return f"{value:.2f}\u202fms" if value < 1 else f"{value:.1f}\u202fms" if value < 100 else f"{value:,.0f}\u202fms"


def compact(value: object) -> str:
    """2257984 -> '2.26 million'."""
    if not isinstance(value, (int, float)):
        return "–"
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:,.0f}"


def tiny(value: object) -> str:
    """1.2e-07 -> '0.00000012': two figures, no exponent that has to be explained, up to twelve places."""
    if not isinstance(value, (int, float)):
        return "–"
    if value == 0:
        return "0"
    places = 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{places}f}" if 0 < places <= 12 else f"{value:.2g}"


def plain(value: Any) -> str:
    """Text of the user's data with what is no text replaced; a list of labels becomes one line."""
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return _UNSAFE.sub("\ufffd", re.sub(r"[ \t\r\n]+", " ", str(value)))


def short(value: Any, length: int = 28) -> str:
    """The start of a long text; the page keeps the whole in a tooltip."""
    text = plain(value)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def proven(proof: Mapping[str, Any]) -> bool:
    """The saved model gives the same label for every item, or ties between two equally probable ones."""
    tied = (proof.get("ties") or 0) / max(proof.get("items") or 1, 1)
    return (proof.get("agreement") or 0) + tied > 1 - 1e-9


def same_labels(proof: Mapping[str, Any]) -> str:
    """'all 298 images' or '99.7 % of 298 images'; of numbers every one is the same, or there is no model."""
    count = f"{proof['items']:,} {thing(proof)}s" if proof.get("items") else f"{thing(proof)}s"
    if proof.get("agreement") == 1:
        return f"all {count}"
    ties = ", the rest are ties between equally probable labels" if proven(proof) else ""
    return f"{percent(proof.get('agreement'))} of {count}{ties}"


def main_metric(numbers: Mapping[str, Any]) -> str | None:
    """The one number that the verdict is about."""
    metrics = numbers.get("metrics") or {}
    first = "r2" if numbers.get("numeric") else "map" if numbers.get("multilabel") else "accuracy"
    keys = sorted(ordered(metrics), key=lambda key: key != first)
    return next((key for key in keys if (metrics[key] or {}).get("value") is not None), None)


def baseline(numbers: Mapping[str, Any], key: str) -> float | None:
    """What a model would score that always gives the commonest answer, or the mean."""
    for step in numbers.get("steps") or ():
        if step.get("name") in ("majority", "mean"):
            return ((step.get("metrics") or {}).get(key) or {}).get("value")
    return None


def measured_on(numbers: Mapping[str, Any]) -> str:
    """Which items the numbers are about."""
    one = thing(numbers)
    on = numbers.get("evaluated_on") or {}
    n = on.get("n") or ((numbers.get("metrics") or {}).get(main_metric(numbers)) or {}).get("n")
    count = f"{n:,} " if n else ""
    return {
        "test": f"{count}test {one}s it had never seen",
        "val": f"{count}{one}s held back from training",
        "cross-validation": f"{count}{one}s, each judged by a model that had not seen it (cross-validation)",
    }.get(on.get("kind", ""), f"{count}{one}s")


def verdict(numbers: Mapping[str, Any]) -> list[str]:
    """The result in sentences: what, how sure, against what, and what stands against it."""
    key = main_metric(numbers)
    if key is None:
        return [f"Nothing was measured: there were no labelled {thing(numbers)}s to measure on."]
    metric, on = numbers["metrics"][key], measured_on(numbers)
    sure = f" (95\u202f%\u00a0interval {interval(key, metric)})" if interval(key, metric) else ""
    if key == "accuracy" and not numbers.get("multilabel"):
        said = [f"The model names the right class for {number(key, metric['value'])} of {on}{sure}."]
    elif numbers.get("numeric"):
        what = plain(((numbers.get("data") or {}).get("labels") or ["the number"])[0])
        said = [f"The model explains {number(key, metric['value'])} of the variance of {what}{sure}, on {on}."]
        if metric["value"] <= 0:
            short_of = f"R² is {number(key, metric['value'])}{sure}, on {on}"
            said = [f"The model knows no more of {what} than the mean: {short_of}."]
        off, alone = numbers["metrics"].get("mae"), baseline(numbers, "mae")
        than = "" if alone is None else f"; always giving the mean would be off by {number('mae', alone)}"
        return [*said, f"It is off by {number('mae', off['value'])} on average{than}."] if off else said
    else:
        said = [f"{words(key, bool(numbers.get('multilabel'))).name} is {number(key, metric['value'])}{sure}, on {on}."]
    base = baseline(numbers, key)
    if base is not None:
        said.append(f"Always giving the commonest answer would score {number(key, base)}.")
    return said


def doubts(numbers: Mapping[str, Any]) -> list[str]:
    """What a careful reader should know before trusting the headline."""
    said = []
    key = main_metric(numbers)
    metric = (numbers.get("metrics") or {}).get(key) or {}
    base = baseline(numbers, key) if key else None
    if key and words(key).share and base is not None and metric.get("low") is not None and metric["low"] <= base:
        answer = "the mean" if numbers.get("numeric") else "the commonest answer"
        said.append(f"The interval reaches down to what always giving {answer} would score.")
    if metric.get("low") is not None and key and words(key).share and metric["high"] - metric["low"] > 0.15:
        said.append(f"The interval is wide: only {metric.get('n', 0):,} {thing(numbers)}s were there to measure on.")
    errors = sum(f.get("severity") == "error" for f in numbers.get("findings") or ())
    if errors:
        said.append(
            f"The data has {errors} serious finding{'s' * (errors > 1)}: read {'them' if errors > 1 else 'it'} first."
        )
    proof = numbers.get("proof") or {}
    if proof.get("agreement") is not None and not proven(proof):
        said.append(f"The saved model did not agree with the trained one on every {thing(numbers)}.")
    return said


def step_names(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names, each of them once: 'last_stages' of 'last_stages(1, epochs=4) + l2_sp', more where two are alike."""
    full = [plain(step.get("name") or "") for step in steps]
    ways = (
        lambda name: name.partition("(")[0].partition("+")[0].strip(),
        _without_brackets,
        lambda name: short(name, 40),
    )
    shown = [ways[0](name) for name in full]
    for way in ways[1:]:
        again = {name for name in shown if shown.count(name) > 1}
        shown = [way(whole) if name in again else name for name, whole in zip(shown, full, strict=True)]
    again = {name for name in shown if shown.count(name) > 1}
    return [f"{name} #{at + 1}" if name in again else name for at, name in enumerate(shown)]


def _without_brackets(name: str) -> str:
    kept, depth = "", 0
    for letter in name:
        depth += letter == "("
        kept += letter if depth == 0 else ""
        depth -= letter == ")" and depth > 0
    return kept


def taken(step: Mapping[str, Any]) -> bool:
    """Whether a step was tried at all."""
    return bool(step.get("metrics"))


def weights_proven(proofs: Mapping[str, Any]) -> str:
    """'412 frozen tensors are bit for bit what they were; 58 of 58 others have moved.'"""
    frozen, free, moved = (proofs.get(key) for key in ("frozen", "free", "free_moved"))
    if free is None or moved is None:
        return ""
    others = f"{moved:,} of {free:,} {'others' if frozen else 'tensors'} have moved."
    if not frozen:
        return f"Nothing was frozen below a boundary; {others}"
    was = "frozen tensor is bit for bit what it was" if frozen == 1 else "frozen tensors are bit for bit what they were"
    return f"{frozen:,} {was}; {others}"


def in_use(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Which step the saved model is: the last that was kept."""
    return max((at for at, step in enumerate(steps) if step.get("kept")), default=None)
