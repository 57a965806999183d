"""`topwork cache`: what is remembered, how much room it takes, and how to forget it."""

from __future__ import annotations

import json

import typer

from topwork.cli.places import places


def add_to(app: typer.Typer) -> None:
    """Add the group to the application."""
    group = typer.Typer(no_args_is_help=True, help="What is remembered between runs.")
    group.command()(places("cache", "encrypt", "key_file")(info))
    group.command()(places("cache", "encrypt", "key_file")(clear))
    app.add_typer(group, name="cache")


def info(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Show where the cache lies, its size and its limit."""
    from topwork.store import blobs, remote
    from topwork.store.cache import open_cache

    facts = {**open_cache().info(), "remote": remote.copies().info(), "blobs": blobs.info()}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"{facts['folder']}: {facts['bytes'] / 1e6:,.1f} MB, limit {facts['limit']}")
    if "encrypted" in facts:
        typer.echo(f"encrypted with the key {facts['encrypted']}")
    for name, part in facts["namespaces"].items():
        typer.echo(f"  {name}: {part['entries']:,} entries, {part['bytes'] / 1e6:,.1f} MB")
    if below := facts.get("local"):
        typer.echo(f"beside it {below['folder']}: {below['bytes'] / 1e6:,.1f} MB, limit {below['limit']}")
    if (held := facts["remote"])["files"]:
        many = f"{held['files']:,} local copies, {held['bytes'] / 1e6:,.1f} MB, limit {held['limit']}"
        typer.echo(f"  remote: {many}")
    if (held := facts["blobs"])["files"]:
        typer.echo(f"  blobs: {held['files']:,} images of databases, {held['bytes'] / 1e6:,.1f} MB")
    for note in facts["notes"]:
        typer.echo(note)


def clear(
    namespace: str = typer.Argument(
        None, help="Only this part, e.g. 'features', 'remote' or 'blobs'. Everything otherwise."
    ),
) -> None:
    """Forget; everything in the cache can be computed again."""
    from topwork.store import blobs, remote
    from topwork.store.cache import open_cache

    cache = open_cache()
    before = cache.info()
    if namespace in (None, "remote"):
        remote.clear()
    if namespace in (None, blobs.NAME):
        blobs.clear()
    if namespace not in ("remote", blobs.NAME):
        cache.clear(namespace)
    typer.echo(f"Cleared {namespace or 'everything'} in {before['folder']}")
