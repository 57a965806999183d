"""The artefact's folder: what lies in it, how it is written, how a damaged one is told.

    model.json          task, labels, preprocessing, backbone, head, calibration, data, history, checksums; written last
    model.onnx          pixels uint8 (N, H, W, 3), or ids and weights (W, L) of a text
                        -> probabilities (N, C), logits (N, C), features (N, D)
    model.safetensors   the same weights as arrays: trunk.*, head.*
    statistics.safetensors   what `extend` needs to know of the classes: counts, means, one covariance; may be absent
    snapshot.safetensors     which items it was made from, as hashes, for `fit --since`; may be absent
    reader.json         of texts and rows: how they become numbers, with the files that it names (a vocabulary, ...)
    README.md           model card        report.html, report.json   the numbers

An encrypted one holds the same files, each sealed (sealed.py); `contents` opens either kind.

None of the first six holds a time or seconds: the same fit gives the same bits. The last three are for reading; they
may be edited or left out, so no checksum covers them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topwork import settings
from topwork.artefact.sealed import FORMAT as SEALED
from topwork.artefact.sealed import SUFFIX, Seal
from topwork.errors import BadWeights, StoreError
from topwork.modalities.text import READER
from topwork.store.atomic import new_folder
from topwork.types import VERSION, WRITTEN, Card, Head, Preprocess

FORMAT = 1
MARKER = "model.json"
CHECKED = ("model.onnx", "model.safetensors")
STATISTICS = "statistics.safetensors"
SNAPSHOT = "snapshot.safetensors"
_OPTIONAL = (STATISTICS, SNAPSHOT)
_OTHERS = (*CHECKED, *_OPTIONAL, MARKER, "README.md", "report.html", "report.json")


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
    snapshot: bytes | None = None,
    redact: Mapping[str, Any] | None = None,
    reader: Mapping[str, bytes] | None = None,
    encrypt: bool = False,
) -> dict[str, Any]:
    """Fill a folder with a model that `load` can open; returns what model.json holds. `reader`: Reader.files().

    `redact`: how texts are masked before they are read, Redaction.facts().
    `encrypt`: also where the settings do not ask for it.
    """
    backbone = dataclasses.asdict(card)
    held: dict[str, bytes] = dict(zip(CHECKED, (onnx, weights), strict=True))
    read_by = _reader_names(card.modality, reader or {})
    held |= {file: (reader or {})[file] for file in read_by}
    held |= {file: data for file, data in zip(_OPTIONAL, (statistics, snapshot), strict=True) if data is not None}
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
        **({"redact": dict(redact)} if redact else {}),
        **({"reader": read_by} if read_by else {}),
        "files": {file: {"bytes": len(content), "sha256": _sha256(content)} for file, content in held.items()},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    seal = Seal.new() if encrypt or settings.encrypted() else None
    _put(folder, {**held, MARKER: text.encode()}, seal)
    if seal is not None:
        (folder / MARKER).write_text(json.dumps(seal.header(), indent=2) + "\n")
    return json.loads(text)


def add(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files for readers (README.md, report.html, report.json) beside the model; sealed as it is."""
    _put(folder, files, seal_of(folder))


def seal_of(folder: Path) -> Seal | None:
    """What opens the files of an encrypted folder, with the key that the settings name; None for a plain one."""
    header = _header(folder)
    return Seal.of(folder, header) if header["format"] == SEALED else None


def contents(folder: Path, file: str, seal: Seal | None = None) -> bytes:
    """One file of a folder, opened if it is encrypted; FileNotFoundError where there is none."""
    seal = seal or seal_of(folder)
    return (folder / file).read_bytes() if seal is None else seal.read(folder, file)


def decrypt(folder: Path, out: Path) -> list[str]:
    """Write all files of an encrypted folder to `out` in the clear; returns their names."""
    seal = seal_of(folder)
    if seal is None:
        raise StoreError(f"{folder} is not encrypted: it can be used as it is")
    if out.resolve() == folder.resolve():
        raise StoreError(f"--out {out} is the model itself. Choose another folder")
    read(folder, seal)
    names = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    opened = {name: seal.read(folder, name) for name in names}
    with new_folder(out, MARKER) as building:
        _put(building, opened, None)
    return names


def _put(folder: Path, files: Mapping[str, bytes], seal: Seal | None) -> None:
    for file, content in files.items():
        if seal is None:
            (folder / file).write_bytes(content)
        else:
            seal.write(folder, file, content)


def read(folder: Path, seal: Seal | None = None) -> dict[str, Any]:
    """What model.json holds, after the weights have been compared with their checksums."""
    manifest, seal = _header(folder), seal or seal_of(folder)
    if seal is not None:
        try:
            manifest = json.loads(seal.read(folder, MARKER))
        except FileNotFoundError as error:
            raise BadWeights(f"{folder / MARKER}{SUFFIX} is missing. Copy the whole folder of the model") from error
    known = manifest.get("files", {})
    for file in (*CHECKED, *(file for file in _OPTIONAL if file in known), *_reader_of(folder, manifest)):
        _check(folder, file, known.get(file, {}).get("sha256", ""), seal)
    return manifest


def _header(folder: Path) -> dict[str, Any]:
    """What model.json holds in the clear."""
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
    if found != FORMAT and not (found == SEALED and isinstance(manifest.get("encrypted"), dict)):
        cure = "Upgrade with: pip install -U topwork" if isinstance(found, int) and found > FORMAT else "Fit again"
        raise StoreError(f"{folder / MARKER} has format {found!r}; Topwork {VERSION} reads {FORMAT}. {cure}")
    return manifest


def reader_files(folder: Path, manifest: Mapping[str, Any], seal: Seal | None = None) -> dict[str, bytes]:
    """What the reader of a model of texts was saved as; nothing for images."""
    return {file: contents(folder, file, seal) for file in _reader_of(folder, manifest)}


def card_of(manifest: Mapping[str, Any]) -> Card:
    """The backbone's card inside a manifest."""
    p = manifest["preprocess"]
    preprocess = Preprocess(**{**p, "mean": tuple(p["mean"]), "std": tuple(p["std"])})
    return Card(**manifest["backbone"], preprocess=preprocess)


def _reader_names(modality: str, reader: Mapping[str, bytes]) -> list[str]:
    """Its files, READER first, once they fit beside the others."""
    if (modality in WRITTEN) != (READER in reader):
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


def _check(folder: Path, name: str, expected: str, seal: Seal | None) -> None:
    path = folder / name
    try:
        if seal is not None:
            found = _sha256(seal.read(folder, name))
        else:
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
