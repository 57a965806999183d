"""What a card says, as facts in plain JSON, turned into the house's records; nothing is believed that cannot be.

preprocess(facts, where)     input_size, resize_short_side, mean, std, interpolation, fit -> Preprocess
card(facts, ...)             -> Card
inside(folder, name)         a file of the folder, never one outside it
checked_hash(file, facts)    the file's sha256, compared with what the card says
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from topwork.errors import BadWeights, WeightsNotHere
from topwork.store import weights
from topwork.types import Card, Preprocess

LARGEST_JSON_BYTES = 20_000_000
Facts = Mapping[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise BadWeights(f"{path} takes {path.stat().st_size / 1e6:.0f} MB: no card is as long as that")
        facts = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, BadWeights):
            raise
        raise BadWeights(f"{path} is not readable JSON: {error}") from error
    if not isinstance(facts, dict):
        raise BadWeights(f"{path} holds a {type(facts).__name__}, expected an object with facts")
    return facts


def inside(folder: Path, name: str, said_by: Path) -> Path:
    """A file in a folder; a name or a link that leads out of it is refused."""
    path = folder / name
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise BadWeights(f"{said_by} names '{name}', which is not inside its folder. It must be a file beside it")
    home, place = folder.resolve(), path.resolve()
    # the hub's cache keeps its files as links: snapshots/COMMIT/NAME -> ../../blobs/HASH
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (place.is_relative_to(home) or place.is_relative_to(blobs)):
        raise BadWeights(f"{path} is a link to {place}, outside its folder. Copy the file there")
    weights.refuse_pickle(path)
    if not path.is_file():
        raise WeightsNotHere(f"{path} does not exist, but {said_by} names it. Copy it there")
    return path


def weights_file(folder: Path, names: Sequence[str], said_by: Path) -> Path:
    """The first of these files that a folder of a hub holds; says what lies there instead."""
    for name in names:
        if (folder / name).exists():
            return inside(folder, name, said_by)
    for path in sorted(folder.iterdir()):
        weights.refuse_pickle(path)
    parts = " (weights in several parts are not read)" if (folder / f"{names[0]}.index.json").exists() else ""
    raise WeightsNotHere(f"{folder} has no {names[0]}{parts}. Copy it there, or save the model again as one file")


def checked_hash(file: Path, facts: Facts, said_by: Path) -> str:
    """The file's sha256, compared with what the card says about it, and the hub's cache by its name."""
    files = facts.get("files")
    own = files.get(file.name) if isinstance(files, dict) else None
    said = own.get("sha256") if isinstance(own, dict) else None
    said = said or (facts.get("sha256") if file.name == facts.get("file") else None)
    blob = file.resolve().name
    if not said and re.fullmatch("[0-9a-f]{64}", blob):
        return weights.check_hash(file, blob, "the hub's cache")
    return weights.check_hash(file, str(said), str(said_by)) if said else weights.sha256(file)


def card(facts: Facts, spec: str, architecture: str, sha256: str, where: Path) -> Card:
    """The record."""
    count = re.search(r"->\s*(\d+)\s*(;|$)", str(facts.get("features", "")))  # "model.features(x).mean((2,3)) -> 512"
    return Card(
        spec=spec,
        name=str(facts.get("name") or where.parent.name),
        architecture=architecture,
        preprocess=preprocess(facts, where),
        weights=sha256,
        features=_count(facts, "num_features", where) or (int(count[1]) if count else None),
        parameters=_count(facts, "num_parameters", where),
        multiply_adds=_count(facts, "multiply_adds", where),
        licence=str(facts.get("licence") or facts.get("license") or ""),
        trained_on=str(facts.get("trained_on") or ""),
        origin=str(facts.get("source") or ""),
    )


def preprocess(facts: Facts, where: Path | str) -> Preprocess:
    """What the pixels must look like."""
    size, colours = facts["input_size"], str(facts.get("colour_order") or "RGB")
    whole = isinstance(size, list | tuple) and len(size) == 3 and all(type(side) is int for side in size)
    if not (whole and size[0] == 3 and size[1] == size[2]):
        raise BadWeights(f"{where}: input_size is {size}, expected [3, S, S]")
    if not colours.upper().startswith(("RGB", "BGR")):
        raise BadWeights(f"{where}: colour_order is '{colours}', expected RGB or BGR")
    kind = re.match(r"\w*", str(facts.get("interpolation") or "bilinear").lower())
    interpolation, fit = kind[0] if kind else "", facts.get("fit", "crop")
    if interpolation not in ("bilinear", "bicubic", "nearest") or fit not in ("crop", "squash"):
        raise BadWeights(
            f"{where}: interpolation '{interpolation}', fit '{fit}'. Expected bilinear, bicubic, nearest; crop, squash"
        )
    try:
        mean, std = (tuple(float(value) for value in facts[key]) for key in ("mean", "std"))
        crop_px = int(size[1])
        resize_px = int(facts.get("resize_short_side") or crop_px)
    except (TypeError, ValueError) as error:
        raise BadWeights(
            f"{where}: mean and std must be three numbers, resize_short_side and input_size whole ones"
        ) from error
    finite = all(map(math.isfinite, (*mean, *std)))
    if not finite or len(mean) != 3 or len(std) != 3 or not min(std) > 0 or not 1 <= crop_px <= resize_px <= 8192:
        raise BadWeights(
            f"{where}: mean {mean}, std {std}, resize_short_side {resize_px}, input {crop_px} px. Expected three "
            "numbers each, std above 0, and a resize_short_side of at least the input's side"
        )
    if colours.upper().startswith("BGR"):  # written in the order in which the model sees them
        mean, std = mean[::-1], std[::-1]
    return Preprocess(resize_px, crop_px, mean, std, interpolation, fit)  # type: ignore[arg-type]


def _count(facts: Facts, key: str, where: Path) -> int | None:
    value = facts.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise BadWeights(f"{where}: {key} is {value!r}, expected a whole number")
    return value
