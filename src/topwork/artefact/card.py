"""The model card, README.md: what the model is, how good, made of what, how to use it, where it fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from topwork.artefact.bundle import card_of
from topwork.types import Metric

MOST_LABELS = 60
MOST_WEAK = 5

_UNKNOWN = "not known: ask where the weights came from before passing them on"

_IMAGES = """\
## Use

```sh
topwork predict {folder} new.jpg
```

With Topwork in Python, no torch needed:

```python
import topwork as tw

answer = tw.load("{folder}").predict("new.jpg")
print(answer.label, answer.probability)
```

With onnxruntime alone, inside this folder:

```python
import json, numpy as np, onnxruntime as ort
from PIL import Image, ImageOps

session = ort.InferenceSession("model.onnx")
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
image = Image.open("new.jpg")
image.draft(None, ({min_px}, {min_px}))  # large JPEGs are read at reduced size, as in training
pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[None]  # uint8 (1, H, W, 3)
probabilities = session.run(["probabilities"], {{"pixels": pixels}})[0][0]
print(labels[probabilities.argmax()], probabilities.max())
```

Any size of image will do: resizing, cropping and normalising are inside the graph.
"""

_TEXTS = """\
## Use

```sh
topwork predict {folder} "some text"
```

With Topwork in Python, no torch needed:

```python
import topwork as tw

answer = tw.load("{folder}").predict("some text")
print(answer.label, answer.probability)
```

The graph alone, inside this folder; reader.json and the files that it names turn texts into numbers:

```python
import json, pathlib, numpy as np, onnxruntime as ort
from topwork.modalities.readers import open_reader

session = ort.InferenceSession("model.onnx")
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
names = json.loads(pathlib.Path("model.json").read_bytes())["reader"]
reader = open_reader({{name: pathlib.Path(name).read_bytes() for name in names}})
tokens = reader.read(["some text"])
ids, weights = tokens.padded(np.arange(len(tokens.owner)))  # int64, float32 (W, L): all windows of one text
probabilities = session.run(["probabilities"], {{"ids": ids, "weights": weights}})[0][0]
print(labels[probabilities.argmax()], probabilities.max())
```

Texts of any length will do: one that is longer than a window is read in several, whose features are averaged.
"""


_ROWS = """\
## Use

```sh
topwork predict {folder} table.csv
```

With Topwork in Python, no torch needed:

```python
import topwork as tw

answer = tw.load("{folder}").predict({example})
print(answer.label, answer.probability)
```

The graph alone takes ids and weights (1, L) of the features that reader.json describes: numbers as (x - mean) / std, 1
for a word or for a missing value. Columns that a row lacks are missing values.
"""


def render(
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    *,
    measured_on: str,
    recall: Mapping[str, Metric] | None = None,
    proof: str = "",
    folder: str = "models/NAME",
) -> str:
    """The text of README.md. `recall`: share of each label's items that were found; `proof`: Proof.fact."""
    parts = [
        _head(manifest),
        _measured(metrics, measured_on, proof),
        _labels(manifest),
        _made_of(manifest),
        _use(manifest, folder),
        _limits(manifest, recall or {}),
    ]
    return "\n".join(parts)


def _use(manifest: Mapping[str, Any], folder: str) -> str:
    how = {"text": _TEXTS, "row": _ROWS}.get(_modality(manifest), _IMAGES)
    text = how.format(folder=folder, min_px=card_of(manifest).preprocess.decode_px, example='{"COLUMN": 1.5}')
    if not _is_numeric(manifest):
        return text
    text = text.replace("print(answer.label, answer.probability)", "print(answer.value, answer.low, answer.high)")
    text = text.replace('labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])\n', "")
    text = text.replace("print(labels[probabilities.argmax()], probabilities.max())", "print(values[0])")
    return text.replace("probabilities", "values")


def _modality(manifest: Mapping[str, Any]) -> str:
    return manifest.get("modality", "image")


def _is_numeric(manifest: Mapping[str, Any]) -> bool:
    """A number comes out."""
    return manifest["head"]["activation"] == "identity"


def _is_counted(manifest: Mapping[str, Any]) -> bool:
    """N-grams of the training texts, columns of the training rows: nothing was pretrained."""
    return manifest["backbone"]["spec"] in ("bundled:ngrams", "bundled:columns")


