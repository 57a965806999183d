"""Faces in pictures, found by a detector that the user brings as ONNX, made unknowable.

    boxes, scores      (K, 4) left, top, right, bottom of 0..1 or of the input's pixels; (K,), (K, 1) or (K, 2), the
                       second of two being the face: what most detectors give with their decoding inside, UltraFace too
    loc, conf, landms  (K, 4), (K, 2), (K, 10): RetinaFace, to be decoded by its anchors
    one of (5+, K)     YOLOv8: middle x, y, width, height, score        one of (K, 6+): YOLOv5 with objectness, too
    all with or without a batch of 1 in front

What goes in is told by the form: UltraFace's (x - 127) / 128 in RGB, RetinaFace's x - (104, 117, 123) in BGR, YOLO's
x / 255 in RGB with grey bars; a graph of uint8 gets the pixels. A file detector.json beside detector.onnx overrides any
of form ("boxes", "retinaface", "yolov5", "yolov8"), size [W, H], mean, std, order ("RGB", "BGR"), threshold.

A face is blurred in its box and a fifth around it: CELLS x CELLS means, smoothly between them. Who it is can be learnt
back from fine mosaics where the persons are known (McPherson et al., Defeating Image Obfuscation with Deep Learning,
2016); 25 colours of the whole head leave little of that, but not nothing. A face that the detector misses stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topwork.errors import BadSetting, BadWeights, WeightsNotHere

FORMS = ("boxes", "retinaface", "yolov5", "yolov8")
CELLS = 5  # along each side of a face
AROUND = 0.2  # of the box, on every side
THRESHOLD, OVERLAP = 0.5, 0.4  # least score; of two boxes that share more of their union the surer stays
SIZE = (640, 640)  # of inputs that take any
_KEYS = ("form", "size", "mean", "std", "order", "threshold")
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # RetinaFace: stride, sides
_VARIANCE = (0.1, 0.2)

Pixels = NDArray[np.uint8]


class Look(NamedTuple):
    """How a picture must look."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str
    bars: bool  # keep its proportions, with grey bars


_LOOKS = {
    "boxes": Look((127.0,) * 3, (128.0,) * 3, "RGB", False),
    "retinaface": Look((104.0, 117.0, 123.0), (1.0,) * 3, "BGR", False),
    "yolov5": Look((0.0,) * 3, (255.0,) * 3, "RGB", True),
    "yolov8": Look((0.0,) * 3, (255.0,) * 3, "RGB", True),
}


