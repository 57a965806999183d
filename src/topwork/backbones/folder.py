"""A backbone in a folder: what its files are, says which of three layouts it has.

card.json           ours: card.json and a safetensors file, or an ONNX file, or both (below)
config.json         timm's on the hub: config.json with "architecture", model.safetensors (`timm_folder.py`)
                    transformers': config.json with "model_type", preprocessor_config.json, model.safetensors
                    (`transformers_folder.py`), or a text encoder with tokenizer.json (`text_folder.py`)

A card.json of modality "text" is that of a static embedding (`static_text.py`). Another one
card.json needs   file, architecture, input_size [3, S, S], resize_short_side, mean, std
      may hold    name, sha256, files {NAME: {sha256}}, interpolation, fit, colour_order, num_features, num_parameters,
                  multiply_adds, licence, trained_on, source, onnx {file, input, output | outputs, layout, pool},
                  grids {stage: cells a side}: means over cells of earlier stages beside the last features (timm)
Where "file" is an ONNX file, resize_short_side, architecture and the "onnx" block may be missing.
Hashes in the card are checked whenever the folder is opened. With ONNX the trunk runs without torch.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topwork.backbones.architecture import Architecture, parse
from topwork.backbones.card_json import card, checked_hash, inside, read_json
from topwork.backbones.onnx_ends import Ends
from topwork.backbones.onnx_file import OnnxBackbone
from topwork.backbones.torch_backbone import TorchBackbone
from topwork.errors import BadWeights, WeightsNotHere
from topwork.store import weights
from topwork.types import Backbone

if TYPE_CHECKING:
    from torch import nn

NEEDED = ("file", "architecture", "input_size", "resize_short_side", "mean", "std")
NEEDED_ONNX = ("file", "input_size", "mean", "std")


def open_folder(folder: Path, spec: str) -> Backbone:
    """The backbone that a folder holds; its files are checked against its card."""
    if (folder / "card.json").is_file():
        if read_json(folder / "card.json").get("modality") == "text":
            from topwork.backbones.static_text import open_static

            return open_static(folder, spec)
        return _open_card(folder, spec)
    if not (folder / "config.json").is_file():
        raise WeightsNotHere(
            f"{folder} has no card.json and no config.json. A backbone folder holds card.json and a safetensors or "
            "ONNX file, or is a folder of timm or transformers with config.json and model.safetensors"
        )
    config = read_json(folder / "config.json")
    if "architecture" in config:
        from topwork.backbones.timm_folder import open_timm

        return open_timm(folder, config, spec)
    from topwork.backbones.text_folder import open_text, reads_text

    if reads_text(config):
        return open_text(folder, config, spec)
    from topwork.backbones.transformers_folder import open_transformers

    return open_transformers(folder, config, spec)


def open_onnx_of_card(file: Path, spec: str) -> Backbone:
    """The ONNX file of a folder, by what the folder's card says about it: as its "file" or in its "onnx" block."""
    facts = read_json(file.parent / "card.json")
    block = facts.get("onnx")
    named = {facts.get("file"), block.get("file") if isinstance(block, dict) else None}
    if file.name not in named:
        names = ", ".join(sorted(str(name) for name in named if name))
        raise BadWeights(f"{file.parent / 'card.json'} is about {names}, not about {file.name}. Give mean and std")
    return _open_card(file.parent, spec)


def _open_card(folder: Path, spec: str) -> Backbone:
    where = folder / "card.json"
    facts = _facts(where)
    file = inside(folder, str(facts["file"]), where)
    found = checked_hash(file, facts, where)
    if file.suffix.lower() == ".onnx":
        from topwork.backbones.onnx_read import content

        found = content(file, found)
        ends = _ends(facts.get("onnx") or {}, facts, where)
        made = card(facts, spec, f"ONNX {file.name}{_with(ends.text)}", found, where)
        return OnnxBackbone(made, file, ends)
    weights.shapes(file)  # readable, and no pickle
    grids = _grids(facts, where)
    if "onnx" not in facts:
        if str(facts.get("colour_order") or "").upper().startswith("BGR"):
            raise BadWeights(f"{where}: colour_order is BGR; only ONNX files can be fed blue first. Expected RGB")
        architecture = parse(facts["architecture"], str(where))
        return TorchBackbone(
            card(facts, spec, f"{architecture}{_with(f'grids {grids}' if grids else '')}", found, where),
            partial(_build, architecture, file, grids),
        )
    return _with_graph(folder, facts, spec, file, found, grids)


