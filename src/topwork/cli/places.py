"""Options that several commands share: where features are remembered, and whether what is written is encrypted.

    @places("cache", "encrypt", "key_file")      a command with these options; they hold while it runs

They set what TOPWORK_CACHE, TOPWORK_ENCRYPT and TOPWORK_KEY_FILE name, for this process and those that it starts.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer

OPTIONS: dict[str, tuple[type, Any]] = {
    "cache": (str, typer.Option(None, help="Where features are remembered: a folder, or redis://HOST:PORT/DB.")),
    "encrypt": (
        bool,
        typer.Option(False, "--encrypt", help="Encrypt the cache and the model; needs a key (topwork key new FILE)."),
    ),
    "key_file": (str, typer.Option(None, help="File with the key of what is encrypted; or set TOPWORK_KEY.")),
}


def places(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            from topwork import settings
            from topwork.store import keys

            asked = {name: given.pop(name) for name in names}
            with settings.using(asked.get("cache"), asked.get("encrypt", False), asked.get("key_file")):
                if asked.get("key_file") or settings.encrypted():
                    keys.current()  # no key, or none at all, ends it before work begins
                command(**given)

        own = inspect.signature(command)
        more = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=OPTIONS[name][1], annotation=OPTIONS[name][0]
            )
            for name in names
        ]
        run.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
        run.__annotations__ = {**command.__annotations__, **{name: OPTIONS[name][0] for name in names}}
        return run

    return add