@dataclass(frozen=True, eq=False)
class Detector:
    """A graph that finds faces."""

    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)  # of detector.json

    @classmethod
    def of(cls, spec: str) -> Detector:
        """From local:detector.onnx, or a path; opened at once."""
        path = Path(spec.removeprefix("local:")).expanduser()
        if path.suffix.lower() != ".onnx":
            raise BadSetting(f"--faces {spec}: expected a detector as ONNX, local:detector.onnx")
        if not path.is_file():
            raise WeightsNotHere(f"--faces {spec}: {path} does not exist")
        beside, given = path.with_suffix(".json"), {}
        if beside.is_file():
            try:
                given = json.loads(beside.read_bytes())
            except ValueError as error:
                raise BadSetting(f"{beside} is not JSON: {error}") from error
            if not isinstance(given, dict) or set(given) - set(_KEYS) or given.get("form", "boxes") not in FORMS:
                raise BadSetting(f"{beside}: expected some of {', '.join(_KEYS)}, form one of {', '.join(FORMS)}")
        made = cls(path, given)
        _ = made.form
        return made

    @cached_property
    def _session(self) -> Any:
        from topwork.nn.session import session

        opened = session(self.path)
        if len(opened.get_inputs()) != 1 or len(opened.get_inputs()[0].shape) != 4:
            raise BadWeights(f"{self.path} does not take one batch of pictures. Expected an input of four dimensions")
        return opened

    @cached_property
    def _last(self) -> bool:
        """Whether colours are the last dimension."""
        return self._session.get_inputs()[0].shape[3] == 3

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the input."""
        shape = self._session.get_inputs()[0].shape
        height, width = shape[1:3] if self._last else shape[2:4]
        if isinstance(width, int) and isinstance(height, int):
            return width, height
        width, height = self.given.get("size", SIZE)
        return int(width), int(height)

    @cached_property
    def form(self) -> str:
        """What its outputs are, by asking it about a grey picture."""
        if "form" in self.given:
            return self.given["form"]
        grey = np.full((self.size[1], self.size[0], 3), 127, np.uint8)
        return _form_of([_flat(out) for out in self._run(grey, _LOOKS["boxes"])], self.path)

    def boxes(self, pixels: Pixels) -> NDArray[np.float64]:
        """(F, 4) left, top, right, bottom of every face in upright pixels (H, W, 3)."""
        from PIL import Image

        H, W = pixels.shape[:2]
        width, height = self.size
        usual = _LOOKS[self.form]
        look = Look(
            tuple(self.given.get("mean", usual.mean)), tuple(self.given.get("std", usual.std)),
            self.given.get("order", usual.order), usual.bars,
        )  # fmt: skip
        scale = (min(width / W, height / H),) * 2 if look.bars else (width / W, height / H)
        small = max(1, round(W * scale[0])), max(1, round(H * scale[1]))
        shown = np.full((height, width, 3), 114, np.uint8)
        left, top = (width - small[0]) // 2, (height - small[1]) // 2
        resized = Image.fromarray(pixels).resize(small, Image.Resampling.BILINEAR)
        shown[top : top + small[1], left : left + small[0]] = np.asarray(resized)
        outputs = [_flat(out) for out in self._run(shown, look)]
        found, scores = _read(self.form, outputs, (width, height), self.path)
        keep = scores >= float(self.given.get("threshold", THRESHOLD))
        found, scores = found[keep].astype(np.float64), scores[keep]
        found = (found - [left, top, left, top]) / [scale[0], scale[1], scale[0], scale[1]]
        whole = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
        found, scores = found[whole], scores[whole]
        return found[_distinct(found, scores)]

    def _run(self, pixels: Pixels, look: Look) -> list[NDArray[Any]]:
        given = self._session.get_inputs()[0]
        if given.type == "tensor(uint8)":
            x: NDArray[Any] = pixels
        else:
            colours = pixels[..., ::-1] if look.order == "BGR" else pixels
            x = ((colours - np.array(look.mean, np.float32)) / np.array(look.std, np.float32)).astype(np.float32)
            x = x.astype(np.float16) if given.type == "tensor(float16)" else x
        x = np.ascontiguousarray((x if self._last else x.transpose(2, 0, 1))[None])
        return [np.asarray(out, np.float32) for out in self._session.run(None, {given.name: x})]


def blurred(pixels: Pixels, boxes: NDArray[Any]) -> Pixels:
    """The same pixels with every box, and a bit around it, beyond recognition."""
    from PIL import Image

    H, W = pixels.shape[:2]
    new = pixels.copy()
    for left, top, right, bottom in boxes.tolist():
        more_x, more_y = AROUND * (right - left), AROUND * (bottom - top)
        x0, x1 = max(0, int(left - more_x)), min(W, int(np.ceil(right + more_x)))
        y0, y1 = max(0, int(top - more_y)), min(H, int(np.ceil(bottom + more_y)))
        if x1 <= x0 or y1 <= y0:
            continue
        face = Image.fromarray(new[y0:y1, x0:x1])
        cells = min(CELLS, x1 - x0), min(CELLS, y1 - y0)
        means = face.resize(cells, Image.Resampling.BOX)
        new[y0:y1, x0:x1] = np.asarray(means.resize(face.size, Image.Resampling.BICUBIC))
    return new


def _flat(out: NDArray[Any]) -> NDArray[Any]:
    """Without the batch of one."""
    return out[0] if out.ndim == 3 and out.shape[0] == 1 else out


def _form_of(outputs: Sequence[NDArray[Any]], path: Path) -> str:
    widths = sorted(out.shape[-1] for out in outputs if out.ndim == 2)
    if len(outputs) == 3 and widths == [2, 4, 10]:
        return "retinaface"
    if len(outputs) >= 2 and any(out.ndim == 2 and out.shape[-1] == 4 for out in outputs):
        return "boxes"
    if len(outputs) == 1 and outputs[0].ndim == 2 and min(outputs[0].shape) >= 5:
        return "yolov8" if outputs[0].shape[0] < outputs[0].shape[1] else "yolov5"
    shapes = ", ".join(str(list(out.shape)) for out in outputs)
    raise BadWeights(
        f"{path} gives {shapes}: no form that is known. Name one in {path.with_suffix('.json').name}: form"
    )


def _read(
    form: str, outputs: Sequence[NDArray[Any]], size: tuple[int, int], path: Path
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes in pixels of the input and their scores."""
    if form == "yolov8":
        rows = outputs[0].T  # (K, 5+)
        return _corners(rows[:, :4]), rows[:, 4]
    if form == "yolov5":
        rows = outputs[0]
        kind = rows[:, -1] if rows.shape[1] in (6, 16) else np.ones(len(rows), np.float32)
        return _corners(rows[:, :4]), rows[:, 4] * kind
    boxes = next((out for out in outputs if out.ndim == 2 and out.shape[-1] == 4), None)
    scores = next((out for out in outputs if out is not boxes and (out.ndim == 1 or out.shape[-1] <= 2)), None)
    if boxes is None or scores is None or len(boxes) != len(scores):
        raise BadWeights(f"{path} gives no boxes (K, 4) with a score each, as its form '{form}' would")
    scores = scores if scores.ndim == 1 else scores[:, -1]
    if form == "retinaface":
        return _decoded(boxes, size, path), scores
    relative = len(boxes) == 0 or np.abs(boxes).max() <= 2  # of 0..1; some reach over the edge
    return (boxes * np.tile(size, 2) if relative else boxes), scores


