"""Write a trained timm network as a backbone folder that `local:FOLDER` opens: model.safetensors and card.json.

    write(folder, network, "mobilenetv2_100", preprocess, {"name": "mine", "trained_on": "...", "method": "..."})

The card's numbers are counted on the network as it was written (rounded to float16 where `half`): features,
parameters, multiply-adds. Its architecture is proven by building it anew, filling it from the file and comparing the
features of both networks on random images. The folder appears at once, or not at all.

This file needs torch.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from topwork.backbones.architecture import parse
from topwork.backbones.folder import open_folder
from topwork.backbones.trunk import TOLERANCE, TimmTrunk
from topwork.errors import BadSetting, BadWeights, ProofFailed
from topwork.store import weights
from topwork.store.atomic import new_folder
from topwork.types import Preprocess

MARKER, FILE = "card.json", "model.safetensors"


def write(
    folder: Path,
    network: nn.Module,
    architecture: str,
    preprocess: Preprocess,
    facts: Mapping[str, Any],
    *,
    half: bool = False,
) -> None:
    """Write the folder; an older one of ours in its place is replaced. `network` is left as it was.

    architecture   a name of timm, or the whole call: "timm.create_model('NAME', img_size=96, num_classes=0)"
    facts          what else the card should say: name, trained_on, licence, grids, scores ...; nothing that is counted
    half           float16 on disk
    """
    call = f"timm.create_model('{architecture}', pretrained=False, num_classes=0)"
    call = call if re.fullmatch(r"[\w.]+", architecture) else architecture
    if parse(call, "architecture").library != "timm":
        raise BadSetting(f"Only timm networks are written as folders, not '{call}'")
    trunk = TimmTrunk(copy.deepcopy(network).cpu().float(), _grids(facts)).eval()
    state = {name: _plain(name, value, half) for name, value in trunk.network.state_dict().items()}
    trunk.network.load_state_dict(state)  # what is counted and compared is what is written
    with new_folder(folder, MARKER) as building:
        file = building / FILE
        save_file(state, file, metadata={"format": "pt"})
        images = _images(preprocess)
        with torch.no_grad():
            features = trunk(images)  # (2, D)
        counted = {
            "file": FILE,
            "sha256": weights.sha256(file),
            "bytes": file.stat().st_size,
            "architecture": call,
            "input_size": [3, preprocess.crop_px, preprocess.crop_px],
            "resize_short_side": preprocess.resize_px,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "fit": preprocess.fit,
            "num_features": features.shape[1],
            "num_parameters": sum(p.numel() for p in trunk.network.parameters()),
            "multiply_adds": multiply_adds(trunk, images[:1]),
        }
        if told := sorted(counted.keys() & facts.keys()):
            raise BadSetting(f"facts must not hold {', '.join(told)}: the card counts or is told these otherwise")
        (building / MARKER).write_text(json.dumps(dict(facts) | counted, indent=2) + "\n")
        _prove(building, images, features)


def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of the matrix products and convolutions of one forward pass, attention included."""
    modes = [(part, part.training) for part in module.modules()]
    learning = [p for p in module.parameters() if p.requires_grad]
    module.eval().requires_grad_(False)  # the counter cannot follow parameters that are fed to layers as inputs
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs)
    finally:
        for part, training in modes:
            part.training = training
        for parameter in learning:
            parameter.requires_grad_(True)
    return counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two


def _plain(name: str, value: Tensor, half: bool) -> Tensor:
    """A tensor as it goes to disk."""
    value = value.detach()
    if not value.isfinite().all():
        raise BadWeights(f"{name} holds values that are not finite: the training diverged. Nothing was written")
    stored = value.half() if half and value.is_floating_point() else value
    if not stored.isfinite().all():
        raise BadWeights(f"{name} holds values above float16's largest, 65504: write it with half=False")
    return stored.clone(memory_format=torch.contiguous_format)


def _images(preprocess: Preprocess) -> Tensor:
    """Two random images, normalised as the network wants them."""
    pixels = torch.rand(2, 3, preprocess.crop_px, preprocess.crop_px, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (pixels - mean) / std


def _grids(facts: Mapping[str, Any]) -> dict[int, int]:
    return {int(stage): int(cells) for stage, cells in (facts.get("grids") or {}).items()}


def _prove(folder: Path, images: Tensor, expected: Tensor) -> None:
    """Open the folder as a user will, and compare."""
    module = open_folder(folder, f"local:{folder}").module()
    with torch.no_grad():
        gap = float((module(images) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not gap <= TOLERANCE:
        raise ProofFailed(
            f"The network that the card describes gives other features: {gap:.1e} of the largest (at most "
            f"{TOLERANCE:.0e} allowed). Its architecture must name every option that the network was built with"
        )