def _with_graph(
    folder: Path, facts: dict[str, Any], spec: str, file: Path, found: str, grids: dict[int, int]
) -> Backbone:
    """Safetensors and the same trunk as an ONNX file."""
    where, onnx = folder / "card.json", facts["onnx"]
    if not isinstance(onnx, dict) or not onnx.get("file"):
        raise BadWeights(f"{where}: its 'onnx' block lacks 'file'. It needs file, input and output")
    graph = inside(folder, str(onnx["file"]), where)
    version = checked_hash(graph, facts, where)
    ends = _ends(onnx, facts, where)
    unusual = dataclasses.replace(ends, input="", output="" if ends.output == "features" else ends.output).text
    text = f"{facts['architecture']} as {graph.name} {version[:16]}{_with(unusual)}"
    made = card(facts, spec, text, found, where)
    try:
        build = partial(_build, parse(facts["architecture"], str(where)), file, grids)
    except BadWeights:
        build = None  # prose about a graph: enough for a frozen trunk
    return OnnxBackbone(made, graph, ends, build)


def _facts(path: Path) -> dict[str, Any]:
    facts = read_json(path)
    needed = NEEDED_ONNX if str(facts.get("file", "")).lower().endswith(".onnx") else NEEDED
    missing = [key for key in needed if facts.get(key) is None]
    if missing:
        raise BadWeights(f"{path} lacks {', '.join(missing)}. A card needs: {', '.join(needed)}")
    return facts


def _ends(onnx: dict[str, Any], facts: dict[str, Any], path: Path) -> Ends:
    order = "BGR" if str(facts.get("colour_order") or "").upper().startswith("BGR") else "RGB"
    ends = Ends(
        _name(onnx, "input", path),
        _name(onnx, "output", path),
        str(onnx.get("layout") or ""),  # type: ignore[arg-type]
        order,
        str(onnx.get("pool") or ""),  # type: ignore[arg-type]
    )
    ends.check(str(path))
    return ends


def _name(onnx: dict[str, Any], which: str, path: Path) -> str:
    """The name of the graph's input or feature output: `output`, else the one called features among `outputs`."""
    text = str(onnx.get(which) or onnx.get(f"{which}s") or "")
    names = re.findall(r"([\w./:-]+)\s*(?:\[[^\]]*\])?\s*(?:,|$)", text)  # "logits [batch,1000], features [batch,256]"
    if len(names) > 1 and "features" in names:
        return "features"
    if text and len(names) != 1:
        raise BadWeights(
            f"{path}: onnx.{which} '{text}' names {len(names)} tensors. Expected one, or one called features"
        )
    return names[0] if names else ""


def _grids(facts: dict[str, Any], path: Path) -> dict[int, int]:
    """Stage -> cells a side, from a card."""
    try:
        grids = {int(stage): int(cells) for stage, cells in (facts.get("grids") or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadWeights(f'{path}: grids must map stages to whole numbers, such as {{"1": 4}}') from error
    if any(stage < 0 or cells < 1 for stage, cells in grids.items()):
        raise BadWeights(f"{path}: grids {grids}: expected stages from 0 and at least one cell")
    return grids


def _with(text: str) -> str:
    return f" + {text}" if text else ""


def _build(architecture: Architecture, file: Path, grids: dict[int, int]) -> nn.Module:
    from topwork.backbones import trunk

    return trunk.build(architecture, lambda network: trunk.fill(network, trunk.load(file), str(file)), grids)
