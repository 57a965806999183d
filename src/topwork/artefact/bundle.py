"""The artefact's folder: what lies in it, how it is written, how a damaged one is told.

    model.json          task, labels, preprocessing, backbone, head, calibration, data, history, checksums; written last
    model.onnx          pixels uint8 (N, H, W, 3), or ids and weights (W, L) of a text
                        -> probabilities (N, C), logits (N, C), features (N, D)
    model.safetensors   the same weights as arrays: trunk.*, head.*
    statistics.safetensors   what `extend` needs to know of the classes: counts, means, one covariance; may be absent
    reader.json         of texts: how they become numbers, with the files that it names (a vocabulary, tokenizer.json)
    README.md           model card        report.html, report.json   the numbers

None of the first five holds a time or seconds: the same fit gives the same bits. The last three are for reading; they
may be edited or left out, so no checksum covers them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topwork.errors import BadWeights, StoreError
from topwork.modalities.text import READER
from topwork.types import VERSION, Card, Head, Preprocess

FORMAT = 1
MARKER = "model.json"
CHECKED = ("model.onnx", "model.safetensors")
STATISTICS = "statistics.safetensors"
_OTHERS = (*CHECKED, STATISTICS, MARKER, "README.md", "report.html", "report.json")


def write(
    folder: Path,
    *,
    onnx: bytes,
    weights: bytes,
    card: Card,
    head: Head,
    labels: Sequence[str],
    task: str,
    multilabel: bool = False,
    name: str = "",
    calibration: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    history: Sequence[str] = (),
    statistics: bytes | None = None,
    reader: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Fill a folder with a model that `load` can open; returns what model.json holds. `reader`: Reader.files()."""
    backbone = dataclasses.asdict(card)
    contents: dict[str, bytes] = dict(zip(CHECKED, (onnx, weights), strict=True))
    read_by = _reader_names(card.modality, reader or {})
    contents |= {file: (reader or {})[file] for file in read_by}
    if statistics is not None:
        contents[STATISTICS] = statistics
    manifest = {
        "format": FORMAT,
        "topwork": VERSION,
        "name": name,
        "task": task,
        "modality": card.modality,
        "labels": list(labels),
        "multilabel": multilabel,
        "preprocess": backbone.pop("preprocess"),
        "backbone": backbone,
        "head": {
            "kind": head.kind,
            "method": head.method,
            "settings": {key: float(value) for key, value in head.settings.items()},
            "activation": head.activation,
            "temperature": float(head.temperature),
        },
        "calibration": dict(calibration or {}),
        "data": dict(data or {}),
        "history": list(history),
        **({"reader": read_by} if read_by else {}),
        "files": {file: {"bytes": len(content), "sha256": _sha256(content)} for file, content in contents.items()},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    add(folder, contents)
    add(folder, {MARKER: text.encode()})
    return json.loads(text)


def add(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files for readers (README.md, report.html, report.json) beside the model."""
    for file, content in files.items():
        (folder / file).write_bytes(content)


def read(folder: Path) -> dict[str, Any]:
    """What model.json holds, after the weights have been compared with their checksums."""
    if not folder.is_dir():
        raise StoreError(f"{folder} is not a folder. Expected the folder of a model, as `topwork fit` writes it")
    try:
        manifest = json.loads((folder / MARKER).read_bytes())
        found = manifest["format"]
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is not a Topwork model: there is no {MARKER} in it") from error
    except OSError as error:
        raise StoreError(f"{folder / MARKER} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{folder / MARKER} is damaged: it is not the JSON that Topwork writes. Fit again") from error
    if found != FORMAT:
        cure = "Upgrade with: pip install -U topwork" if isinstance(found, int) and found > FORMAT else "Fit again"
        raise StoreError(f"{folder / MARKER} has format {found!r}; Topwork {VERSION} reads {FORMAT}. {cure}")
    known = manifest.get("files", {})
    for file in (*CHECKED, *((STATISTICS,) if STATISTICS in known else ()), *_reader_of(folder, manifest)):
        _check(folder / file, known.get(file, {}).get("sha256", ""))
    return manifest


def reader_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """What the reader of a model of texts was saved as; nothing for images."""
    return {file: (folder / file).read_bytes() for file in _reader_of(folder, manifest)}


def card_of(manifest: Mapping[str, Any]) -> Card:
    """The backbone's card inside a manifest."""
    p = manifest["preprocess"]
    preprocess = Preprocess(**{**p, "mean": tuple(p["mean"]), "std": tuple(p["std"])})
    return Card(**manifest["backbone"], preprocess=preprocess)


def _reader_names(modality: str, reader: Mapping[str, bytes]) -> list[str]:
    """Its files, READER first, once they fit beside the others."""
    if (modality == "text") != (READER in reader):
        raise BadWeights(f"A model of {modality}s and the files {', '.join(sorted(reader)) or 'of no reader'}: no pair")
    names = sorted(reader, key=lambda name: (name != READER, name))
    if wrong := [name for name in names if not _is_plain(name) or name in _OTHERS]:
        raise BadWeights(f"A reader cannot be saved as {wrong[0]!r}. Expected a file name of its own")
    return names


def _reader_of(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    names = manifest.get("reader", [])
    known = manifest.get("files", {})
    if isinstance(names, list) and all(isinstance(name, str) and _is_plain(name) and name in known for name in names):
        return names
    raise StoreError(f"{folder / MARKER} is damaged: it names no reader's files. Fit again")


def _is_plain(name: str) -> bool:
    """A name inside the folder, on every system."""
    return bool(name) and not name.startswith(".") and not set(name) & set('/\\:*?"<>|\0')


def _check(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise BadWeights(f"{path} is missing. Copy the whole folder of the model") from error
    except OSError as error:
        raise BadWeights(f"{path} cannot be read: {error.strerror or error}") from error
    if found != expected:
        raise BadWeights(f"{path} was changed after it was written: its sha256 is {found}, {MARKER} says {expected}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
