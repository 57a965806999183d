"""Topwork: graft a new task onto a model that already knows the world.

    import topwork as tw

    model = tw.fit("photos/")            # inspects, splits, climbs the ladder, proves the result
    model.predict("new.jpg").label
    tw.load("models/photos").report      # the numbers, each with its interval

Importing costs nothing: what a verb needs is loaded when the verb is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topwork.types import VERSION

__version__ = VERSION

__all__ = [
    "clean",
    "errors",
    "evaluate",
    "extend",
    "extract",
    "fit",
    "inspect",
    "load",
    "predict",
    "pretrain",
    "rank",
    "read",
    "redact",
    "split",
    "sweep",
]

if TYPE_CHECKING:
    from topwork import errors
    from topwork.verbs import (
        clean,
        evaluate,
        extend,
        extract,
        fit,
        inspect,
        load,
        predict,
        pretrain,
        rank,
        read,
        redact,
        split,
        sweep,
    )


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("topwork.errors")
    if name in __all__:
        return getattr(import_module("topwork.verbs"), name)
    raise AttributeError(f"module 'topwork' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