def _corners(middle: NDArray[Any]) -> NDArray[Any]:
    half = middle[:, 2:] / 2
    return np.concatenate([middle[:, :2] - half, middle[:, :2] + half], 1)


def _decoded(offsets: NDArray[Any], size: tuple[int, int], path: Path) -> NDArray[Any]:
    """RetinaFace: middle = anchor + 0.1 offset side, side = anchor's side exp(0.2 offset).

    Deng et al., RetinaFace, CVPR 2020; anchors of its widely used PyTorch form.
    """
    width, height = size
    anchors = np.array(
        [
            ((column + 0.5) * stride, (row + 0.5) * stride, side, side)
            for stride, sides in _ANCHORS
            for row, column in product(range(-(-height // stride)), range(-(-width // stride)))
            for side in sides
        ]
    )
    if len(anchors) != len(offsets):
        raise BadWeights(
            f"{path} gives {len(offsets)} offsets for {len(anchors)} anchors of a {width} x {height} input"
        )
    middle = anchors[:, :2] + _VARIANCE[0] * offsets[:, :2] * anchors[:, 2:]
    return _corners(np.concatenate([middle, anchors[:, 2:] * np.exp(_VARIANCE[1] * offsets[:, 2:])], 1))


def _distinct(boxes: NDArray[Any], scores: NDArray[Any]) -> list[int]:
    """The surest of those that overlap."""
    kept: list[int] = []
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for i in np.argsort(-scores, kind="stable").tolist():
        low, high = np.maximum(boxes[kept, :2], boxes[i, :2]), np.minimum(boxes[kept, 2:], boxes[i, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        if not (shared > OVERLAP * (area[kept] + area[i] - shared)).any():
            kept.append(i)
    return kept
