"""ONNX files of any maker as frozen backbones: onnx:PATH(output='features', mean=(...), std=(...), size=224).

That is how networks of TensorFlow, Keras, MXNet and Caffe come in. mean and std have no default: wrong ones cost tens
of points and say nothing. `onnx:PATH` alone uses the card.json beside the file.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topwork import plugins
from topwork.backbones.card_json import card, checked_hash
from topwork.backbones.onnx_ends import Ends, Layout, Order, Pool
from topwork.backbones.onnx_file import OnnxBackbone
from topwork.errors import BadSetting, BadWeights, WeightsNotHere
from topwork.store.weights import refuse_pickle
from topwork.types import Backbone, Card

Numbers = float | tuple[float, float, float]


@dataclass(frozen=True)
class Options:
    """What an ONNX file does not say about itself."""

    mean: Numbers | None = None  # subtracted from pixels; in the order in which the model sees the colours
    std: Numbers | None = None  # then divided by
    scale: float = 1  # pixels come as 0..scale before that: 1 or 255
    size: int = 0  # side of the images in px; 0: what the file says
    resize: int = 0  # shorter side before the centre crop, px; 0: as size
    interpolation: str = "bilinear"  # or bicubic, nearest
    fit: str = "crop"  # or squash
    input: str = ""  # "": the only input
    output: str = ""  # "": the only output, or the one called features; inner tensors have names too
    layout: Layout = ""  # NCHW or NHWC; "": what the shape of the input says
    order: Order = "RGB"  # or BGR
    pool: Pool = ""  # of tokens (N, T, D): first or mean
    licence: str = ""

    @property
    def ends(self) -> Ends:
        """Where images go in and features come out."""
        return Ends(self.input, self.output, self.layout, self.order, self.pool)


@dataclass(frozen=True)
class Onnx:
    """ONNX files that the user names."""

    def cards(self) -> tuple[Card, ...]:
        """None: a file without a card says too little about itself; those with one are `local`."""
        return ()

    def load(self, name: str) -> Backbone:
        """The backbone in the file that `name` begins with."""
        path, options = _parse(name)
        file = Path(path).expanduser()
        refuse_pickle(file)
        if not file.is_file():
            raise WeightsNotHere(f"The file {file} does not exist (backbone 'onnx:{name}')")
        if options is None:
            return _from_card(file, name)
        return _from_options(file, options, f"onnx:{name}")


def _parse(name: str) -> tuple[str, Options | None]:
    """ "model.onnx(size=224)" -> path, options."""
    match = re.fullmatch(r"(.*?)\s*(\(.*\))?", name.strip(), re.DOTALL)
    path, call = (match[1], match[2]) if match else ("", "")
    if not path.lower().endswith(".onnx"):
        raise BadSetting(f"'onnx:{name}' names no file that ends in .onnx. Expected onnx:PATH.onnx(mean=..., std=...)")
    if not call:
        return path, None
    _, given = plugins.parse(f"onnx{call}")
    known = [field.name for field in dataclasses.fields(Options)]
    if unknown := sorted(given.keys() - set(known)):
        raise BadSetting(f"onnx has no option {', '.join(unknown)}. Its options: {', '.join(known)}")
    return path, Options(**given)


def _from_card(file: Path, name: str) -> Backbone:
    """The folder's card, if it is about this file."""
    where = file.parent / "card.json"
    if not where.is_file():
        raise BadSetting(
            f"onnx:{name} needs mean and std, e.g. onnx:{name}(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)) "
            "as most ImageNet networks of torch, (mean=0.5, std=0.5) as most of TensorFlow, (mean=0, std=1, scale=255) "
            "for raw pixels; or a card.json beside the file"
        )
    from topwork.backbones.folder import open_onnx_of_card

    return open_onnx_of_card(file, f"onnx:{name}")


def _from_options(file: Path, options: Options, spec: str) -> Backbone:
    missing = [key for key in ("mean", "std") if getattr(options, key) is None]
    if missing:
        raise BadSetting(f"{spec} lacks {', '.join(missing)}: what is taken off a pixel, and what it is divided by")
    if not isinstance(options.scale, int | float) or options.scale not in (1, 255):
        raise BadSetting(f"{spec}: scale {options.scale!r}. Expected 1 (pixels 0..1) or 255")
    options.ends.check(spec)
    from topwork.backbones.onnx_read import content

    size = options.size or _side(file, options)
    facts: dict[str, Any] = {
        "name": file.stem,
        "input_size": [3, size, size],
        "resize_short_side": options.resize or size,
        "mean": _three(options.mean, options.scale, spec),
        "std": _three(options.std, options.scale, spec),
        "interpolation": options.interpolation,
        "fit": options.fit,
        "colour_order": options.order,
        "licence": options.licence,
        "source": str(file),
    }
    found = content(file, checked_hash(file, {}, file))
    text = options.ends.text
    return OnnxBackbone(
        card(facts, spec, f"ONNX {file.name}{' + ' + text if text else ''}", found, file), file, options.ends
    )


def _side(file: Path, options: Options) -> int:
    """The side that the file itself asks for."""
    from topwork.backbones.onnx_adapt import side_px
    from topwork.backbones.onnx_read import read

    size = side_px(read(file), options.ends, file)
    if not size:
        raise BadWeights(f"{file} takes images of any size. Say which it was trained on: size=224")
    return size


def _three(value: Any, scale: float, where: str) -> list[float]:
    """Three numbers on the scale 0..1."""
    values = [value] * 3 if isinstance(value, int | float) else value
    if not (isinstance(values, tuple | list) and len(values) == 3 and all(isinstance(n, int | float) for n in values)):
        raise BadSetting(
            f"{where}: mean and std must be a number or three, such as (0.485, 0.456, 0.406), not {value!r}"
        )
    return [float(number) / scale for number in values]
