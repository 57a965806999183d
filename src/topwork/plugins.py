"""The one registry: a file in a room's folder is a name; other packages add names through entry points.

    names("adaptation.probe")                      -> ("knn", "logistic", ...)
    make("adaptation.probe", "logistic(l2=0.1)")   -> Logistic(l2=0.1), as is "logistic(0.1)" where l2 comes first

`logistic.py` holds the class `Logistic` (file name in CamelCase): a frozen dataclass whose fields are its options.
Specs are literals, checked against the listing before anything is imported; nothing in them is ever executed.
Third parties: an entry point in the group `topwork.adaptation.probe` whose object is such a class.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from topwork.errors import BadSetting, UnknownName

_HOUSE = Path(__file__).parent


@cache
def _foreign(room: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"topwork.{room}")}


def names(room: str) -> tuple[str, ...]:
    """Every name in a room, without importing any of them."""
    files = {path.stem for path in (_HOUSE / room.replace(".", "/")).glob("[!_]*.py")}
    return tuple(sorted(files | _foreign(room).keys()))


def summaries(room: str) -> dict[str, str]:
    """Each name with the first line of its docstring; nothing is imported."""
    lines = {}
    for name in names(room):
        file = _HOUSE / room.replace(".", "/") / f"{name}.py"
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else ""
        lines[name] = (text or "from another package").splitlines()[0]
    return lines


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Split "name(option=literal, ...)" into its name and options."""
    name, values, options = _call(spec)
    if values:
        raise _complaint(spec)
    return name, options


def _call(spec: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Split "name(literal, ..., option=literal, ...)" into its name, values in order, and options."""
    try:
        call = ast.parse(spec.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, [], {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            options = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
            if None not in options:  # f(**options)
                values = [ast.literal_eval(value) for value in call.args]
                return call.func.id, values, {str(name): value for name, value in options.items()}
    except (SyntaxError, ValueError) as error:
        raise _complaint(spec) from error
    raise _complaint(spec)


def _complaint(spec: str) -> BadSetting:
    return BadSetting(f"'{spec}' is not a spec. Expected name or name(option=value, ...), e.g. logistic(l2=0.1)")


def find(room: str, name: str) -> Any:
    """The class of one name in a room."""
    if name not in names(room):
        raise UnknownName.among(name, room, names(room))
    if name in _foreign(room):
        return _foreign(room)[name].load()
    module = importlib.import_module(f"topwork.{room}.{name}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))


def make(room: str, spec: str) -> Any:
    """The instance that a spec describes; values without a name go to the options in their order.

    Unknown options are named together with those that exist.
    """
    name, values, options = _call(spec)
    kind = find(room, name)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    known, ordered = [f.name for f in fields], [f.name for f in fields if not f.kw_only]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise BadSetting(f"{room}.{name} has no option {', '.join(unknown)}. Its options: {', '.join(known) or 'none'}")
    named = dict(zip(ordered, values, strict=False))
    if len(values) > len(ordered) or named.keys() & options.keys():
        raise BadSetting(f"{spec}: too many values. The options of {room}.{name}: {', '.join(known) or 'none'}")
    return kind(**named, **options)
