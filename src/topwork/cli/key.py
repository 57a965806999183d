"""`topwork key` and `topwork decrypt`: keys of what is encrypted at rest, and a model in the clear again."""

from __future__ import annotations

from pathlib import Path

import typer

from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Keys of what is encrypted at rest.")
    group.command()(new)
    group.command()(show)
    app.add_typer(group, name="key")
    app.command()(decrypt)


def new(file: Path = typer.Argument(..., help="Where the key goes; an existing file is never replaced.")) -> None:
    """Write a new random key of 32 bytes into a file that only you can read."""
    from topwork.store import keys

    key = keys.new_file(file)
    typer.echo(f"key {key.id} is in {file}. Keep a copy elsewhere: what is encrypted with it cannot be read without it")
    typer.echo(f"use     topwork fit DATA --encrypt --key-file {file}")


@places("key_file")
def show() -> None:
    """Print the id of the key that is set; models say which one they need."""
    from topwork.store import keys

    secret = keys.current()
    typer.echo(secret.id if isinstance(secret, keys.Key) else "a passphrase: its key differs from model to model")


@places("key_file")
def decrypt(
    model: Path = typer.Argument(..., help="Folder of an encrypted model."),
    out: Path = typer.Option(..., help="Folder for the same model in the clear, with its report."),
) -> None:
    """Write an encrypted model to another folder in the clear, to look at its report or to pass it on."""
    from topwork.artefact.bundle import decrypt as write

    names = write(model, out)
    typer.echo(f"{out}: {', '.join(names)}. Nothing in it is encrypted")
