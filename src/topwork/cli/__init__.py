"""The command line: one file per group of commands, bodies that import only when they run.

Exit codes: 0 done, 2 something the user can mend (one line says what), 130 stopped by Ctrl-C, 1 a bug of ours. Of
several processes of one run that all fail, the first one speaks: the others hold their tongue until they are ended.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import NoReturn

import typer

from topwork.cli import backbones, cache, data, extend, fit, key, listing, model, pretrain, rank, redact, sweep
from topwork.types import VERSION

OTHERS_SECONDS = 3.0  # until another process says what ended it, if nobody ends it before

app = typer.Typer(
    name="topwork",
    help="Graft a new task onto a model that already knows the world.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
fit.add_to(app)
sweep.add_to(app)
model.add_to(app)
extend.add_to(app)
pretrain.add_to(app)
rank.add_to(app)
data.add_to(app)
redact.add_to(app)
listing.add_to(app)
backbones.add_to(app)
cache.add_to(app)
key.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"topwork {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; every failure that a user can mend is one line."""
    from topwork.errors import ProcessLost, TopworkError

    stopped = "topwork: stopped. Nothing is lost: the same command goes on where it was."
    try:
        app()
    except SystemExit as end:  # typer turns Ctrl-C into exit code 130
        _end(stopped if end.code == 130 else "", int(end.code or 0))
    except KeyboardInterrupt:
        _end(stopped, 130)
    except ProcessLost as error:
        _end(f"topwork: {error}", 2, late=True)
    except TopworkError as error:
        _end(f"topwork: {error}", 2)
    except MemoryError:
        _end("topwork: not enough memory. A smaller --batch-size or a smaller backbone needs less.", 2)
    except Exception as error:
        if os.environ.get("TOPWORK_DEBUG"):
            raise
        _end(f"topwork: unexpected {type(error).__name__}: {error}. TOPWORK_DEBUG=1 shows where; please report it.", 1)
    _end("", 0)


def _end(line: str, code: int, late: bool = False) -> NoReturn:
    """Say one line and leave at once: worker threads that still run native code are not waited for."""
    from topwork import processes
    from topwork.store.database import hidden

    other = processes.started() > 1 and os.environ["RANK"] != "0"
    if other and code == 130:
        line = ""
    if line and (late or other):
        time.sleep(OTHERS_SECONDS)
    if line:
        print(hidden(" ".join(line.split())), file=sys.stderr)  # an address may hold a password
    if code == 0 and (store := sys.modules.get("topwork.store.cache")):
        store.close_all()  # what was used is written down, which an exit at once would not do
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