def _head(manifest: Mapping[str, Any]) -> str:
    task = manifest["task"].replace("-", " ")
    labels = f"{'any number of' if manifest['multilabel'] else 'one of'} {len(manifest['labels'])} labels"
    given = f"a number, its {_plain(manifest['labels'][0])}" if _is_numeric(manifest) else labels
    below = "counted" if _is_counted(manifest) else "the frozen backbone"
    one = {"text": "a text", "row": "a row"}.get(_modality(manifest), "an image")
    return (
        f"# {_plain(manifest['name'] or task)}\n\n"
        f"Made by Topwork {manifest['topwork']} for {task}: {one} gets {given}.\n"
        f"Head: `{manifest['head']['method']}`, on {below} {_plain(manifest['backbone']['name'])}.\n"
    )


def _measured(metrics: Mapping[str, Metric], measured_on: str, proof: str) -> str:
    rows = [
        f"| {_plain(name.replace('_', ' '))} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.n:,} |"
        for name, m in metrics.items()
    ]
    table = "\n".join(["| metric | value | 95 % interval | items |", "|---|---|---|---|", *rows])
    proven = f"\nSaved and trained model compared by a new process: {proof}.\n" if proof else ""
    return f"## Measured\n\nOn {_plain(measured_on)}. More in report.html.\n\n{table}\n{proven}"


def _labels(manifest: Mapping[str, Any]) -> str:
    labels, about = manifest["labels"], manifest["calibration"]
    if _is_numeric(manifest):
        from topwork.tasks.regression import written

        unit = about["high"] - about["low"]
        low, high = (f"{'+' if about[side] >= 0 else ''}{written(about[side], unit)}" for side in ("low", "high"))
        said = f"Nine of ten truths are expected between {low} and {high} of the number that is said."
        return f"## What is measured\n\n{_plain(labels[0])}. {said}\n"
    shown = ", ".join(_plain(label) for label in labels[:MOST_LABELS])
    more = f", and {len(labels) - MOST_LABELS:,} more: see model.json" if len(labels) > MOST_LABELS else ""
    return f"## Labels\n\n{shown}{more}\n"


def _made_of(manifest: Mapping[str, Any]) -> str:
    backbone, data = manifest["backbone"], manifest["data"]
    lines = [f"* {_plain(key)}: {_plain(value)}" for key, value in data.items() if isinstance(value, (str, int, float))]
    facts = {
        "backbone": f"{backbone['name']} ({backbone['spec']})",
        "architecture": backbone["architecture"],
        "licence": backbone["licence"] or ("none: nothing of it was pretrained" if _is_counted(manifest) else _UNKNOWN),
        "trained on": backbone["trained_on"],
        "origin": backbone["origin"],
        "weights": backbone["weights"],
    }
    return "\n".join(
        ["## Data", "", *(lines or ["* not recorded"]), "", "## Backbone", ""]
        + [f"* {key}: {_plain(value)}" for key, value in facts.items() if value]
        + [""]
    )


def _limits(manifest: Mapping[str, Any], recall: Mapping[str, Metric]) -> str:
    names = {"text": ("text", "is about none"), "row": ("row", "is like none")}
    one, none = names.get(_modality(manifest), ("picture", "shows none"))
    lines = [
        f"* Measured on {one}s like those it was trained on; on others it may do worse, nobody has measured how much."
    ]
    if _is_numeric(manifest):
        lines.append(f"* Gives a number for every {one}, also for one that {none} of what it was trained on.")
    elif not manifest["multilabel"]:
        lines.append(f"* Names one of its labels for every {one}, also for one that {none} of them.")
    if manifest["head"]["kind"] == "knn":
        lines.append(f"* Holds the features of its training {one}s: pass it on only where these may be passed on.")
    if masked := manifest.get("redact"):
        lines.append(
            f"* Texts are masked before they are read, as in training: {_plain(', '.join(masked['kinds']))}. Topwork "
            "does so by itself; who asks the graph alone masks first, by topwork.modalities.redaction.Redaction."
        )
    if _is_counted(manifest):
        lines.append(
            f"* Whether a word was in its training {one}s can be told: pass it on only where that may be known."
        )
    lines += [
        f"* Weak: {_plain(label)}, of which {m} are found (95 % interval, n = {m.n:,})." for label, m in _weak(recall)
    ]
    return "\n".join(["## Limits", "", *lines, ""])


def _weak(recall: Mapping[str, Metric]) -> list[tuple[str, Metric]]:
    """Labels whose whole interval lies below the mean recall, worst first."""
    if not recall:
        return []
    mean = sum(m.value for m in recall.values()) / len(recall)
    below = [(label, m) for label, m in recall.items() if m.high < mean]
    return sorted(below, key=lambda pair: pair[1].value)[:MOST_WEAK]


def _plain(text: Any) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
