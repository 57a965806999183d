"""A backbone in a folder: card.json, a safetensors file, and perhaps the same trunk as an ONNX file.

card.json needs   file, architecture, input_size [3, S, S], resize_short_side, mean, std
      may hold    name, sha256, files {NAME: {sha256}}, interpolation, fit, colour_order, num_features, num_parameters,
                  multiply_adds, licence, trained_on, source, onnx {file, input, output | outputs},
                  grids {stage: cells a side}: means over cells of earlier stages beside the last features (timm)
Hashes in the card are checked whenever the folder is opened. With an "onnx" block the trunk runs without torch.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones.architecture import Architecture, parse
from topwork.backbones.onnx_file import OnnxBackbone
from topwork.backbones.torch_backbone import TorchBackbone
from topwork.errors import BadWeights, WeightsNotHere
from topwork.store import weights
from topwork.types import Backbone, Card, Preprocess

if TYPE_CHECKING:
    from torch import nn

NEEDED = ("file", "architecture", "input_size", "resize_short_side", "mean", "std")


def open_folder(folder: Path, spec: str) -> Backbone:
    """The backbone that a folder holds; its files are checked against its card."""
    facts = _facts(folder)
    card_file, file = folder / "card.json", folder / str(facts["file"])
    found = _hash(file, facts, card_file)
    weights.shapes(file)  # readable, and no pickle
    grids = _grids(facts, card_file)
    if "onnx" not in facts:
        architecture = parse(facts["architecture"], str(card_file))
        return TorchBackbone(
            _card(facts, spec, f"{architecture}{_with(grids)}", found, card_file),
            partial(_build, architecture, file, grids),
        )
    onnx = facts["onnx"]
    graph = folder / str(_need(onnx, "file", card_file))
    version = _hash(graph, facts, card_file)
    card = _card(facts, spec, f"{facts['architecture']} as {graph.name} {version[:16]}", found, card_file)
    try:
        build = partial(_build, parse(facts["architecture"], str(card_file)), file, grids)
    except BadWeights:
        build = None  # prose about a graph: enough for a frozen trunk
    return OnnxBackbone(card, graph, _ends(onnx, "input", card_file), _ends(onnx, "output", card_file), build)


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    if not path.is_file():
        raise WeightsNotHere(f"{folder} has no card.json. A backbone folder holds card.json and a safetensors file")
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise BadWeights(f"{path} is not readable JSON: {error}") from error
    missing = [key for key in NEEDED if not (isinstance(facts, dict) and facts.get(key) is not None)]
    if missing:
        raise BadWeights(f"{path} lacks {', '.join(missing)}. A card needs: {', '.join(NEEDED)}")
    return facts


def _hash(file: Path, facts: dict[str, Any], card_file: Path) -> str:
    """The file's sha256, compared with what the card says about it."""
    weights.refuse_pickle(file)
    if not file.is_file():
        raise WeightsNotHere(f"{file} does not exist, but {card_file} names it. Copy it there")
    said = (facts.get("files") or {}).get(file.name, {}).get("sha256")
    said = said or (facts.get("sha256") if file.name == facts["file"] else None)
    return weights.check_hash(file, said, str(card_file)) if said else weights.sha256(file)


def _card(facts: dict[str, Any], spec: str, architecture: str, sha256: str, path: Path) -> Card:
    count = re.search(r"->\s*(\d+)\s*(;|$)", str(facts.get("features", "")))  # "model.features(x).mean((2,3)) -> 512"
    features = facts.get("num_features") or (int(count[1]) if count else None)
    return Card(
        spec=spec,
        name=str(facts.get("name") or path.parent.name),
        architecture=architecture,
        preprocess=_preprocess(facts, path),
        weights=sha256,
        features=features,
        parameters=facts.get("num_parameters"),
        multiply_adds=facts.get("multiply_adds"),
        licence=str(facts.get("licence", "")),
        trained_on=str(facts.get("trained_on", "")),
        origin=str(facts.get("source", "")),
    )


def _preprocess(facts: dict[str, Any], path: Path) -> Preprocess:
    size, colours = facts["input_size"], str(facts.get("colour_order") or "RGB")
    if not (isinstance(size, list) and len(size) == 3 and size[0] == 3 and size[1] == size[2]):
        raise BadWeights(f"{path}: input_size is {size}, expected [3, S, S]")
    if not colours.upper().startswith("RGB"):
        raise BadWeights(f"{path}: colour_order is '{colours}', expected RGB")
    kind = re.match(r"\w*", str(facts.get("interpolation") or "bilinear").lower())
    interpolation, fit = kind[0] if kind else "", facts.get("fit", "crop")
    if interpolation not in ("bilinear", "bicubic", "nearest") or fit not in ("crop", "squash"):
        raise BadWeights(
            f"{path}: interpolation '{interpolation}', fit '{fit}'. Expected bilinear, bicubic, nearest; crop, squash"
        )
    try:
        mean, std = (tuple(float(value) for value in facts[key]) for key in ("mean", "std"))
        resize_px, crop_px = int(facts["resize_short_side"]), int(size[1])
    except (TypeError, ValueError) as error:
        raise BadWeights(
            f"{path}: mean and std must be three numbers, resize_short_side and input_size whole ones"
        ) from error
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0 or not 1 <= crop_px <= resize_px:
        raise BadWeights(
            f"{path}: mean {mean}, std {std}, resize_short_side {resize_px}, input {crop_px} px. Expected three "
            "numbers each, std above 0, and a resize_short_side of at least the input's side"
        )
    return Preprocess(resize_px, crop_px, mean, std, interpolation, fit)  # type: ignore[arg-type]


def _ends(onnx: dict[str, Any], which: str, path: Path) -> str:
    """The name of the graph's input or feature output: `output`, else the one called features among `outputs`."""
    text = str(_need(onnx, which if which in onnx else f"{which}s", path))
    names = re.findall(r"([\w./:-]+)\s*(?:\[[^\]]*\])?\s*(?:,|$)", text)  # "logits [batch,1000], features [batch,256]"
    if len(names) > 1 and "features" in names:
        return "features"
    if len(names) != 1:
        raise BadWeights(
            f"{path}: onnx.{which} '{text}' names {len(names)} tensors. Expected one, or one called features"
        )
    return names[0]


def _need(facts: dict[str, Any], key: str, path: Path) -> Any:
    if not isinstance(facts, dict) or not facts.get(key):
        raise BadWeights(f"{path}: its 'onnx' block lacks '{key}'. It needs file, input and output")
    return facts[key]


def _grids(facts: dict[str, Any], path: Path) -> dict[int, int]:
    """Stage -> cells a side, from a card."""
    try:
        grids = {int(stage): int(cells) for stage, cells in (facts.get("grids") or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadWeights(f'{path}: grids must map stages to whole numbers, such as {{"1": 4}}') from error
    if any(stage < 0 or cells < 1 for stage, cells in grids.items()):
        raise BadWeights(f"{path}: grids {grids}: expected stages from 0 and at least one cell")
    return grids


def _with(grids: dict[int, int]) -> str:
    return f" + grids {grids}" if grids else ""


def _build(architecture: Architecture, file: Path, grids: dict[int, int]) -> nn.Module:
    from safetensors.torch import load_file

    from topwork.backbones import trunk

    return trunk.build(architecture, lambda network: trunk.fill(network, load_file(file), str(file)), grids)
