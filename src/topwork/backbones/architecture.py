"""The one call in a card's prose that builds a network: read as syntax, never executed.

    parse("timm.create_model('mobilenetv2_100', pretrained=False, pad_type='same'); load_state_dict(...)")
    -> Architecture("timm", "mobilenetv2_100", {"pad_type": "same"})

Two callables are known, timm.create_model and torchvision.models.NAME; arguments are literals; none reads files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from topwork.errors import BadWeights

_START = re.compile(r"timm\.create_model\(|torchvision\.models\.\w+\(")
_DROPPED = {"pretrained", "weights", "progress"}  # weights come from the folder, whatever the call says
REFUSED = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights_backbone"}


@dataclass(frozen=True)
class Architecture:
    """A network of timm or torchvision, without weights."""

    library: Literal["timm", "torchvision"]
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.library}:{self.name}({', '.join(f'{k}={v!r}' for k, v in sorted(self.options.items()))})"


def parse(text: str, where: str) -> Architecture:
    """The architecture that a card describes."""
    call = _call(text)
    if call is None:
        raise BadWeights(
            f"{where} names no known architecture: '{text}'. Expected timm.create_model('NAME', ...) or "
            "torchvision.models.NAME(...), or an 'onnx' block with a file"
        )
    try:
        positional = [ast.literal_eval(value) for value in call.args]
        options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except ValueError as error:
        raise BadWeights(f"{where}: the arguments of '{ast.unparse(call)}' must be literals") from error
    refused = sorted(options.keys() & REFUSED)
    if refused or any(word.arg is None for word in call.keywords):
        raise BadWeights(f"{where}: '{ast.unparse(call)}' must not use {', '.join(refused) or '**'}")
    options = {name: value for name, value in options.items() if name not in _DROPPED}
    path = ast.unparse(call.func)
    if path == "timm.create_model":
        names = positional or [options.pop("model_name", None)]
        if len(names) == 1 and isinstance(names[0], str) and re.fullmatch(r"[\w.]+", names[0]):
            return Architecture("timm", names[0], options)
    elif not positional:
        return Architecture("torchvision", path.rpartition(".")[2], options)
    raise BadWeights(
        f"{where}: '{ast.unparse(call)}' is not timm.create_model('NAME', ...) or torchvision.models.NAME(...)"
    )


def _call(text: str) -> ast.Call | None:
    """The first known call in the prose: try every closing bracket until the syntax is whole."""
    start = _START.search(text)
    for end in re.finditer(r"\)", text[start.start() :] if start else ""):
        try:
            node = ast.parse(text[start.start() : start.start() + end.end()], mode="eval").body  # type: ignore[union-attr]
        except (SyntaxError, ValueError):
            continue
        return node if isinstance(node, ast.Call) else None
    return None
